import Core
import Sharding
import Wire

@testable import Shard
@testable import StorageNodeService

extension SimulatedNode.Process {
    static let answerTimeout: Instant = 1_000_000

    // MARK: Starting

    func start() {
        node.disk.write { [topology] state in if state.topology == nil { state.topology = topology } }
        openReplica()
        guard isAlive else { return }
        world.observe(topology)
        let question = StartQuestion(topology: topology, address: node.address)
        if let replica, !question.waiting.isEmpty, replica.role.isLeader {
            startHold = try? replica.core.beginHold(milliseconds: StartQuestion.waitMillisecondsMax)
            self.question = question
            for peer in question.peers { ask(peer) }
            after(Instant(StartQuestion.waitMillisecondsMax) * 1_000) {
                if self.question?.timedOut().isEmpty == false { self.releaseStartHold() }
            }
        }
        scheduleGossip()
        scheduleRenewal()
    }

    private func ask(_ peer: NodeAddress) {
        guard question?.waiting.isEmpty == false else { return }
        compare(with: peer) { contact in
            if contact != .silent {
                if self.question?.settled(peer).isEmpty == false { self.releaseStartHold() }
            } else {
                self.after(Instant(StartQuestion.retryMilliseconds) * 1_000) { self.ask(peer) }
            }
        }
    }

    private func releaseStartHold() {
        guard let hold = startHold else { return }
        startHold = nil
        replica?.core.end(hold)
        replica?.wake()
    }

    /// Opens what is on the disk, where the topology gives this node a replica.
    func openReplica(joins: Bool = false) {
        guard let shard, shard.replicas.contains(node.address) else { return }
        let leads = shard.leader == node.address
        if !leads, joins || node.disk.last == .start { node.disk.write { $0.isJoining = true } }
        let replica = SimulatedReplica(self, role: leads ? .leader(term: shard.term) : .follower(term: shard.term))
        self.replica = replica
        guard replica.settle() else { return }
        replica.tellWhoseAcknowledgementsCount()
    }

    // MARK: Topologies

    /// Adopts a topology where it is newer.
    /// - Returns: nil where it is refused; the process may be dead afterwards.
    func adopt(_ shown: Topology) -> Bool? {
        let roles = replica.map { [SimulatedReplica.shard: $0.core.role] } ?? [:]
        let adoption = TopologyAdoption(address: node.address, current: topology, roles: roles)
        guard let incoming = try? adoption.incoming(shown), let decision = try? adoption.decide(on: incoming) else {
            return nil
        }
        switch decision {
        case .refuse: return nil
        case .ignore: return false
        case .adopt(let steps):
            for step in steps {
                perform(step, incoming)
                guard isAlive else { return nil }
            }
            return true
        }
    }

    private func perform(_ step: TopologyAdoption.Step, _ incoming: Topology) {
        switch step {
        case .persist: persist(incoming)
        case .follow(_, let term):
            startHold = nil
            replica?.core.endHold()
            try? replica?.core.become(.follower(term: term), during: nil)
            replica?.settle()
        case .open:
            topology = incoming
            openReplica(joins: true)
        case .lead(_, let term):
            try? replica?.core.become(.leader(term: term), during: nil)
            replica?.settle()
        case .publish: publish(incoming)
        case .close: replica = nil
        }
        replica?.wake()
    }

    /// - Returns: false where the process died in it.
    @discardableResult func persist(_ topology: Topology) -> Bool {
        let isKept = world.sabotage != .forgetTopology
        node.disk.write { state in if isKept { state.topology = topology } }
        guard node.disk.read({ $0.isDead }) else { return true }
        node.crash("died saving a topology")
        return false
    }

    func publish(_ topology: Topology) {
        self.topology = topology
        replica?.tellWhoseAcknowledgementsCount()
        world.observe(topology)
    }

    /// What `POST /topology` answers.
    func show(_ incoming: Topology, _ reply: @escaping (Topology) -> Void) {
        change { done in
            _ = self.adopt(incoming)
            if self.isAlive { reply(self.topology) }
            done()
        }
    }

    private func send(_ topology: Topology, to peer: NodeAddress, _ finish: @escaping (Topology?) -> Void) {
        request(peer, timeout: Self.answerTimeout, failed: Topology?.none, { $0.show(topology, $1) }, finish)
    }

    func showToAll(and others: [NodeAddress] = []) {
        for peer in Set(topology.nodes + others).sorted() where peer != node.address {
            send(topology, to: peer) { theirs in
                if let theirs { self.take(theirs, from: peer) {} }
            }
        }
    }

    /// Asks another node something.
    func request<Outcome>(
        _ peer: NodeAddress, timeout: Instant, failed: Outcome,
        _ serve: @escaping (SimulatedNode.Process, @escaping (Outcome) -> Void) -> Void,
        _ finish: @escaping (Outcome) -> Void
    ) {
        guard let other = world.node(peer) else { return finish(failed) }
        world.network.exchange(from: node.name, to: other, timeout: timeout, failed: failed, serve) { outcome in
            self.node.whenAwake { if self.isAlive { finish(outcome) } }
        }
    }

    // MARK: Gossip

    private func scheduleGossip() {
        let gossip = Gossip(address: node.address)
        after(Instant(gossip.pauseMilliseconds(&world.random)) * 1_000) {
            if let peer = gossip.peer(in: self.topology, &self.world.random) {
                self.compare(with: peer) { _ in }
            }
            self.scheduleGossip()
        }
    }

    func compare(with peer: NodeAddress, _ finish: @escaping (TermDoubt.Contact) -> Void) {
        request(peer, timeout: Self.answerTimeout, failed: Topology?.none, { $1($0.topology) }) { theirs in
            guard let theirs else { return finish(.silent) }
            self.take(theirs, from: peer) {
                let isNewer = (try? theirs.supersedes(self.topology)) ?? true
                finish(isNewer ? .isNewer : .answered)
            }
        }
    }

    private func take(_ theirs: Topology, from peer: NodeAddress, _ finish: @escaping () -> Void) {
        let gossip = Gossip(address: node.address)
        switch try? gossip.action(on: .topology(theirs), own: topology) {
        case .adopt(let newer):
            change { done in
                _ = self.adopt(newer)
                if self.isAlive { finish() }
                done()
            }
        case .tell:
            send(topology, to: peer) { _ in }
            finish()
        case .nothing, .complain, nil: finish()
        }
    }

    // MARK: Membership

    func add(_ member: NodeAddress) { changeMembers { try $0.adding(member, to: SimulatedReplica.shard) } }

    /// Once another follower has everything that this leader has.
    func remove(_ member: NodeAddress) {
        guard let replica, let shard, shard.leader == node.address, shard.followers.contains(member) else { return }
        let finish: (Bool) -> Void = { isKept in
            if isKept { self.changeMembers { try $0.removing(member, from: SimulatedReplica.shard) } }
            self.after(0) { replica.end(replica.acks.mark(member, isLeaving: false)) }
        }
        replica.end(replica.acks.mark(member, isLeaving: true))
        guard shard.followers.count > 1 else { return finish(true) }
        guard replica.acks.reserve(1) else { return finish(false) }
        let lsn = replica.commits.committed.lsn
        switch replica.acks.add(.level(.replicas(2)), lsn: lsn, writes: 1, { finish($0 == .reached) }) {
        case .ended(let outcome): finish(outcome == .reached)
        case .waiting(let token): after(3_000_000) { if replica.acks.cancel(token) != nil { finish(false) } }
        }
    }

    private func changeMembers(_ next: @escaping (Topology) throws -> Topology?) {
        guard shard?.leader == node.address, replica?.role.isLeader == true else { return }
        change { done in
            let before = self.topology
            if let changed = try? next(before), self.adopt(changed) == true {
                self.world.note("\(self.node.name) makes the members \(changed.nodes)")
                self.showToAll(and: before.nodes)
            }
            done()
        }
    }

    // MARK: Promises

    func standing(_ reply: (PromotionDecision.Answer) -> Void) {
        guard let replica else { return reply(.refused("no replica")) }
        reply(.standing(standing(of: replica)))
    }

    func standing(of replica: SimulatedReplica) -> PromotionDecision.Standing {
        let heard = replica.freshness.heard.map {
            HistoryDocument.LeaderSighting(lsn: $0.lsn, millisecondsAgo: node.clock.monotonic - $0.monotonic)
        }
        return PromotionDecision.Standing(
            position: replica.commits.committed, newestTerm: replica.core.newestTerm,
            isLeading: replica.isLeading, leaderLastSeen: replica.role.isLeader ? nil : heard)
    }

    func fence(_ term: UInt64, _ candidate: NodeAddress, _ reply: (PromotionDecision.Answer) -> Void) {
        guard let replica else { return reply(.refused("no replica")) }
        do {
            try replica.core.fence(term: term, candidate: candidate)
        } catch {
            if replica.settle() { reply(.refused("\(error)")) }
            return
        }
        guard replica.settle() else { return }
        world.ledger.promised(term, by: node)
        replica.wake()
        reply(.standing(standing(of: replica)))
    }

    // MARK: Forced failover

    func promote(epoch: UInt64, force: Bool) {
        change { done in
            guard let replica = self.replica, let shard = self.shard, self.topology.epoch == epoch,
                !(shard.leader == self.node.address && replica.role.isLeader), !replica.isJoining,
                replica.core.failure == nil
            else { return done() }
            self.promote(replica, shard, force: force, isRenewal: false, done)
        }
    }

    func promote(
        _ replica: SimulatedReplica, _ shard: ShardTopology, force: Bool, isRenewal: Bool, _ done: @escaping () -> Void
    ) {
        let decision = PromotionDecision(
            epoch: topology.epoch, shard: shard, candidate: node.address, force: force, own: standing(of: replica),
            isRenewal: isRenewal)
        askAll(decision.others, { $0.standing($1) }) { answers in
            guard let plan = try? decision.plan(answers) else { return done() }
            self.askAll(plan.promisers, { [address = self.node.address] in $0.fence(plan.term, address, $1) }) {
                promises in
                self.conclude(decision, plan, answers, promises, replica, done)
            }
        }
    }

    private func conclude(
        _ first: PromotionDecision, _ plan: PromotionDecision.Plan, _ answers: [NodeAddress: PromotionDecision.Answer],
        _ promises: [NodeAddress: PromotionDecision.Answer], _ replica: SimulatedReplica, _ done: @escaping () -> Void
    ) {
        guard self.replica === replica else { return done() }
        if !(first.isRenewal && replica.role.isLeader) {
            guard (try? replica.core.fence(term: plan.term, candidate: node.address)) != nil else {
                replica.settle()
                return done()
            }
            guard replica.settle() else { return }
            world.ledger.promised(plan.term, by: node)
        }
        let final = PromotionDecision(
            epoch: first.epoch, shard: first.shard, candidate: first.candidate, force: first.force,
            own: PromotionDecision.Standing(
                position: replica.commits.committed, newestTerm: plan.term, isLeading: replica.isLeading,
                leaderLastSeen: first.own.leaderLastSeen), isRenewal: first.isRenewal)
        guard let conclusion = try? final.conclude(plan, asked: answers, promised: promises),
            let next = try? topology.promoting(node.address, in: SimulatedReplica.shard, above: plan.term - 1)
        else { return done() }
        // Said before it is done: from here on it may be in force.
        world.ledger.failedOver(
            Ledger.Failover(
                leader: node.address, term: plan.term, newestKnown: plan.newestKnown,
                keptVersion: conclusion.keptVersion, isForced: first.force,
                isComplete: conclusion.isComplete))
        world.note(
            "\(node.name) takes over in term \(plan.term) at \(conclusion.position), forced: \(first.force), "
                + "complete: \(conclusion.isComplete)")
        _ = adopt(next)
        if isAlive { showToAll() }
        done()
    }

    private func askAll(
        _ peers: [NodeAddress],
        _ serve: @escaping (SimulatedNode.Process, @escaping (PromotionDecision.Answer) -> Void) -> Void,
        _ finish: @escaping ([NodeAddress: PromotionDecision.Answer]) -> Void
    ) {
        var answers: [NodeAddress: PromotionDecision.Answer] = [:]
        guard !peers.isEmpty else { return finish([:]) }
        for peer in peers {
            request(peer, timeout: Self.answerTimeout, failed: .silent("no answer"), serve) { answer in
                answers[peer] = answer
                if answers.count == peers.count { finish(answers) }
            }
        }
    }
}
