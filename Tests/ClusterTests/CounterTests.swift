import Core
import DistribKVClient
import NIOHTTP1
import Sharding
import Synchronization
import Testing
import Wire

extension ClusterTests {
    /// Counters that many clients change at once.
    @Suite struct Counters {
        /// How often one counter was to be changed, and what became of it.
        private final class Tally: Sendable {
            struct Sums {
                /// Requests that may have been carried out.
                var attempted = 0
                /// Those of them that were answered with the number then.
                var acknowledged = 0
                /// Those whose answer never came.
                var unanswered = 0
            }

            private let state = Mutex(Sums())
            var sums: Sums { state.withLock { $0 } }
            func change(_ body: (inout Sums) -> Void) { state.withLock { body(&$0) } }
        }

        private static let clients = 20

        /// 20 clients × 5,000 increments are exactly 100,000, and every client sees the number rise.
        @Test(.timeLimit(.minutes(5)))
        func everyIncrementCountsOnce() async throws {
            let each = testSetting("DISTRIBKV_TEST_INCREMENTS", default: 5_000)
            try await TestCluster.running(.single(), router: false, replicator: false) { cluster in
                let node = cluster.nodes[0]
                let since = ContinuousClock.now
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<Self.clients {
                        group.addTask {
                            var last = 0
                            for _ in 0..<each {
                                let response = try await HTTP.send(.POST, "/kv/counter?incr=1", to: node)
                                let number = try #require(Int(response.text), "\(response.status) \(response.text)")
                                #expect(number > last)
                                last = number
                            }
                        }
                    }
                    try await group.waitForAll()
                }
                print("everyIncrementCountsOnce: \(Self.clients * each) increments in \(ContinuousClock.now - since)")
                #expect(try await HTTP.get("/kv/counter", from: node).text == "\(Self.clients * each)")
            }
        }

        /// The leader is killed and another takes over by force. An increment with `ack=all` that was answered is never
        /// lost; one that was not answered is sent again and may count twice.
        @Test(.timeLimit(.minutes(5)))
        func whatWasAcknowledgedIsCountedAfterAKill() async throws {
            let seed = testSeed("whatWasAcknowledgedIsCountedAfterAKill")
            let each = testSetting("DISTRIBKV_TEST_KILL_INCREMENTS", default: 150)
            try await TestCluster.running(.ring(shards: 1, nodes: 3, replicas: 3)) { cluster in
                let tally = Tally()
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for client in 0..<Self.clients {
                        group.addTask { try await Self.count(to: each, tally, cluster, via: client) }
                    }
                    for round in 0..<testSetting("DISTRIBKV_TEST_ROUNDS", default: 2) {
                        try await Self.waitForMore(300, tally)
                        let victim = try cluster.index(of: cluster.topology.shards[0].leader)
                        try await cluster.node(victim).killHard()
                        let report = try await cluster.failover("shard-0", force: true)
                        #expect(report.leader != cluster.nodes[victim], "round \(round) of seed \(seed)")
                        // ack=all waits for this one too.
                        try await cluster.startNode(victim)
                        try await cluster.waitUntilReady(cluster.listens[victim], cluster.node(victim))
                    }
                    try await group.waitForAll()
                }
                try await cluster.waitForConvergence()
                let sums = tally.sums
                for node in cluster.nodes.indices {
                    let number = try #require(Int(try await HTTP.get("/kv/counter", from: cluster.listens[node]).text))
                    #expect(
                        sums.acknowledged <= number && number <= sums.attempted,
                        "\(number) at node \(node), \(sums), seed \(seed)")
                    print("whatWasAcknowledgedIsCountedAfterAKill: \(number) at node \(node), \(sums)")
                }
                #expect(sums.acknowledged == Self.clients * each)
                let verify = try await cluster.kv(["verify", "shard-0"])
                #expect(verify.status == .exited(0), "\(verify)")
            }
        }

        private static func waitForMore(_ count: Int, _ tally: Tally) async throws {
            let target = min(tally.sums.acknowledged + count, clients * 100)
            try await eventually("\(target) increments") { tally.sums.acknowledged >= target }
        }

        /// Adds one until that was acknowledged so many times.
        private static func count(to target: Int, _ tally: Tally, _ cluster: TestCluster, via client: Int) async throws
        {
            var acknowledged = 0
            while acknowledged < target {
                try Task.checkCancellation()
                switch await increment(cluster, client.isMultiple(of: 2)) {
                case .acknowledged:
                    acknowledged += 1
                    tally.change {
                        $0.attempted += 1; $0.acknowledged += 1
                    }
                case .late: tally.change { $0.attempted += 1 }
                case .unanswered:
                    tally.change {
                        $0.attempted += 1; $0.unanswered += 1
                    }
                case .notMade:
                    // Lets others run; nothing depends on how long this is.
                    try await Task.sleep(for: .milliseconds(5))
                }
            }
        }

        private enum Outcome {
            case acknowledged
            /// On the leader, and not yet everywhere.
            case late
            case unanswered
            case notMade
        }

        private static func increment(_ cluster: TestCluster, _ isDirect: Bool) async -> Outcome {
            let target = "/kv/counter?incr=1&ack=all&timeout=300ms"
            let address = isDirect ? cluster.leader(of: Array("counter".utf8)) : cluster.router
            do {
                let response = try await HTTP.following(.POST, target, to: address).response
                switch response.status {
                case 200: return .acknowledged
                case 504 where response.isAckTimeout: return .late
                case 503 where response.problem == "unavailable": return .notMade
                default: return response.isRedirect ? .notMade : .unanswered
                }
            } catch let failure as NodeFailure where failure.delivery == .notSent {
                return .notMade
            } catch {
                return .unanswered
            }
        }
    }
}
