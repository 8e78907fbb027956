import ArgumentParser
import Core
import ImportPipeline
import NIOCore
import Wire

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Shows every shard's replicas: positions, lag, sizes, and which nodes are down.",
        discussion: """
            LSN counts the write batches of a shard; LAG is how many of them a follower has not applied.
            KEYS≈ is an estimate. Exits with 3 where any replica is not ok.
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
        var rows = [["SHARD", "TERM", "ROLE", "NODE", "LSN", "LAG", "KEYS≈", "SIZE", "STATE"]]
        for shard in status.shards {
            for (index, replica) in shard.replicas.enumerated() {
                rows.append([
                    index == 0 ? shard.name : "", index == 0 ? String(shard.term) : "", replica.role.rawValue,
                    replica.address.description, number(replica.lsn),
                    replica.role == .leader ? "" : number(replica.lagBatches), number(replica.keysEstimate),
                    replica.bytes.map(Format.bytes) ?? "-", replica.state,
                ])
            }
        }
        text += render(rows, rightAligned: [1, 4, 5, 6, 7])
        return text
    }

    private static func number(_ number: UInt64?) -> String { number.map(Format.count) ?? "-" }

    private static func render(_ rows: [[String]], rightAligned: Set<Int>) -> String {
        let widths = rows.first.map { $0.indices.map { column in rows.map { $0[column].count }.max() ?? 0 } } ?? []
        var text = ""
        for row in rows {
            var line = ""
            for (column, cell) in row.enumerated() {
                let padding = String(repeating: " ", count: widths[column] - cell.count)
                line += rightAligned.contains(column) ? padding + cell : cell + padding
                line += "  "
            }
            while line.last == " " { line.removeLast() }
            text += line + "\n"
        }
        return text
    }
}
