import Core
import DistribKVClient
import FoundationEssentials
import NIOHTTP1
import TestSupport
import Testing
import Wire

/// Two nodes in each ``DamageCase/Situation``, stopped, as often as they are wanted.
final class DamageStage {
    let cluster: TestCluster
    private var contents: [DamageCase.Situation: [String: [UInt8]]] = [:]
    /// Keys that node 1 has not got yet, where a snapshot is to bring them.
    private var behind: [DamageCase.Situation: Set<String>] = [:]

    init(_ cluster: TestCluster) { self.cluster = cluster }

    /// What was acknowledged.
    func content(_ situation: DamageCase.Situation) -> [String: [UInt8]] { contents[situation] ?? [:] }

    /// Keys that `node` may not know although it serves reads: it follows, and has been away.
    func mayLack(_ situation: DamageCase.Situation, _ node: Int) -> Set<String> {
        node == 1 ? behind[situation] ?? [] : []
    }

    private func folder(_ situation: DamageCase.Situation, _ node: Int) -> String {
        "\(cluster.directory)/\(situation)-\(node)"
    }

    /// Puts the two data directories back as they were.
    func restore(_ situation: DamageCase.Situation) throws {
        for node in 0...1 {
            try clear(node)
            try FileManager.default.copyItem(atPath: folder(situation, node), toPath: cluster.dataDirectory(node))
        }
    }

    private func clear(_ node: Int) throws {
        guard FileManager.default.fileExists(atPath: cluster.dataDirectory(node)) else { return }
        try FileManager.default.removeItem(atPath: cluster.dataDirectory(node))
    }

    // MARK: Making them

    func prepare(_ situation: DamageCase.Situation, using random: inout SeededGenerator) async throws {
        for node in 0...1 { try clear(node) }
        let original = cluster.layout
        contents[situation] = [:]
        switch situation {
        case .leader: try await lead(using: &random)
        case .givingSnapshot, .receivingSnapshot: try await sendSnapshot(situation, using: &random)
        case .joining:
            try await cluster.startNodes()
            try await write(20, 1_000, situation, using: &random)
        }
        await cluster.stopAll()
        try cluster.use(original)
        for node in 0...1 {
            try FileManager.default.copyItem(atPath: cluster.dataDirectory(node), toPath: folder(situation, node))
        }
    }

    private func write(
        _ count: Int, _ bytes: Int, _ situation: DamageCase.Situation, using random: inout SeededGenerator
    ) async throws {
        for _ in 0..<count {
            let key = "key-\(contents[situation]?.count ?? 0)"
            let value = random.bytes(bytes)
            let put = try await HTTP.following(.PUT, "/kv/\(key)", to: cluster.nodes[0], body: value).response
            try #require(put.status == 204, "\(put.text)")
            contents[situation]?[key] = value
        }
    }

    /// Node 0 has led, was cut off with writes of its own, and leads again; it has tables, an old log and a live one.
    private func lead(using random: inout SeededGenerator) async throws {
        try await cluster.startNodes()
        try await cluster.startReplicator()
        try await write(10, 1_000, .leader, using: &random)
        try await cluster.waitForConvergence()
        try await cluster.process("replicator")?.killHard()
        for number in 0..<3 {
            let put = try await HTTP.send(.PUT, "/kv/lost-\(number)", to: cluster.nodes[0], body: [1])
            try #require(put.status == 204)
        }
        try await cluster.node(0).killHard()
        try await cluster.failover("shard-0", force: true, at: cluster.nodes[1])
        try await cluster.startNode(0)
        try await cluster.startReplicator()
        try await cluster.waitForConvergence()
        try await cluster.failover("shard-0", to: 0, at: cluster.nodes[1])
        // Each of the two files of log that follow the first has one memtable.
        try await write(45, 60_000, .leader, using: &random)
        try await write(20, 500, .leader, using: &random)
        try await cluster.waitForConvergence()
    }

    /// Stops both while a snapshot goes from node 0 to node 1, which has something already.
    private func sendSnapshot(
        _ situation: DamageCase.Situation, using random: inout SeededGenerator
    ) async throws {
        var layout = cluster.layout
        layout.replication = ["log_retention_bytes = \"1MiB\"", "snapshot_bytes_per_second = \"1MiB\""]
        try cluster.use(layout)
        try await cluster.startNodes()
        try await cluster.startReplicator()
        try await write(10, 1_000, situation, using: &random)
        try await cluster.waitForConvergence()
        let position = try await HTTP.position(of: "shard-0", at: cluster.nodes[1])
        try await cluster.node(1).killHard()
        let before = Set(content(situation).keys)
        try await eventually("the log to forget its start") {
            try await self.write(40, 60_000, situation, using: &random)
            // What it has in memory goes as well.
            try await self.cluster.node(0).killHard()
            try await self.cluster.startNode(0)
            return (try await self.cluster.status(of: "shard-0", at: 0)?.logFirstLsn ?? 0) > position.lsn + 1
        }
        behind[situation] = Set(content(situation).keys).subtracting(before)
        try await cluster.startNode(1)
        try await eventually("a snapshot on its way") {
            try await self.cluster.status(of: "shard-0", at: 1)?.snapshot.map { $0.bytesDone > 0 } ?? false
        }
    }
}
