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
        let change = LeaderChange(
            shard: shard, target: to, force: force, timeout: cluster.requestTimeout(default: 10))
        let report = try await cluster.withClient { try await change.run($0) }
        try await output.write(
            json: report, table: FailoverText.render(report),
            raw: TextTable.raw([
                [
                    report.shard, report.leader.description, String(report.term), String(report.epoch), report.version,
                    report.isComplete ? "complete" : "incomplete",
                ]
            ]))
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
