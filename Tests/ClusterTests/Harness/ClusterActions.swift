import Core
import DistribKVClient
import NIOHTTP1
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

    /// `kv failover SHARD`, which has to succeed, if need be when the follower has caught up; the newest topology is
    /// taken over, and the ledger is told which writes may be lost.
    @discardableResult
    func failover(
        _ shard: String, to node: Int? = nil, force: Bool = false, at address: NodeAddress? = nil,
        _ ledger: Ledger? = nil, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> FailoverReport {
        let target = node.map { ["--to", "\(nodes[$0])"] } ?? []
        let arguments = ["failover", shard, "--json"] + target + (force ? ["--force"] : [])
        let run = try await eventually("a follower that can take over at once") { () -> Finished? in
            let run = try await kv(arguments, at: address)
            // Between two changes of leader the replicator needs a moment.
            return run.status == .exited(3) && run.log.contains(" behind in ") ? nil : run
        }
        try #require(run.status == .exited(0), "\(run)", sourceLocation: sourceLocation)
        let report = try DocumentCoding.decode(FailoverReport.self, from: run.output.utf8)
        if !report.isComplete { try ledger?.allow(report) }
        try await waitForEpoch(report.epoch)
        return report
    }

    /// Waits until a running node has a topology of at least that epoch, and takes it over.
    func waitForEpoch(_ epoch: UInt64) async throws {
        try await eventually("a topology of epoch \(epoch)") { try await refreshTopology().epoch >= epoch }
    }

    /// Waits until every node that runs, and the router where it runs, has the newest topology that any of them has.
    func waitForOneTopology() async throws {
        try await eventually("all to have one topology") {
            let newest = try await refreshTopology()
            var addresses = listens.enumerated()
                .filter { process(TestCluster.nodeName($0.offset))?.isRunning == true }.map(\.element)
            if process("router")?.isRunning == true { addresses.append(router) }
            for address in addresses {
                let response = try await HTTP.get(APIPath.topology, from: address)
                guard try Topology(json: response.bytes) == newest else { return false }
            }
            return true
        }
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
            do {
                let audit = try await LogAudit(of: shard.name, at: direct(shard.leader))
                audit.expectFits(ledger, self, shard: shard.name, sourceLocation: sourceLocation)
            } catch is LogAudit.NotWhole {
                // What it holds was compared above; where it was once the follower's, the follower was audited.
                continue
            }
        }
    }

    /// What the node at `node` says of its replica of `shard`.
    func status(of shard: String, at node: Int) async throws -> StorageNodeStatus.Shard? {
        try await HTTP.document(StorageNodeStatus.self, APIPath.status, from: listens[node])
            .shards.first { $0.name == shard }
    }

    /// One write, following redirects, that the ledger hears of.
    @discardableResult
    func put(
        _ key: String, _ value: [UInt8], _ query: String = "", to address: NodeAddress, _ ledger: Ledger
    ) async throws -> NodeResponse {
        ledger.attempt(key, value)
        let response = try await HTTP.following(.PUT, APIPath.key(key.utf8) + query, to: address, body: value).response
        if response.status == 204 || response.isAckTimeout {
            let isOnAll = response.status == 204 && query.contains("ack=all")
            let write = Ledger.Write(
                value: value, version: response.version, ack: isOnAll ? .all : .leader, epoch: response.epoch)
            ledger.acknowledge(key, write)
        } else {
            ledger.doubt(key, Ledger.Write(value: value))
        }
        return response
    }

    /// A tag that leads keys to `shard`.
    func tag(for shard: String) throws -> String {
        try #require((0..<10_000).lazy.map { "{\($0)}" }.first { self.topology.shard(of: $0).name == shard })
    }
}
