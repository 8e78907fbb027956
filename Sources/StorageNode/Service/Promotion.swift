import Core
import Logging
import NIOCore
import Shard
import Sharding
import Wire

/// Makes this node the leader of a shard whose leader is gone, or lets it lead on in a new term, as
/// ``PromotionDecision`` decides.
struct Promotion {
    let admin: ShardAdmin
    let replica: ShardReplica
    let request: PromoteRequest
    /// This node is the leader so far, and begins a new term because others have promised one away. Writes go on
    /// meanwhile.
    var isRenewal = false

    private var node: Node { admin.node }
    private var name: String { replica.configuration.name }

    /// Throws a `Problem`.
    func run() async throws -> FailoverReport {
        let report = try await node.keeper.change { change in try await self.run(change) }
        await admin.spreading.showToAll()
        return report
    }

    private func run(_ change: borrowing TopologyKeeper.Change) async throws -> FailoverReport {
        let topology = node.keeper.topology
        let shard = try check(topology)
        let position = replica.position
        let decision = PromotionDecision(
            epoch: topology.epoch, shard: shard, candidate: node.address, force: request.force,
            own: PromotionDecision.Standing(
                position: position, newestTerm: replica.newestTerm, isLeading: replica.isLeading,
                leaderLastSeen: replica.freshness.leaderLastSeen), isRenewal: isRenewal)
        let answers = await ask(decision.others) { peer throws(PeerFailure) in
            try await node.peers.history(ofShard: name, at: peer)
        }
        let plan = try decision.plan(answers)
        let fence = FenceRequest(term: plan.term, candidate: node.address)
        let promises = await ask(plan.promisers) { peer throws(PeerFailure) in
            try await node.peers.fence(fence, ofShard: name, at: peer)
        }
        // One that leads takes nothing from anybody already, and would stop.
        if !(isRenewal && replica.role.isLeader) {
            try await replica.fence(term: plan.term, candidate: node.address)
        }
        // Until the promise a leader may have pushed more.
        let final = PromotionDecision(
            epoch: decision.epoch, shard: shard, candidate: decision.candidate, force: decision.force,
            own: PromotionDecision.Standing(
                position: replica.position, newestTerm: plan.term, isLeading: replica.isLeading,
                leaderLastSeen: decision.own.leaderLastSeen), isRenewal: isRenewal)
        let conclusion = try final.conclude(plan, asked: answers, promised: promises)
        let next = try topology.promoting(node.address, in: name, above: plan.term - 1)
        let source = isRenewal ? "a new term" : "failover"
        guard try await node.keeper.adopt(next, from: source, change), replica.role == .leader(term: plan.term)
        else {
            throw Problem(
                .topologyConflict, "This node cannot lead \(name) in term \(plan.term): look at kv status, try again.")
        }
        return report(conclusion, next, plan.term, previous: shard)
    }

    private func check(_ topology: Topology) throws(Problem) -> ShardTopology {
        guard topology.epoch == request.epoch else {
            throw Problem(
                .topologyConflict,
                "The topology is of epoch \(topology.epoch) here, not \(request.epoch): look at it again and decide "
                    + "anew.", members: ["epoch": "\(topology.epoch)"])
        }
        guard let shard = topology.shard(named: name) else {
            throw Problem(.unknownShard, "There is no shard \(name).")
        }
        if isRenewal {
            guard shard.leader == node.address else {
                throw Problem(.topologyConflict, "\(shard.leader) leads \(name) by now.")
            }
        } else if shard.leader == node.address, replica.role.isLeader {
            throw Problem(.topologyConflict, "\(node.address) leads \(name) already.")
        }
        if replica.isJoining {
            throw Problem(
                .followerBehind,
                "The replica of \(name) on \(node.address) is new and has never had all that its leader had: have "
                    + "another one lead.")
        }
        if let failure = replica.failure {
            throw Problem(.storageFailed, "The replica of \(name) here takes no writes: \(failure)")
        }
        return shard
    }

    /// Asks all of them at once.
    private func ask(
        _ peers: [NodeAddress],
        _ question: @escaping @Sendable (NodeAddress) async throws(PeerFailure) -> HistoryDocument
    ) async -> [NodeAddress: PromotionDecision.Answer] {
        await withTaskGroup(of: (NodeAddress, PromotionDecision.Answer).self) { group in
            for peer in peers {
                group.addTask {
                    do throws(PeerFailure) {
                        // Bound first: returned from within the tuple it crashes programs built with -O (Swift 6.3.1).
                        let document = try await question(peer)
                        return (peer, Promotion.answer(document))
                    } catch {
                        guard case .problem(_, let detail) = error else { return (peer, .silent("\(error)")) }
                        return (peer, .refused(detail))
                    }
                }
            }
            var answers: [NodeAddress: PromotionDecision.Answer] = [:]
            for await (peer, answer) in group { answers[peer] = answer }
            return answers
        }
    }

    private static func answer(_ document: HistoryDocument) -> PromotionDecision.Answer {
        do {
            return .standing(
                PromotionDecision.Standing(
                    position: try document.position.position, newestTerm: document.newestTerm,
                    isLeading: document.position.role == .leader, leaderLastSeen: document.leaderLastSeen))
        } catch {
            return .silent("\(error)")
        }
    }

    private func report(
        _ conclusion: PromotionDecision.Conclusion, _ topology: Topology, _ term: UInt64, previous: ShardTopology
    ) -> FailoverReport {
        node.logger.notice(
            isRenewal
                ? "leads on in a new term: replicas had promised one to a node that does not lead"
                : "took the leadership over",
            metadata: [
                "shard": "\(name)", "term": "\(term)", "epoch": "\(topology.epoch)",
                "lsn": "\(conclusion.position.lsn)", "kept": "\(conclusion.keptVersion.hexDigits)",
                "before": "\(previous.leader)",
            ])
        return FailoverReport(
            shard: name, epoch: topology.epoch, term: term, leader: node.address, previousLeader: previous.leader,
            previousTerm: previous.term, lsn: conclusion.position.lsn, version: conclusion.keptVersion.hexDigits,
            isComplete: conclusion.isComplete, leaderLastSeen: conclusion.leaderLastSeen,
            unreachable: conclusion.unreachable, writesHeldMilliseconds: nil)
    }
}
