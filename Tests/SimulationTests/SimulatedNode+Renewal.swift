import Core
import Sharding
import Wire

@testable import Shard
@testable import StorageNodeService

/// A leader whose followers have promised a term that nobody leads begins a newer one: carries a ``TermDoubt`` out.
extension SimulatedNode.Process {
    func scheduleRenewal() {
        guard world.sabotage != .neverRenew else { return }
        let limits = TermRenewal.Limits()
        after(Instant(limits.intervalMilliseconds * (80 + world.below(40)) / 100) * 1_000) {
            self.lookForPromises(limits)
            self.scheduleRenewal()
        }
    }

    private func lookForPromises(_ limits: TermRenewal.Limits) {
        guard let replica, let shard, shard.leader == node.address, !shard.followers.isEmpty,
            replica.core.failure == nil
        else {
            doubt = nil
            return
        }
        if doubt == nil { doubt = TermDoubt(leader: node.address, patience: limits.patience) }
        doubt?.leads(shard.term)
        if !replica.role.isLeader { saw(promise(of: replica), shard) }
        let now = node.clock.monotonic
        for follower in shard.followers {
            let reported = replica.acks.followers.first { $0.address == follower }?.reported
            if let reported, now - reported.milliseconds < limits.silenceMilliseconds { continue }
            request(
                follower, timeout: Self.answerTimeout, failed: TermDoubt.Promise?.none,
                { process, reply in reply(process.replica.map { process.promise(of: $0) }) }
            ) { promise in
                if let promise { self.saw(promise, shard) }
            }
        }
        if doubt?.isRipe(at: now) == true { settleDoubt(shard) }
    }

    private func promise(of replica: SimulatedReplica) -> TermDoubt.Promise {
        let term = replica.core.newestTerm
        let promise = node.disk.read { $0.promise }
        return TermDoubt.Promise(term: term, candidate: promise.flatMap { $0.term == term ? $0.candidate : nil })
    }

    private func saw(_ promise: TermDoubt.Promise, _ shard: ShardTopology) {
        doubt?.saw(promise, leading: shard.term, at: node.clock.monotonic)
    }

    private func settleDoubt(_ shard: ShardTopology) {
        let everybody = Set(shard.followers + [doubt?.promise?.candidate].compactMap { $0 }).subtracting([node.address])
        var contacts: [NodeAddress: TermDoubt.Contact] = [:]
        for peer in everybody.sorted() {
            compare(with: peer) { contact in
                contacts[peer] = contact
                if contacts.count == everybody.count { self.renew(shard, contacts) }
            }
        }
    }

    private func renew(_ shard: ShardTopology, _ contacts: [NodeAddress: TermDoubt.Contact]) {
        guard let replica, self.shard == shard, let doubt,
            doubt.mayRenew(
                replicas: shard.replicas, isFenced: !replica.isLeading, contacts: contacts,
                at: node.clock.monotonic)
        else { return }
        change { done in
            guard self.replica === replica, self.shard == shard, !replica.isJoining, replica.core.failure == nil else {
                return done()
            }
            self.promote(replica, shard, force: false, isRenewal: true) {
                if let term = self.shard?.term, term > shard.term {
                    self.world.note("\(self.node.name) leads on in term \(term)")
                    self.doubt?.leads(term)
                } else {
                    self.doubt?.failed(at: self.node.clock.monotonic)
                }
                done()
            }
        }
    }
}
