import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import ImportPipeline
import NIOCore
import NIOHTTP1
import Sharding
import Wire

struct CompactCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compact",
        abstract: "Frees the space of what was overwritten, removed or has expired.",
        discussion: """
            One replica of the shard after the other, the leader last, rewrites all its tables, while it goes on serving. \
            Storage nodes do that by themselves, little by little; this is for space that is wanted now. Each needs as much \
            free space meanwhile as its tables take. A value that has expired goes a minute later.

            What is interrupted here goes on at the node that has begun.
            """)

    /// From one look at a compaction to the next.
    private static let interval = Duration.milliseconds(200)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The shard's name.")
    var shard: String
    @Option(
        help: ArgumentHelp("The replica on this node alone.", valueName: "host:port"), transform: FlagText.address)
    var node: NodeAddress?

    func run() async throws {
        let reports = try await cluster.withClient { client in
            let shard = try await client.refreshTopology().shardForCommand(shard)
            if let node, !shard.replicas.contains(node) {
                throw CommandFailure(status: .usage, message: "\(node) holds no replica of \(shard.name)")
            }
            var reports: [CompactionReport] = []
            for address in node.map({ [$0] }) ?? shard.followers + [shard.leader] {
                let document = try await compact(shard.name, on: address, client)
                reports.append(CompactionReport(node: address.description, compaction: document))
            }
            return reports
        }
        try await output.write(
            json: reports,
            table: TextTable.render(
                [["NODE", "BEFORE", "AFTER", "TIME"]] + reports.map { $0.row(CompactionReport.size) }),
            raw: TextTable.raw(reports.map { $0.row { String($0) } }))
    }

    /// Begins a compaction, or finds one that runs, and waits for its end.
    private func compact(
        _ shard: String, on address: NodeAddress, _ client: KVClient
    ) async throws -> CompactionDocument {
        let timeout = cluster.requestTimeout(default: 10)
        let path = APIPath.compaction(shard: shard)
        var document = try await client.ask(
            address, NodeRequest(method: .POST, target: path), for: CompactionDocument.self, timeout: timeout)
        let number = document.number
        while document.isRunning {
            try await Task.sleep(for: Self.interval)
            document = try await client.ask(
                address, NodeRequest(method: .GET, target: path), for: CompactionDocument.self, timeout: timeout)
            guard document.number == number else {
                throw KVError(.unavailable, "\(address) was restarted meanwhile: compact \(shard) there again")
            }
        }
        if let failure = document.failure { throw KVError(.storageFailed, "\(address): \(failure)") }
        return document
    }
}

/// What became of one replica.
struct CompactionReport: Encodable {
    var node: String
    var compaction: CompactionDocument

    func row(_ size: (UInt64) -> String) -> [String] {
        [
            node, compaction.tableBytesBefore.map(size) ?? "-", compaction.tableBytesAfter.map(size) ?? "-",
            "\(compaction.milliseconds)ms",
        ]
    }

    static func size(_ bytes: UInt64) -> String { Format.bytes(bytes) }
}
