import Core
import DistribKVClient
import Glibc
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// `kv failover` where the leader is gone.
    @Suite struct Failovers {
        /// The leader dies with everything on the followers: it comes back as one of them.
        @Test(.timeLimit(.minutes(5)))
        func aLeaderThatHadNothingMore() async throws {
            let seed = testSeed("aLeaderThatHadNothingMore")
            try await TestCluster.running(.ring(shards: 2, nodes: 3, replicas: 3)) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "gone", acks: [nil, .all, .quorum, .leader])
                for round in 0..<testSetting("DISTRIBKV_TEST_ROUNDS", default: 1) {
                    try await load.writeMore(150, writers: 4, seed: seed &+ UInt64(round))
                    try await cluster.waitForConvergence()
                    let before = try #require(cluster.topology.shard(named: "shard-0"))
                    let victim = try cluster.index(of: before.leader)
                    try await cluster.node(victim).killHard()
                    let report = try await cluster.failover("shard-0", ledger)
                    #expect(!report.isComplete && report.previousLeader == before.leader && report.unreachable.isEmpty)
                    #expect(report.term > before.term)
                    // Nothing was under way, and the followers knew that.
                    #expect(report.leaderLastSeen.map { $0.lsn <= report.lsn } ?? true, "\(report)")
                    // Acks are of all replicas that the topology names: of this shard two answer.
                    var more = Load(cluster: cluster, ledger: ledger, name: "\(round)-after", acks: [nil, .quorum])
                    more.routes = [.redirected, .proxied]
                    try await more.writeMore(100, writers: 4, seed: seed &+ 50)
                    // By the file that it had first, which is older by now.
                    try await cluster.startNode(victim)
                    try await cluster.waitUntilReady(cluster.listens[victim], cluster.node(victim))
                    try await cluster.waitForOneTopology()
                    #expect(try await cluster.status(of: "shard-0", at: victim)?.role == .follower)
                    try await load.writeMore(100, writers: 4, seed: seed &+ 99 &+ UInt64(round))
                    try await cluster.expectEqualReplicas(ledger, "round \(round) of seed \(seed)")
                }
                #expect(ledger.coveredByLosses(in: cluster.topology) == 0)
            }
        }
    }
}
