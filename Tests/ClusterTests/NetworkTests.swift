import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Testing
import Wire

extension ClusterTests {
    /// A network that fails between chosen pairs.
    @Suite struct Network {
        /// Between the replicator and one follower nothing passes: the other follower and the clients notice nothing,
        /// and after the cut everything arrives.
        @Test(.timeLimit(.minutes(3)), arguments: [NetworkProxy.Fault.drop, .reset])
        func replicatorAndFollower(fault: NetworkProxy.Fault) async throws {
            let seed = testSeed("replicatorAndFollower")
            var layout = Layout.ring(shards: 1, nodes: 3, replicas: 3)
            layout.proxied = true
            try await TestCluster.running(layout) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "cut")
                try await load.writeMore(100, writers: 4, seed: seed)
                try await cluster.waitForConvergence()
                #expect(try cluster.proxy(1).sources.contains("replicator"), "the proxy does not know who connects")
                let before = try await HTTP.position(of: "shard-0", at: cluster.listens[2])
                try await cluster.proxy(2).set(fault, from: "replicator")
                try await load.writeMore(300, writers: 4, seed: seed &+ 50)
                let leader = try await HTTP.position(of: "shard-0", at: cluster.listens[0])
                try await eventually("the other follower to catch up") {
                    try await HTTP.position(of: "shard-0", at: cluster.listens[1]) == leader
                }
                // The test reaches the node through the same proxy; the replicator does not.
                #expect(try await HTTP.position(of: "shard-0", at: cluster.nodes[2]) == before)
                try await cluster.healNetwork()
                try await cluster.waitForConvergence()
                try await cluster.expectContent(ledger, "seed \(seed)")
            }
        }

        /// The leader cannot be read: followers stay where they are, writes go on, and nothing is lost afterwards.
        @Test(.timeLimit(.minutes(3)))
        func replicatorAndLeader() async throws {
            let seed = testSeed("replicatorAndLeader")
            var layout = Layout.ring(shards: 1, nodes: 2, replicas: 2)
            layout.proxied = true
            try await TestCluster.running(layout) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "cut")
                try await load.writeMore(100, writers: 4, seed: seed)
                for fault in [NetworkProxy.Fault.drop, .slow(delay: .milliseconds(5), bytesPerSecond: 50_000), .reset] {
                    try await cluster.proxy(0).set(fault, from: "replicator")
                    try await load.writeMore(100, writers: 4, seed: seed &+ UInt64(ledger.acknowledgedCount))
                    try await cluster.healNetwork()
                    try await cluster.waitForConvergence()
                    try await cluster.expectContent(ledger, "\(fault), seed \(seed)")
                }
            }
        }
    }

    /// That the checks find what they are there for.
    @Suite struct Checks {
        private func answer(_ status: Int, _ value: [UInt8] = [], _ version: UInt64 = 0) -> NodeResponse {
            let field = (KVHeader.version, Version(rawValue: version).hexDigits)
            return NodeResponse(status: status, headers: HTTPHeaders([field]), body: ByteBuffer(bytes: value))
        }

        private func write(_ value: UInt8, _ version: UInt64, _ ack: AckLevel, epoch: UInt64) -> Ledger.Write {
            Ledger.Write(value: [value], version: Version(rawValue: version), ack: ack, epoch: epoch)
        }

        private func isAccepted(_ entry: Ledger.Entry, _ answer: NodeResponse, lossAfter version: UInt64?) -> Bool {
            let losses = version.map { [Ledger.Loss(shard: "s", epoch: 5, version: Version(rawValue: $0))] } ?? []
            return Ledger.compare("key", entry, answer, losses) == nil
        }

        @Test func lossesThatWereReported() {
            let entry = Ledger.Entry(history: [
                write(1, 10, .leader, epoch: 1), write(2, 20, .leader, epoch: 1), write(3, 30, .leader, epoch: 1),
            ])
            // The last two may be gone, or the last alone; the first may not.
            #expect(isAccepted(entry, answer(200, [1], 10), lossAfter: 15))
            #expect(isAccepted(entry, answer(200, [2], 20), lossAfter: 15))
            #expect(isAccepted(entry, answer(200, [3], 30), lossAfter: 15))
            #expect(!isAccepted(entry, answer(404), lossAfter: 15))
            #expect(!isAccepted(entry, answer(200, [1], 10), lossAfter: 25))
            #expect(!isAccepted(entry, answer(200, [2], 20), lossAfter: nil))
            // A value that was not written, and one under another version, as where it was written twice.
            #expect(!isAccepted(entry, answer(200, [9], 30), lossAfter: 15))
            #expect(!isAccepted(entry, answer(200, [3], 31), lossAfter: 15))
            #expect(isAccepted(entry, answer(404), lossAfter: 5))
        }

        @Test func lossesThatNothingExcuses() {
            // On every replica.
            let all = Ledger.Entry(history: [write(1, 10, .leader, epoch: 1), write(2, 20, .all, epoch: 1)])
            #expect(!isAccepted(all, answer(200, [1], 10), lossAfter: 5))
            // From the new leader.
            let late = Ledger.Entry(history: [write(1, 10, .leader, epoch: 1), write(2, 20, .leader, epoch: 5)])
            #expect(!isAccepted(late, answer(200, [1], 10), lossAfter: 5))
            #expect(isAccepted(late, answer(200, [2], 20), lossAfter: 5))
            // A write that nobody knows the end of excuses itself, not others.
            var doubtful = late
            doubtful.uncertain = Ledger.Write(value: nil)
            #expect(isAccepted(doubtful, answer(404), lossAfter: nil))
            #expect(!isAccepted(doubtful, answer(200, [1], 10), lossAfter: nil))
        }
    }
}
