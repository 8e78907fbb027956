import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Wire

struct FailoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "failover",
        abstract: "Moves the leadership of a shard to a follower.",
        discussion: """
            While the leader answers it hands over: writes wait for a moment, nothing is lost. Where it is gone the most
            complete follower takes over, and what is said then says which writes may be lost: those that were
            acknowledged by the leader alone. --force is needed where a replica that may have more does not answer,
            where nobody has anything of the term the leader led, and where a leader answers and cannot hand over.

            EXAMPLES
              kv failover shard-0
              kv failover shard-0 --to 127.0.0.1:7002
              kv failover shard-0 --force

            Exits with 3 where nothing was changed because it was refused or nobody answered.
            """)

    /// For a replica to say where it stands.
    private static let historyTimeout = TimeAmount.seconds(2)
    private static let roundsMax = 3

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The shard's name.")
    var shard: String
    @Option(
        help: ArgumentHelp("The follower that is to lead.", valueName: "host:port"), transform: FlagText.address)
    var to: NodeAddress?
    @Flag(help: "Also where acknowledged writes may be lost that a replica which does not answer has.")
    var force = false

    func run() async throws {
        let report = try await cluster.withClient { try await failOver($0) }
        try await output.write(
            json: report, table: FailoverText.render(report),
            raw: TextTable.raw([
                [
                    report.shard, report.leader.description, String(report.term), String(report.epoch), report.version,
                    report.isComplete ? "complete" : "incomplete",
                ]
            ]))
    }

    private func failOver(_ client: KVClient) async throws -> FailoverReport {
        var topology = try await client.refreshTopology()
        for _ in 1...Self.roundsMax {
            let shard = try topology.shardForCommand(shard)
            let plan = FailoverPlan(shard: shard, target: to, force: force)
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

    private var timeout: TimeAmount { cluster.requestTimeout(default: 10) }

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

extension Topology {
    /// The shard that a command line names.
    ///
    /// Throws ``CommandFailure`` that lists what there is.
    func shardForCommand(_ name: String) throws -> ShardTopology {
        guard let shard = shard(named: name) else {
            let known = shards.map(\.name).joined(separator: ", ")
            throw CommandFailure(
                status: .usage, message: "there is no shard \(name): there are \(known)")
        }
        return shard
    }
}
