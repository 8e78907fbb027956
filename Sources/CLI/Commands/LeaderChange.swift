import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// Moves the leadership of a shard, as ``FailoverPlan`` decides.
struct LeaderChange {
    /// For a replica to say where it stands.
    private static let historyTimeout = TimeAmount.seconds(2)
    private static let roundsMax = 3

    /// The shard's name.
    let shard: String
    /// Who is to lead; nil for the most complete follower.
    let target: NodeAddress?
    let force: Bool
    /// For the change itself.
    let timeout: TimeAmount

    /// Throws `KVError`, or ``CommandFailure`` where it was refused.
    func run(_ client: KVClient) async throws -> FailoverReport {
        var topology = try await client.refreshTopology()
        for _ in 1...Self.roundsMax {
            let shard = try topology.shardForCommand(shard)
            let plan = FailoverPlan(shard: shard, target: target, force: force)
            let answers = await Self.histories(of: shard, client)
            let newest = try await client.topology()
            if newest.epoch == topology.epoch {
                return try await carryOut(plan.decide(answers), plan, answers, topology, client)
            }
            // Whoever told us the topology has not heard of the newest.
            topology = newest
        }
        throw KVError(.conflict, "the topology changes all the time: look at kv status and try again")
    }

    private func carryOut(
        _ decision: FailoverPlan.Decision, _ plan: FailoverPlan, _ answers: [NodeAddress: FailoverPlan.Answer],
        _ topology: Topology, _ client: KVClient
    ) async throws -> FailoverReport {
        switch decision {
        case .refuse(let failure): throw failure
        case .leadsAlready(let leader): return try leadsAlready(leader, plan, answers, topology)
        case .promote(let candidate): return try await promote(candidate, topology, client)
        case .handOver(let target):
            let failure: KVError
            switch await handOver(plan.shard, to: target, client) {
            case .success(let report): return report
            case .failure(let error): failure = error
            }
            guard force else { throw failure }
            Console.error("kv: \(plan.shard.leader) did not hand over: \(failure); taking it over by force")
            return try await promote(target, topology, client)
        }
    }

    private func handOver(
        _ shard: ShardTopology, to target: NodeAddress, _ client: KVClient
    ) async -> Result<FailoverReport, KVError> {
        do throws(KVError) {
            let request = try NodeRequest.post(APIPath.handover(shard: shard.name), HandoverRequest(to: target))
            return .success(
                try await client.ask(shard.leader, request, for: FailoverReport.self, timeout: timeout))
        } catch {
            return .failure(error)
        }
    }

    private func promote(
        _ candidate: NodeAddress, _ topology: Topology, _ client: KVClient
    ) async throws -> FailoverReport {
        let promote = PromoteRequest(epoch: topology.epoch, force: force)
        let request = try NodeRequest.post(APIPath.promote(shard: shard), promote)
        return try await client.ask(candidate, request, for: FailoverReport.self, timeout: timeout)
    }

    private func leadsAlready(
        _ leader: NodeAddress, _ plan: FailoverPlan, _ answers: [NodeAddress: FailoverPlan.Answer],
        _ topology: Topology
    ) throws -> FailoverReport {
        let position = try answers[leader]?.get().position
        return FailoverReport(
            shard: shard, epoch: topology.epoch, term: plan.shard.term, leader: leader, previousLeader: leader,
            lsn: position?.lsn ?? 0, version: position?.version ?? Version.zero.hexDigits, isComplete: true,
            leaderLastSeen: nil, unreachable: [], writesHeldMilliseconds: nil)
    }

    /// Asks every replica at once.
    private static func histories(
        of shard: ShardTopology, _ client: KVClient
    ) async -> [NodeAddress: FailoverPlan.Answer] {
        await withTaskGroup(of: (NodeAddress, FailoverPlan.Answer).self) { group in
            for address in shard.replicas {
                group.addTask {
                    let request = NodeRequest(method: .GET, target: APIPath.history(shard: shard.name))
                    do throws(KVError) {
                        let document = try await client.ask(
                            address, request, for: HistoryDocument.self, timeout: historyTimeout)
                        return (address, .success(document))
                    } catch {
                        return (address, .failure(error))
                    }
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }
}
