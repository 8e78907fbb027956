import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import NIOCore
import Sharding

struct TopologyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "topology",
        abstract: "Prints the topology document: which node serves which slots.")

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions

    func run() async throws {
        let topology = try await cluster.withClient { try await $0.topology() }
        let json = ByteBuffer(bytes: try topology.json() + [UInt8(ascii: "\n")])
        switch output.format(default: .json) {
        case .json, .raw: try await Console.write(json)
        case .table: try await Console.write(ByteBuffer(string: Self.table(topology)))
        }
    }

    static func table(_ topology: Topology) -> String {
        var rows = [["SHARD", "TERM", "SLOTS", "LEADER", "FOLLOWERS"]]
        for shard in topology.shards {
            let slots = shard.slots.reduce(0) { $0 + Int($1.last.rawValue - $1.first.rawValue) + 1 }
            rows.append([
                shard.name, String(shard.term), String(slots), shard.leader.description,
                shard.followers.map(\.description).joined(separator: ", "),
            ])
        }
        return "cluster \(topology.cluster), epoch \(topology.epoch)\n\n"
            + TextTable.render(rows, rightAligned: [1, 2])
    }
}
