import TerminalText
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
    @OptionGroup var output: OutputOptions

    func run() async throws {
        let timeout = min(cluster.requestTimeout(default: 2), .seconds(2))
        let status = try await cluster.withClient { try await ClusterStatus.ask($0, timeout: timeout) }
        try await output.write(
            json: status, table: StatusTable.render(status),
            raw: TextTable.raw(StatusTable.rows(status, { String($0) }, bytes: { String($0) }))
        )
        if !status.isHealthy { throw CommandFailure(status: .unavailable, message: nil) }
    }
}

/// `kv status` for people.
enum StatusTable {
    static func render(_ status: ClusterStatus) -> String {
        let up = status.nodes.filter { $0.error == nil }.count
        var text = "cluster \(status.cluster), epoch \(status.epoch), \(up) of \(status.nodes.count) nodes up\n\n"
        var rows = rows(status, Format.count, bytes: Format.bytes)
        // A shard is named at its first replica, its leader; a leader has no lag.
        for index in rows.indices where rows[index][2] == PositionDocument.Role.leader.rawValue {
            rows[index][5] = ""
            rows[index][6] = ""
        }
        for index in rows.indices.dropFirst().reversed() where rows[index][0] == rows[index - 1][0] {
            rows[index][0] = ""
            rows[index][1] = ""
        }
        text += TextTable.render([headings] + rows, rightAligned: [1, 4, 5, 6, 7, 8])
        let notes = notes(status)
        if !notes.isEmpty { text += "\n" + notes.map { $0 + "\n" }.joined() }
        return text
    }

    private static let headings = [
        "SHARD", "TERM", "ROLE", "NODE", "LSN", "LAG", "LAG MS", "KEYS≈", "SIZE", "STATE",
    ]

    /// A row for every replica, a cell for every heading; `-` for what is not known.
    static func rows(
        _ status: ClusterStatus, _ number: (UInt64) -> String, bytes: (UInt64) -> String
    ) -> [[String]] {
        func cell(_ value: UInt64?, _ format: (UInt64) -> String) -> String {
            if let value { format(value) } else { "-" }
        }
        return status.shards.flatMap { shard in
            shard.replicas.map { replica in
                [
                    shard.name, String(shard.term), replica.role.rawValue, replica.address.description,
                    cell(replica.lsn, number), cell(replica.lagBatches, number), cell(replica.lagMilliseconds, number),
                    cell(replica.keysEstimate, number), cell(replica.bytes, bytes), replica.state,
                ]
            }
        }
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
            if let leader = shard.replicas.first, shard.replicas.contains(where: { $0.aheadBatches != nil }) {
                notes.append(
                    "\(shard.name): its leader \(leader.address) has lost the end of its log, which a follower has; what is "
                        + "written now may be lost: stop \(leader.address), run kv failover \(shard.name), then start it"
                )
            }
            for replica in shard.replicas {
                if let folder = replica.setAside {
                    notes.append(
                        "\(shard.name) at \(replica.address) was damaged, and its database is kept as it may hold writes that "
                            + "are nowhere else: look at \(folder) and remove it")
                }
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
}
