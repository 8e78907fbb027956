import Core
import Logging
import NIOCore
import Shard
import Sharding
import Wire

/// Lets a shard's leader lead on in a new term where a promotion that came to nothing has left replicas behind that
/// take no batches of its own: see ``TermDoubt``.
struct TermRenewal: Sendable {
    struct Limits: Sendable {
        /// From one round to the next, a fifth more or less at random.
        var intervalMilliseconds: UInt64 = 1_000
        /// A follower that is fed acknowledges several times in a second, also where nothing is written; one that has
        /// not for so long is asked what it has promised.
        var silenceMilliseconds: UInt64 = 3_000
        var patience = TermDoubt.Patience()
    }

    /// Followers asked in a round; the others have their turn in another.
    private static let questionsMax = 64

    let admin: ShardAdmin
    let limits: Limits
    let eventLoop: any EventLoop

    private var node: Node { admin.node }

    init(admin: ShardAdmin, limits: Limits, eventLoop: any EventLoop) {
        self.admin = admin
        self.limits = limits
        self.eventLoop = eventLoop
    }

    /// Looks after the shards that this node leads, until the task is cancelled.
    func run() async {
        var doubts: [String: TermDoubt] = [:]
        var succession = Succession(node: node)
        while !Task.isCancelled {
            let pause = limits.intervalMilliseconds * UInt64.random(in: 80...120) / 100
            do {
                try await Task.sleep(for: .milliseconds(pause))
            } catch {
                return
            }
            await round(&doubts)
            await succession.round()
        }
    }

    private func round(_ doubts: inout [String: TermDoubt]) async {
        let led = led()
        doubts = doubts.filter { name, _ in led.contains { $0.shard.name == name } }
        var questions = TermRenewal.questionsMax
        for (shard, replica) in led.shuffled() {
            var doubt = doubts[shard.name] ?? TermDoubt(leader: node.address, patience: limits.patience)
            doubt.leads(shard.term)
            await look(at: shard, replica, &doubt, &questions)
            if doubt.isRipe(at: now) { await settle(shard, replica, &doubt) }
            doubts[shard.name] = doubt
        }
    }

    private var now: UInt64 { ShardClock.system.monotonicMilliseconds() }

    /// What the topology gives to this node to lead, with followers.
    private func led() -> [(shard: ShardTopology, replica: ShardReplica)] {
        let view = node.view
        return zip(view.topology.shards, view.replicas).compactMap { shard, replica in
            guard let replica, shard.leader == node.address, !shard.followers.isEmpty, replica.failure == nil else {
                return nil
            }
            return (shard, replica)
        }
    }

    // MARK: Looking

    private func look(
        at shard: ShardTopology, _ replica: ShardReplica, _ doubt: inout TermDoubt, _ questions: inout Int
    ) async {
        let acks = replica.acks.followers
        let silent = shard.followers.filter { follower in
            acks.first { $0.address == follower }.map { $0.millisecondsAgo >= limits.silenceMilliseconds } ?? true
        }
        let asked = silent.shuffled().prefix(questions)
        questions -= asked.count
        for promise in await promises(of: Array(asked), shard, replica) {
            doubt.saw(promise, leading: shard.term, at: now)
        }
    }

    /// The newest promise of this replica, where that does not lead, and of the followers that answer.
    private func promises(
        of followers: [NodeAddress], _ shard: ShardTopology, _ replica: ShardReplica
    ) async -> [TermDoubt.Promise] {
        await withTaskGroup(of: TermDoubt.Promise?.self) { group in
            if !replica.role.isLeader {
                group.addTask {
                    let newest = try? await node.readers.run(on: eventLoop) { try replica.newestPromise() }.get()
                    return newest.map { TermDoubt.Promise(term: $0.term, candidate: $0.candidate) }
                }
            }
            for follower in followers {
                group.addTask {
                    // Who does not answer is asked again in the next round.
                    let history = try? await node.peers.history(ofShard: shard.name, at: follower)
                    return history.map { TermDoubt.Promise(term: $0.newestTerm, candidate: $0.promisedTo) }
                }
            }
            return await group.reduce(into: []) { if let promise = $1 { $0.append(promise) } }
        }
    }

    // MARK: Renewing

    /// Compares topologies with everybody whom it concerns; then this node leads on, or another leads.
    private func settle(_ shard: ShardTopology, _ replica: ShardReplica, _ doubt: inout TermDoubt) async {
        let everybody = Set(shard.followers + [doubt.promise?.candidate].compactMap { $0 }).subtracting([node.address])
        let contacts = await withTaskGroup(of: (NodeAddress, TermDoubt.Contact).self) { group in
            for peer in everybody { group.addTask { (peer, await contact(peer)) } }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        let topology = node.keeper.topology
        guard topology.shard(named: shard.name) == shard,
            doubt.mayRenew(
                replicas: shard.replicas, isFenced: !replica.isLeading, contacts: contacts, at: now)
        else { return }
        do {
            let request = PromoteRequest(epoch: topology.epoch, force: false)
            let promotion = Promotion(admin: admin, replica: replica, request: request, isRenewal: true)
            doubt.leads(try await promotion.run().term)
        } catch {
            doubt.failed(at: now)
            node.logger.warning(
                "replicas have promised a newer term than this leader's, and it could not begin one",
                metadata: ["shard": "\(shard.name)", "term": "\(shard.term)", "reason": "\(error)"])
        }
    }

    private func contact(_ peer: NodeAddress) async -> TermDoubt.Contact {
        do throws(PeerFailure) {
            return try await admin.spreading.compare(with: peer) ? .isNewer : .answered
        } catch {
            switch error {
            case .refused: return .refused
            case .silent, .problem: return .silent
            }
        }
    }
}
