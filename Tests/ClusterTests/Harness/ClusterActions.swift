import Core
import DistribKVClient
import Sharding
import Testing
import Wire

extension TestCluster {
    /// Starts a node that no sharding.toml names; it becomes a replica of `shard`.
    func join(_ node: Int, shard: String, through address: NodeAddress? = nil) async throws {
        try await launch(
            TestCluster.nodeName(node), .storageNode,
            listenArguments(node) + ["--join", "http://\(address ?? router)", "--shard", shard])
    }

    /// Starts a node with its directory alone.
    func startWithoutFile(_ node: Int) async throws {
        let process = try await launch(TestCluster.nodeName(node), .storageNode, listenArguments(node))
        try await waitUntilReady(listens[node], process)
    }

    /// `kv failover SHARD`, which has to succeed; the newest topology is taken over.
    @discardableResult
    func failover(
        _ shard: String, to node: Int? = nil, force: Bool = false, at address: NodeAddress? = nil,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> Finished {
        let target = node.map { ["--to", "\(nodes[$0])"] } ?? []
        let run = try await kv(["failover", shard] + target + (force ? ["--force"] : []), at: address)
        #expect(run.status == .exited(0), "\(run)", sourceLocation: sourceLocation)
        try await eventually("the new topology") {
            let before = topology.epoch
            return try await refreshTopology().epoch > before || node.map { leads($0, shard) } ?? true
        }
        return run
    }

    func leads(_ node: Int, _ shard: String) -> Bool { topology.shard(named: shard)?.leader == nodes[node] }

    /// Waits until replicas are equal, then has `kv verify` say so of every shard and compares them with the ledger.
    func expectEqualReplicas(
        _ ledger: Ledger, _ comment: String, audit: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        try await waitForConvergence(sourceLocation: sourceLocation)
        try await expectContent(ledger, comment, sourceLocation: sourceLocation)
        for shard in topology.shards {
            let verify = try await kv(["verify", shard.name], at: direct(shard.leader))
            #expect(verify.status == .exited(0), "\(comment): \(verify)", sourceLocation: sourceLocation)
            guard audit else { continue }
            let audit = try await LogAudit(of: shard.name, at: direct(shard.leader))
            audit.expectFits(ledger, self, shard: shard.name, sourceLocation: sourceLocation)
        }
    }

    /// What the node at `node` says of its replica of `shard`.
    func status(of shard: String, at node: Int) async throws -> StorageNodeStatus.Shard? {
        try await HTTP.document(StorageNodeStatus.self, APIPath.status, from: listens[node])
            .shards.first { $0.name == shard }
    }

    /// A tag that leads keys to `shard`.
    func tag(for shard: String) throws -> String {
        try #require((0..<10_000).lazy.map { "{\($0)}" }.first { self.topology.shard(of: $0).name == shard })
    }
}
