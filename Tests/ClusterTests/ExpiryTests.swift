import Core
import DistribKVClient
import NIOHTTP1
import Sharding
import Testing
import Wire

extension ClusterTests {
    /// Values that expire, on real processes.
    @Suite struct Expiries {
        private func get(_ key: String, _ cluster: TestCluster, _ node: Int) async throws -> NodeResponse {
            try await HTTP.get(APIPath.key(key.utf8), from: cluster.listens[node])
        }

        private func left(_ response: NodeResponse) -> UInt64? {
            response.headers.first(name: KVHeader.expiresIn).flatMap { DurationText.milliseconds($0) }
        }

        /// Followers let go of a value by themselves, and the end outlives the leader that fixed it.
        @Test(.timeLimit(.minutes(3)))
        func anEndIsReplicatedAndKeptByAFailover() async throws {
            try await TestCluster.running(.ring(shards: 1, nodes: 3, replicas: 3)) { cluster in
                let ledger = Ledger()
                for (key, query) in [("long", "ttl=1h"), ("soon", "ttl=2s"), ("plain", "")] {
                    let put = try await cluster.put(
                        key, [1], "?ack=all&timeout=60s&" + query, to: cluster.router, ledger)
                    #expect(put.status == 204, "\(put.text)")
                }
                for node in cluster.nodes.indices {
                    let long = try await get("long", cluster, node)
                    #expect(long.status == 200)
                    #expect(try (1...3_600_000).contains(#require(left(long))))
                    try await eventually("the value to be gone from node \(node)") {
                        try await get("soon", cluster, node).status == 404
                    }
                    #expect(left(try await get("plain", cluster, node)) == nil)
                }
                let verify = try await cluster.kv(["verify", "shard-0"])
                #expect(verify.status == .exited(0), "\(verify)")

                let victim = try cluster.index(of: cluster.topology.shards[0].leader)
                try await cluster.node(victim).killHard()
                try await cluster.failover("shard-0", ledger)
                let leader = try cluster.index(of: cluster.topology.shards[0].leader)
                let before = try #require(left(try await get("long", cluster, leader)))
                #expect((1...3_600_000).contains(before))
                #expect(try await get("soon", cluster, leader).status == 404)
                for (key, status) in [("long", 412), ("plain", 412), ("soon", 204)] {
                    let put = try await HTTP.send(
                        .PUT, APIPath.key(key.utf8), to: cluster.listens[leader], body: [2],
                        headers: [(name: "if-none-match", value: "*")])
                    #expect(put.status == status, "\(key): \(put.text)")
                }
                // Nobody lives longer for having a new leader.
                #expect(try #require(left(try await get("long", cluster, leader))) <= before)

                try await cluster.startNode(victim)
                try await cluster.waitUntilReady(cluster.listens[victim], cluster.node(victim))
                try await cluster.waitForConvergence()
                let compact = try await cluster.kv(["compact", "shard-0"])
                #expect(compact.status == .exited(0), "\(compact)")
                for node in cluster.nodes { #expect(compact.output.contains("\(node)")) }
            }
        }
    }
}
