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
                    // The replicator turns to the new leader although the old one tells it nothing.
                    let key = try cluster.tag(for: "shard-0")
                    let quorum = try await cluster.put(
                        "\(key)\(round)", [1], "?ack=quorum&timeout=60s", to: report.leader, ledger)
                    #expect(quorum.status == 204, "\(quorum.text)")
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

        /// SIGKILL of the leader under load, again and again: it comes back with writes that nobody else has, takes no
        /// more, saves them, and ends as the others.
        @Test(.timeLimit(.minutes(8)))
        func aLeaderThatHadMore() async throws {
            let seed = testSeed("aLeaderThatHadMore")
            try await TestCluster.running(.ring(shards: 1, nodes: 3, replicas: 3)) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "more", acks: [nil, .all, .quorum, .leader])
                for round in 0..<testSetting("DISTRIBKV_TEST_ROUNDS", default: 2) {
                    let victim = try cluster.index(of: cluster.topology.shards[0].leader)
                    try await load.running(writers: 4, seed: seed &+ UInt64(round)) {
                        try await load.waitForMore(80)
                        try await Self.killWithSurplus(victim, cluster, ledger, seed &+ UInt64(100 + round))
                        let report = try await cluster.failover("shard-0", ledger)
                        #expect(!report.isComplete && report.unreachable.isEmpty, "\(report)")
                        try await load.waitForMore(80)
                        try await Self.returnFenced(victim, cluster, load, term: report.term)
                    }
                    try await cluster.expectEqualReplicas(ledger, "round \(round) of seed \(seed)", audit: true)
                }
                #expect(ledger.coveredByLosses(in: cluster.topology) >= 40)
                let saved = try await DivergedAudit(of: "shard-0", in: cluster)
                #expect(saved.files.count >= 2 || testSetting("DISTRIBKV_TEST_ROUNDS", default: 2) < 2)
                try await saved.expectFits(ledger, cluster, shard: "shard-0")
                try await Self.expectReported(saved, cluster)
                try await Self.importBack(saved, cluster, ledger)
                try await cluster.expectEqualReplicas(ledger, "imported, seed \(seed)", audit: true)
            }
        }

        /// Followers get nothing for a while, so that the leader dies with at least 40 acknowledged writes of its own.
        private static func killWithSurplus(
            _ victim: Int, _ cluster: TestCluster, _ ledger: Ledger, _ seed: UInt64
        ) async throws {
            let replicator = try #require(cluster.process("replicator"))
            try await replicator.freeze()
            let own = Load(cluster: cluster, ledger: ledger, name: "own-\(seed)", routes: [.direct])
            try await own.writeMore(40, writers: 4, seed: seed)
            try await cluster.node(victim).killHard()
            replicator.thaw()
        }

        /// From its first answer on it takes no write.
        private static func returnFenced(
            _ victim: Int, _ cluster: TestCluster, _ load: Load, term: UInt64
        ) async throws {
            var pinned = Load(cluster: cluster, ledger: Ledger(), name: "fenced")
            pinned.pinned = cluster.listens[victim]
            try await pinned.running(writers: 2, seed: term) {
                try await cluster.startNode(victim)
                try await cluster.waitUntilReady(cluster.listens[victim], cluster.node(victim))
                try await load.waitForMore(30)
            }
            #expect(pinned.tally.count(204) == 0, "\(pinned.tally.statuses)")
            // While a snapshot is being put in place it says nothing of terms.
            try await eventually("the old leader to know the new term") {
                let status = try #require(try await cluster.status(of: "shard-0", at: victim))
                return status.role == .follower && status.newestTerm ?? 0 >= term
            }
        }

        /// The log and `kv status` name the files.
        private static func expectReported(_ saved: DivergedAudit, _ cluster: TestCluster) async throws {
            let status = try await cluster.kv(["status"])
            #expect(status.status == .exited(0), "\(status)")
            let logs = cluster.nodes.indices.map { text(ofFile: "\(cluster.directory)/node-\($0).log") }.joined()
            for file in saved.files {
                #expect(status.output.contains("kv import \(file.file)"), "\(status.output)")
                #expect(logs.contains(file.file) && logs.contains("kv import puts them back"))
            }
        }

        /// The newest of what was lost is there again, wherever else it was written since.
        private static func importBack(_ saved: DivergedAudit, _ cluster: TestCluster, _ ledger: Ledger) async throws {
            for line in saved.lines { ledger.attempt(line.key, line.value) }
            for file in saved.files {
                let run = try await cluster.kv(["import", file.file])
                #expect(run.status == .exited(0), "\(run)")
                #expect(run.output.contains("read \(file.writes), written"), "\(run.output)")
            }
            for line in saved.lines { ledger.acknowledge(line.key, Ledger.Write(value: line.value)) }
        }

        /// Where a follower that may have more does not answer, only `--force` takes the leadership over.
        @Test(.timeLimit(.minutes(5)))
        func force() async throws {
            let seed = testSeed("force")
            try await TestCluster.running(.ring(shards: 1, nodes: 3, replicas: 3)) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "force", acks: [nil, .all, .quorum, .leader])
                try await load.writeMore(80, writers: 4, seed: seed)
                // Acknowledged by a quorum that will not answer: nothing tells them apart from others at the report.
                try await cluster.node(1).freeze()
                let quorum = Load(cluster: cluster, ledger: ledger, name: "q", acks: [.leader, nil])
                try await quorum.writeMore(20, writers: 4, seed: seed &+ 20)
                try await cluster.node(0).killHard()
                try await cluster.node(2).freeze()
                cluster.process(TestCluster.nodeName(1))?.thaw()
                let refused = try await cluster.kv(["failover", "shard-0"], at: cluster.nodes[1])
                #expect(refused.status == .exited(3) && refused.log.contains("--force"), "\(refused)")
                #expect(refused.log.contains("\(cluster.nodes[2])"), "\(refused)")
                #expect(try await cluster.status(of: "shard-0", at: 1)?.role == .follower)

                let run = try await cluster.kv(["failover", "shard-0", "--force", "--json"], at: cluster.nodes[1])
                try #require(run.status == .exited(0), "\(run)")
                let report = try DocumentCoding.decode(FailoverReport.self, from: run.output.utf8)
                #expect(!report.isComplete && report.unreachable == [cluster.nodes[2]], "\(report)")
                #expect(report.leader == cluster.nodes[1], "\(report)")
                try ledger.allow(report)
                cluster.process(TestCluster.nodeName(2))?.thaw()
                try await cluster.waitForEpoch(report.epoch)
                let after = Load(cluster: cluster, ledger: ledger, name: "after", acks: [nil, .quorum])
                try await after.running(writers: 4, seed: seed &+ 40) {
                    try await after.waitForMore(50)
                    try await Self.returnFenced(0, cluster, after, term: report.term)
                }
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)")
            }
        }
    }
}
