import Core
import DistribKVClient
import Glibc
import NIOHTTP1
import Sharding
import Testing
import Wire

extension ClusterTests {
    @Suite struct Replication {
        @Test(.timeLimit(.minutes(5)))
        func followersConverge() async throws {
            let seed = testSeed("followersConverge")
            try await TestCluster.running(.ring(shards: 2, nodes: 3, replicas: 3)) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "converge")
                try await load.writeMore(testSetting("DISTRIBKV_TEST_WRITES", default: 3_000), writers: 12, seed: seed)
                try await cluster.waitForConvergence()
                try await cluster.expectContent(ledger, "seed \(seed)")
                try await eventually("a replicator status without lag") {
                    let status = try await HTTP.document(
                        ReplicatorStatus.self, APIPath.status, from: cluster.replicator)
                    return status.shards.count == 2
                        && status.shards.allSatisfy { shard in
                            shard.leaderError == nil && shard.followers.count == 2
                                && shard.followers.allSatisfy { $0.state == .replicate && $0.lagBatches == 0 }
                        }
                }
            }
        }

        /// Followers that were not there, a replicator that comes late and goes in the middle, and two at once.
        @Test(.timeLimit(.minutes(5)))
        func replicatorsComeAndGo() async throws {
            let seed = testSeed("replicatorsComeAndGo")
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2), replicator: false) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "late")
                try await load.writeMore(1_000, seed: seed)
                try await cluster.startReplicator()
                for round in 0..<4 {
                    try await load.running(writers: 6, seed: seed &+ UInt64(1_000 * (round + 1))) {
                        try await load.waitForMore(150)
                        try await cluster.process("replicator")?.killHard()
                        try await load.waitForMore(150)
                        try await cluster.startReplicator()
                        try await load.waitForMore(50)
                    }
                }
                let second = try #require(Loopback.freeAddresses(1).first)
                try await cluster.startReplicator("second", at: second)
                try await load.writeMore(1_000, seed: seed &+ 99)
                try await cluster.waitForConvergence()
                try await cluster.expectContent(ledger, "seed \(seed)")
                try await cluster.process("second")?.killHard()
                try await load.writeMore(200, seed: seed &+ 999)
                try await cluster.waitForConvergence()
                try await cluster.expectContent(ledger, "seed \(seed), after the second was killed")
            }
        }

        /// A stopped follower, whose connections stay open, holds nobody up.
        @Test(.timeLimit(.minutes(5)))
        func aFrozenFollowerHoldsNobodyUp() async throws {
            let seed = testSeed("aFrozenFollowerHoldsNobodyUp")
            try await TestCluster.running(.ring(shards: 1, nodes: 3, replicas: 3)) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "frozen", routes: [.direct])
                try await load.writeMore(200, seed: seed)
                try await cluster.waitForConvergence()
                try cluster.node(2).signal(SIGSTOP)
                try await load.writeMore(400, seed: seed &+ 10)
                let leader = try await HTTP.position(of: "shard-0", at: cluster.nodes[0])
                try await eventually("the other follower to catch up") {
                    try await HTTP.position(of: "shard-0", at: cluster.nodes[1]) == leader
                }
                try cluster.node(2).signal(SIGCONT)
                try await cluster.waitForConvergence()
                try await cluster.expectContent(ledger, "seed \(seed)")
            }
        }

        /// What a follower missed is no longer in the log: it is rebuilt from a snapshot, and the others go on.
        @Test(.timeLimit(.minutes(5)))
        func aFollowerBehindTheLog() async throws {
            let seed = testSeed("aFollowerBehindTheLog")
            var layout = Layout.ring(shards: 2, nodes: 3, replicas: 3)
            layout.storage = ["write_buffer_bytes = \"1MiB\"", "block_cache_bytes = \"4MiB\""]
            layout.replication = ["log_retention_bytes = \"1MiB\""]
            try await TestCluster.running(layout) { cluster in
                let ledger = Ledger()
                let tag = try #require(
                    (0..<1_000).lazy.map { "{\($0)}" }.first {
                        cluster.shard(of: Array($0.utf8)).name == "shard-0"
                    })
                try await cluster.waitForConvergence()
                try await cluster.node(2).killHard()
                // Above the ring in memory (16 MiB) and the retained log together.
                let load = Load(
                    cluster: cluster, ledger: ledger, name: tag, routes: [.direct], valueBytesMax: 200_000)
                try await load.running(writers: 6, seed: seed) {
                    try await eventually("the log to forget its start") {
                        let status = try await HTTP.document(
                            StorageNodeStatus.self, APIPath.status, from: cluster.nodes[0])
                        let shard = try #require(status.shards.first { $0.name == "shard-0" })
                        return (shard.logFirstLsn ?? 0) > 3
                    }
                }
                try await cluster.startNode(2)
                try await cluster.waitForConvergence()
                let log = try #require(cluster.process("replicator")).log
                #expect(log.contains("put the snapshot in place"), "the log could feed it after all")
                let status = try await HTTP.document(StorageNodeStatus.self, APIPath.status, from: cluster.nodes[2])
                #expect(status.shards.allSatisfy { $0.diverged == nil }, "it had nothing of its own to save")

                let other = Load(cluster: cluster, ledger: ledger, name: "others", routes: [.direct])
                try await other.writeMore(100, seed: seed &+ 1)
                try await cluster.waitForConvergence()
                try await cluster.expectContent(ledger, "seed \(seed)")
            }
        }
    }
}
