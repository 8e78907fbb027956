import Core
import DistribKVClient
import FoundationEssentials
import Glibc
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Nodes that come and go while the cluster takes writes.
    @Suite struct Joining {
        private static let newcomer = 2

        /// A node that no file names joins, is seen everywhere, restarts by its directory alone, and is sent away.
        @Test(.timeLimit(.minutes(5)))
        func throughTheLog() async throws {
            let seed = testSeed("throughTheLog")
            var layout = Layout.ring(shards: 2, nodes: 2, replicas: 2)
            layout.spareNodes = 1
            try await TestCluster.running(layout) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "join", acks: [nil, .quorum, .all, nil])
                try await load.running(writers: 4, seed: seed) {
                    try await load.waitForMore(200)
                    // The router knows who leads; the node needs one address.
                    try await cluster.join(Self.newcomer, shard: "shard-0")
                    try await cluster.waitUntilReady(
                        cluster.listens[Self.newcomer], cluster.node(Self.newcomer))
                    try await cluster.waitForOneTopology()
                    try await load.waitForMore(50)
                    try await Self.expectMember(cluster)

                    #expect(try await cluster.node(Self.newcomer).terminate() == .exited(0))
                    try await load.waitForMore(50)
                    try await cluster.startWithoutFile(Self.newcomer)
                    // Joining once more is as good.
                    try await cluster.node(Self.newcomer).killHard()
                    try await cluster.join(Self.newcomer, shard: "shard-0", through: cluster.nodes[1])
                    try await cluster.waitUntilReady(
                        cluster.listens[Self.newcomer], cluster.node(Self.newcomer))
                }
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)", audit: true)

                // The leader of a shard is not sent away, a follower is.
                let refused = try await cluster.kv(["replica", "remove", "shard-0", "\(cluster.nodes[0])"])
                #expect(refused.status == .exited(3) && refused.log.contains("leads shard-0"), "\(refused)")
                try await load.running(writers: 4, seed: seed &+ 77) {
                    try await load.waitForMore(20)
                    let run = try await cluster.kv(["replica", "remove", "shard-0", "\(cluster.nodes[Self.newcomer])"])
                    #expect(run.status == .exited(0), "\(run)")
                    try await load.waitForMore(50)
                }
                try await Self.expectStranger(cluster)
                // Every replica that there is has it, so `ack=all` does not wait for the one that is gone.
                let key = try cluster.tag(for: "shard-0")
                let put = try await cluster.put(key, [1], "?ack=all&timeout=60s", to: cluster.router, ledger)
                #expect(put.status == 204, "\(put.text)")
                try await cluster.expectEqualReplicas(ledger, "removed, seed \(seed)")
                // What it had stays on its disk.
                let kept = "\(cluster.dataDirectory(Self.newcomer))/shards/shard-0/db/CURRENT"
                #expect(FileManager.default.fileExists(atPath: kept))
            }
        }

        private static func expectMember(_ cluster: TestCluster) async throws {
            let node = cluster.nodes[newcomer]
            #expect(cluster.topology.shard(named: "shard-0")?.followers.contains(node) == true)
            #expect(cluster.topology.shard(named: "shard-1")?.replicas.contains(node) == false)
            let status = try await cluster.kv(["status"])
            #expect(status.output.contains("3 of 3 nodes up") && status.output.contains("\(node)"), "\(status)")
            let path = "/kv/\(try cluster.tag(for: "shard-0"))"
            try await eventually("the router to send reads to the new replica") {
                let read = try await HTTP.get(path, from: cluster.router)
                return read.headers.first(name: "location")?.hasPrefix("http://\(node)/") ?? false
            }
            // It answers those itself, and sends writes to the leader.
            let read = try await HTTP.get(path, from: node)
            #expect([200, 404].contains(read.status), "\(read.text)")
            #expect(try await HTTP.send(.PUT, path, to: node, body: [1]).status == 307)
        }

        private static func expectStranger(_ cluster: TestCluster) async throws {
            let node = cluster.nodes[newcomer]
            try await cluster.waitForOneTopology()
            #expect(!cluster.topology.nodes.contains(node))
            #expect(try await HTTP.get(APIPath.readyz, from: node).status == 503)
            let path = "/kv/\(try cluster.tag(for: "shard-0"))"
            for _ in 0..<20 {
                let read = try await HTTP.get(path, from: cluster.router)
                #expect(read.headers.first(name: "location")?.hasPrefix("http://\(node)/") == false)
            }
            let status = try await cluster.kv(["status"])
            #expect(status.status == .exited(0), "\(status)")
            #expect(status.output.contains("2 of 2 nodes up") && !status.output.contains("\(node)"), "\(status)")
        }

        /// A node and a router that start with the first sharding.toml after it has changed go by what is true now, and
        /// say so.
        @Test(.timeLimit(.minutes(3)))
        func anOldFile() async throws {
            let seed = testSeed("anOldFile")
            var layout = Layout.ring(shards: 1, nodes: 3, replicas: 3)
            layout.replication = ["log_retention_bytes = \"1GiB\""]
            try await TestCluster.running(layout) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "old", acks: [nil, .quorum])
                try await load.writeMore(50, writers: 4, seed: seed)
                // It hears of nothing.
                #expect(try await cluster.node(2).terminate() == .exited(0))
                let report = try await cluster.failover("shard-0", to: 1, ledger)
                try await load.writeMore(50, writers: 4, seed: seed &+ 50)
                #expect(try await cluster.node(0).terminate() == .exited(0))

                try await cluster.startNode(0)
                #expect(try cluster.node(0).log.contains("using the saved topology of epoch \(report.epoch)"))
                try await cluster.startNode(2)
                try await cluster.waitForOneTopology()
                let log = try cluster.node(2).log
                #expect(log.contains("adopts a newer topology") && log.contains("epoch=\(report.epoch)"), "\(log)")

                let second = try #require(Loopback.freeAddresses(1).first)
                try await cluster.startRouter("second", at: second)
                try await eventually("the second router to learn the topology") {
                    let response = try await HTTP.get(APIPath.topology, from: second)
                    return try Topology(json: response.bytes).epoch == report.epoch
                }
                let told = try #require(cluster.process("second")).log
                #expect(told.contains("takes a newer topology than that of sharding.toml"), "\(told)")
                let put = try await HTTP.send(.PUT, "/kv/a", to: second, body: [1])
                #expect(put.headers.first(name: "location")?.hasPrefix("http://\(cluster.nodes[1])/") == true)
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)")
            }
        }
    }
}
