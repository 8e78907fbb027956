import ArgumentParser
import Core
import ImportPipeline
import NIOCore
import Wire

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Shows every shard's replicas: what they do, positions, lag, sizes; which nodes are down.",
        discussion: """
            LSN counts the write batches of a shard; LAG is how many of them a follower has not applied, and by how many
            milliseconds it may be behind. KEYS≈ is an estimate. Below the table stands what wants attention.

            Exits with 3 where any replica does not lead or follow as it should.
            """)

    @OptionGroup var cluster: ClusterOptions
    @Flag(help: "Prints JSON.")
    var json = false

    func run() async throws {
        let timeout = min(cluster.requestTimeout(default: 2), .seconds(2))
        let status = try await cluster.withClient { try await ClusterStatus.ask($0, timeout: timeout) }
        if json {
            try await Console.write(ByteBuffer(bytes: try DocumentCoding.encode(status) + [UInt8(ascii: "\n")]))
        } else {
            try await Console.write(ByteBuffer(string: StatusTable.render(status)))
        }
        if !status.isHealthy { throw CommandFailure(status: CommandFailure.unavailable, message: nil) }
    }
}

/// `kv status` for people.
enum StatusTable {
    static func render(_ status: ClusterStatus) -> String {
        let up = status.nodes.filter { $0.error == nil }.count
        var text = "cluster \(status.cluster), epoch \(status.epoch), \(up) of \(status.nodes.count) nodes up\n\n"
        var rows = [["SHARD", "TERM", "ROLE", "NODE", "LSN", "LAG", "LAG MS", "KEYS≈", "SIZE", "STATE"]]
        for shard in status.shards {
            for (index, replica) in shard.replicas.enumerated() {
                rows.append([
                    index == 0 ? shard.name : "", index == 0 ? String(shard.term) : "", replica.role.rawValue,
                    replica.address.description, number(replica.lsn),
                    replica.role == .leader ? "" : number(replica.lagBatches),
                    replica.role == .leader ? "" : number(replica.lagMilliseconds), number(replica.keysEstimate),
                    replica.bytes.map(Format.bytes) ?? "-", replica.state,
                ])
            }
        }
        text += TextTable.render(rows, rightAligned: [1, 4, 5, 6, 7, 8])
        let notes = notes(status)
        if !notes.isEmpty { text += "\n" + notes.map { $0 + "\n" }.joined() }
        return text
    }

    private static func notes(_ status: ClusterStatus) -> [String] {
        var notes: [String] = []
        for node in status.nodes {
            guard let epoch = node.epoch, epoch < status.epoch else { continue }
            notes.append(
                "\(node.address) is at epoch \(epoch), the newest is \(status.epoch): it learns it from another node "
                    + "within seconds, unless it cannot reach one")
        }
        for shard in status.shards {
            for replica in shard.replicas {
                notes += replica.diverged.map { note($0, of: shard.name, at: replica.address) }
            }
        }
        return notes
    }

    private static func note(_ saved: DivergedWrites, of shard: String, at node: NodeAddress) -> String {
        let count = Format.count(UInt64(max(0, saved.writes)))
        let what = saved.writes == 1 ? "1 write" : "\(count) writes"
        let rest = saved.isComplete ? "" : " (the newest of each key: its log no longer held all)"
        return
            "\(shard) at \(node) saved \(what) that the shard's history does not have\(rest): \(saved.file); look at "
            + "them and import what is wanted with kv import \(saved.file)"
    }

    private static func number(_ number: UInt64?) -> String { number.map(Format.count) ?? "-" }
}
