import Core
import Glibc
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// SIGKILL and SIGSTOP of every role under load: what was acknowledged is there afterwards, everywhere.
    @Suite struct Kills {
        private enum Victim: CaseIterable {
            case node, frozenNode, replicator, router
            /// Stand still for a while and go on.
            case pausedNode, pausedReplicator, pausedRouter
        }

        @Test(.timeLimit(.minutes(8)), arguments: ["always", "os"])
        func everyRole(durability: String) async throws {
            let seed = testSeed("everyRole(\(durability))")
            var random = SeededGenerator(seed: seed)
            // Each node leads one shard and follows another, so its death is a leader's and a follower's.
            try await TestCluster.running(.ring(shards: 3, nodes: 3, replicas: 2, durability: durability)) { cluster in
                let ledger = Ledger()
                let rounds = testSetting("DISTRIBKV_TEST_ROUNDS", default: 2)
                for round in 0..<rounds {
                    let load = Load(cluster: cluster, ledger: ledger, name: "round-\(round)")
                    try await load.running(writers: 8, seed: random.next()) {
                        for victim in Victim.allCases.shuffled(using: &random) {
                            try await load.waitForMore(Int.random(in: 1...120, using: &random))
                            try await Kills.killAndRestart(victim, in: cluster, using: &random)
                        }
                        try await load.waitForMore(50)
                    }
                    try await cluster.waitForConvergence()
                    try await cluster.expectContent(ledger, "round \(round) of seed \(seed)")
                }
                print("everyRole(\(durability)): \(ledger.acknowledgedCount) acknowledged writes")
            }
        }

        private static func killAndRestart(
            _ victim: Victim, in cluster: TestCluster, using random: inout SeededGenerator
        ) async throws {
            switch victim {
            case .node:
                let node = Int.random(in: 0..<cluster.nodes.count, using: &random)
                try await cluster.node(node).killHard()
                try await cluster.startNode(node)
            case .frozenNode:
                // Stopped first: it dies with requests unread in its sockets.
                let node = Int.random(in: 0..<cluster.nodes.count, using: &random)
                try cluster.node(node).signal(SIGSTOP)
                try await cluster.node(node).killHard()
                try await cluster.startNode(node)
            case .replicator:
                try await cluster.process("replicator")?.killHard()
                try await cluster.startReplicator()
            case .router:
                try await cluster.process("router")?.killHard()
                try await cluster.startRouter()
            case .pausedNode:
                let node = Int.random(in: 0..<cluster.nodes.count, using: &random)
                try await pause(TestCluster.nodeName(node), in: cluster, using: &random)
            case .pausedReplicator: try await pause("replicator", in: cluster, using: &random)
            case .pausedRouter: try await pause("router", in: cluster, using: &random)
            }
        }

        /// SIGSTOP, and SIGCONT when some other process has answered a few requests.
        private static func pause(
            _ name: String, in cluster: TestCluster, using random: inout SeededGenerator
        ) async throws {
            let process = try #require(cluster.process(name))
            try await process.freeze()
            let other = try #require(cluster.listens.indices.first { TestCluster.nodeName($0) != name })
            for _ in 0..<Int.random(in: 0...300, using: &random) {
                _ = try await HTTP.get(APIPath.healthz, from: cluster.listens[other])
            }
            process.thaw()
        }

        /// The check that the tests here rely on does find what is missing or other than acknowledged.
        @Test(.timeLimit(.minutes(3)))
        func theLedgerNotices() async throws {
            try await TestCluster.running(.single(), router: false, replicator: false) { cluster in
                let (ledger, node) = (Ledger(), cluster.nodes[0])
                let load = Load(cluster: cluster, ledger: ledger, name: "notice", routes: [.direct])
                try await load.writeMore(100, writers: 2, seed: 1)
                #expect(try await ledger.discrepancies(at: node, in: cluster).isEmpty)
                let present = ledger.all.filter { $0.value.acknowledged?.value != nil && $0.value.uncertain == nil }
                let keys = present.keys.sorted().prefix(3)
                try #require(keys.count == 3)
                let same = try #require(present[keys[2]]?.acknowledged?.value)
                _ = try await HTTP.send(.DELETE, APIPath.key(keys[0].utf8), to: node)
                _ = try await HTTP.send(.PUT, APIPath.key(keys[1].utf8), to: node, body: [1, 2, 3])
                _ = try await HTTP.send(.PUT, APIPath.key(keys[2].utf8), to: node, body: same)
                #expect(try await ledger.discrepancies(at: node, in: cluster).count == 3)
            }
        }

        /// All at once, as where the machine goes down but its memory is written back.
        @Test(.timeLimit(.minutes(5)), arguments: ["always", "interval", "os"])
        func everythingAtOnce(durability: String) async throws {
            let seed = testSeed("everythingAtOnce(\(durability))")
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2, durability: durability)) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "all")
                try await load.running(writers: 8, seed: seed) {
                    try await load.waitForMore(300)
                    for name in ["node-0", "node-1", "replicator", "router"] { cluster.process(name)?.signal(SIGKILL) }
                    for name in ["node-0", "node-1", "replicator", "router"] {
                        try await cluster.process(name)?.waitForExit()
                    }
                }
                try await cluster.startNodes()
                for shard in cluster.topology.shards {
                    let wrong = try await ledger.discrepancies(at: shard.leader, in: cluster, shard: shard.name)
                    #expect(wrong.isEmpty, "seed \(seed): \(shard.name): \(wrong.prefix(5))")
                }
                try await cluster.startReplicator()
                try await cluster.waitForConvergence()
                try await cluster.expectContent(ledger, "seed \(seed)")
            }
        }
    }
}
