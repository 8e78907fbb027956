import Core
import DistribKVClient
import NIOCore
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Two leaders, each with clients, because the network is cut between them.
    @Suite struct Partitions {
        private static let trio: Layout = {
            var layout = Layout.ring(shards: 1, nodes: 3, replicas: 3)
            layout.proxied = true
            return layout
        }()

        /// Only clients reach the leader, and another one takes over: for as long as it hears nothing it takes writes
        /// that are lost, as was reported. Then it follows and has them saved.
        @Test(.timeLimit(.minutes(5)))
        func aLeaderThatHearsNothing() async throws {
            let seed = testSeed("aLeaderThatHearsNothing")
            try await TestCluster.running(Self.trio) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "cut", acks: [nil, .all, .quorum, .leader])
                try await load.writeMore(100, writers: 4, seed: seed)
                try await cluster.waitForConvergence()
                var old = Load(cluster: cluster, ledger: ledger, name: "old", acks: [nil, .quorum], ackTimeout: "20ms")
                old.pinned = cluster.listens[0]
                // Not through the router, which may not have heard of the change yet.
                var new = Load(cluster: cluster, ledger: ledger, name: "new", routes: [.direct], acks: [.quorum, nil])
                new.ackTimeout = "60s"
                try await old.running(writers: 2, seed: seed &+ 10) {
                    try await cluster.isolate(0)
                    try await old.waitForMore(20)
                    let report = try await cluster.failover("shard-0", at: cluster.listens[1], ledger)
                    #expect(!report.isComplete && report.previousLeader == cluster.nodes[0], "\(report)")
                    // Also those that want an acknowledgement of the other side's follower.
                    let put = try await cluster.put("q", [1], "?ack=quorum&timeout=60s", to: report.leader, ledger)
                    #expect(put.status == 204, "\(put.text)")
                    try await new.running(writers: 2, seed: seed &+ 20) { try await new.waitForMore(60) }
                    let stale = try await HTTP.position(of: "shard-0", at: cluster.listens[0])
                    #expect(stale.term < report.term)
                    try await cluster.healNetwork()
                    try await eventually("the old leader to hear of the new one") {
                        try await cluster.status(of: "shard-0", at: 0)?.role == .follower
                    }
                }
                #expect(old.tally.count(204) > 0)
                try await Self.expectFenced(cluster, load, seed)
                try await cluster.waitForOneTopology()
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)", audit: true)
                let saved = try await DivergedAudit(of: "shard-0", in: cluster)
                #expect(saved.files.count == 1)
                try await saved.expectFits(ledger, cluster, shard: "shard-0")
            }
        }

        /// `kv` and the router do not reach the leader, the other nodes do: it is not taken over without being forced,
        /// and then it promises and stops before the new one begins.
        @Test(.timeLimit(.minutes(5)))
        func aLeaderThatPromises() async throws {
            let seed = testSeed("aLeaderThatPromises")
            try await TestCluster.running(Self.trio) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "cut", routes: [.direct], acks: [nil, .quorum])
                var old = Load(cluster: cluster, ledger: ledger, name: "old", acks: [nil, .quorum])
                old.pinned = cluster.listens[0]
                try await load.writeMore(60, writers: 4, seed: seed)
                let open = NetworkProxy.Fault.slow(delay: .zero, bytesPerSecond: .max)
                for name in ["node-1", "node-2", "replicator"] { try await cluster.proxy(0).set(open, from: name) }
                try await cluster.proxy(0).set(.drop)
                // One follower is ahead of the other for certain: which one is to lead is not a matter of the moment.
                try await cluster.proxy(2).set(.drop, from: "replicator")
                try await old.running(writers: 2, seed: seed &+ 10) {
                    try await old.waitForMore(20)
                    let refused = try await cluster.kv(["failover", "shard-0"], at: cluster.listens[1])
                    #expect(refused.status == .exited(3) && refused.log.contains("leads shard-0"), "\(refused)")
                    try await old.waitForMore(20)
                    let report = try await cluster.failover("shard-0", force: true, at: cluster.listens[1], ledger)
                    #expect(report.previousLeader == cluster.nodes[0] && report.leader == cluster.nodes[1])
                    // It was asked and is known to have stopped.
                    #expect(report.leaderLastSeen?.millisecondsAgo == 0, "\(report)")
                    #expect(try await cluster.status(of: "shard-0", at: 0)?.role == .follower)
                }
                try await cluster.healNetwork()
                try await Self.expectFenced(cluster, load, seed)
                try await cluster.waitForOneTopology()
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)", audit: true)
            }
        }

        /// Nobody writes through the old leader any more, and others do.
        private static func expectFenced(_ cluster: TestCluster, _ load: Load, _ seed: UInt64) async throws {
            var fenced = Load(cluster: cluster, ledger: Ledger(), name: "fenced")
            fenced.pinned = cluster.listens[0]
            try await fenced.running(writers: 2, seed: seed &+ 30) {
                try await load.writeMore(60, writers: 4, seed: seed &+ 40)
            }
            #expect(fenced.tally.count(204) == 0, "\(fenced.tally.statuses)")
        }
    }
}
