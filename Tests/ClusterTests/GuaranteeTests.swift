import Core
import DistribKVClient
import Glibc
import LSM
import NIOCore
import NIOHTTP1
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// What acknowledgements and reads promise, with followers that are slow or down.
    @Suite struct Promises {
        /// A follower stands still: writes that want it time out and are kept, others notice nothing.
        @Test(.timeLimit(.minutes(3)))
        func acknowledgements() async throws {
            let seed = testSeed("acknowledgements")
            try await TestCluster.running(.ring(shards: 1, nodes: 3, replicas: 3)) { cluster in
                let (ledger, leader) = (Ledger(), cluster.nodes[0])
                let all = Load(cluster: cluster, ledger: ledger, name: "all", acks: [.all], ackTimeout: "60s")
                try await all.writeMore(40, writers: 4, seed: seed)
                #expect(all.tally.harsh.isEmpty && all.tally.count(504) == 0, "\(all.tally.statuses)")

                for number in 0..<2 {
                    if number == 0 { try await cluster.node(2).freeze() } else { try await cluster.node(2).killHard() }
                    let missed = try await cluster.put(
                        "missed-\(number)", [1], "?ack=all&timeout=50ms", to: leader, ledger)
                    #expect(missed.isAckTimeout, "\(missed.status) \(missed.text)")
                    #expect(missed.text.contains("on 1 of 3 replicas") || missed.text.contains("on 2 of 3 replicas"))
                    // Nobody else waits with it, neither before nor after it times out.
                    async let waiting = cluster.put(
                        "waiting-\(number)", [2], "?ack=all&timeout=60s", to: leader, ledger)
                    let rest = Load(
                        cluster: cluster, ledger: ledger, name: "rest-\(number)", acks: [.leader, .quorum, nil],
                        ackTimeout: "60s")
                    try await rest.writeMore(100, writers: 6, seed: seed &+ UInt64(50 + number))
                    #expect(rest.tally.harsh.isEmpty && rest.tally.count(504) == 0, "\(rest.tally.statuses)")
                    // The follower is back, and so is what waited for it.
                    if number == 0 { try cluster.node(2).thaw() } else { try await cluster.startNode(2) }
                    let reached = try await waiting
                    #expect(reached.status == 204, "\(reached.text)")
                    let copy = try await HTTP.get("/kv/waiting-\(number)", from: cluster.nodes[2])
                    #expect(copy.status == 200 && copy.version == reached.version, "not on every replica")
                }
                let tooMany = try await HTTP.send(.PUT, "/kv/a?ack=4", to: leader, body: [1])
                #expect(tooMany.status == 400, "\(tooMany.text)")
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)", audit: true)
            }
        }

        /// Reads of a follower that the replicator does not reach: those that demand more go to the leader, others are
        /// answered with what is there and how old it may be.
        @Test(.timeLimit(.minutes(3)))
        func reads() async throws {
            try await TestCluster.running(.ring(shards: 1, nodes: 2, replicas: 2)) { cluster in
                let (leader, follower) = (cluster.nodes[0], cluster.nodes[1])
                let first = try await HTTP.send(.PUT, "/kv/a?ack=all&timeout=60s", to: leader, body: [1])
                let version = try #require(first.version)
                let fresh = try await Self.read("/kv/a", min: version, from: follower)
                #expect(fresh.status == 200 && fresh.bytes == [1] && fresh.version == version)
                let lag = try #require(fresh.headers.first(name: KVHeader.lag).flatMap { UInt64($0) })
                let bounded = try await HTTP.get("/kv/a?max_staleness=60s", from: follower)
                #expect(bounded.status == 200, "lag was \(lag) ms")

                try await cluster.process("replicator")?.freeze()
                let second = try await HTTP.send(.PUT, "/kv/a", to: leader, body: [2])
                let newer = try #require(second.version)
                #expect(try await HTTP.get("/kv/a", from: follower).bytes == [1], "eventual reads are answered")
                // It waits a moment, then knows who has it.
                let behind = try await Self.read("/kv/a", min: newer, from: follower)
                #expect(behind.status == 307)
                #expect(behind.headers.first(name: "location")?.hasPrefix("http://\(leader)/kv/a") == true)
                #expect(try await Self.read("/kv/a", min: newer, from: leader).bytes == [2])
                #expect(try await HTTP.get("/kv/a?consistency=leader", from: follower).status == 307)
                try await eventually("the follower to know that it is old") {
                    try await HTTP.get("/kv/a?max_staleness=300ms", from: follower).status == 307
                }
                let old = try await HTTP.get("/kv/a", from: follower)
                #expect(old.bytes == [1])
                #expect(try #require(old.headers.first(name: KVHeader.lag).flatMap { UInt64($0) }) >= 300)

                cluster.process("replicator")?.thaw()
                try await eventually("the follower to be fresh again") {
                    let read = try await Self.read("/kv/a?max_staleness=60s", min: newer, from: follower)
                    return read.status == 200 && read.bytes == [2]
                }
            }
        }

        private static func read(
            _ target: String, min version: Version, from address: NodeAddress
        ) async throws -> NodeResponse {
            try await HTTP.send(
                .GET, target, to: address, headers: [(name: KVHeader.minVersion, value: version.hexDigits)])
        }

        /// One value that differs on one follower, by nothing but its bytes: `kv verify` finds the range it lies in.
        @Test(.timeLimit(.minutes(3)))
        func verifyFindsAPlantedDifference() async throws {
            let seed = testSeed("verifyFindsAPlantedDifference")
            try await TestCluster.running(.ring(shards: 1, nodes: 3, replicas: 3)) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "verify")
                try await load.writeMore(400, writers: 4, seed: seed)
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)")
                let present = ledger.all.filter { $0.value.uncertain == nil && $0.value.acknowledged?.value != nil }
                let planted = try #require(present.keys.min())
                let version = try #require(ledger.all[planted]?.acknowledged?.version)
                #expect(try await cluster.node(1).terminate() == .exited(0))
                try Self.plant([0xEE], at: planted, version, in: cluster, node: 1)
                try await cluster.startNode(1)
                try await cluster.waitForConvergence()

                let verify = try await cluster.kv(["verify", "shard-0"])
                #expect(verify.status == .exited(4), "\(verify)")
                let differs = "shard-0 at \(cluster.nodes[1]) differs from its leader here"
                #expect(verify.output.contains(differs), "\(verify.output)")
                #expect(!verify.output.contains("shard-0 at \(cluster.nodes[2]) differs"), "\(verify.output)")
                let json = try await cluster.kv(["verify", "shard-0", "--json"])
                let report = try DocumentCoding.decode(Report.self, from: json.output.utf8)
                let replica = try #require(
                    report.shards.first?.replicas.first { $0.address == "\(cluster.nodes[1])" })
                #expect(replica.differences.count == 1, "\(json.output)")
                let range = try #require(replica.differences.first)
                // The planted key is one of the load's, which are not encoded.
                #expect(range.start <= planted && (range.end.isEmpty || planted < range.end), "\(range)")
                #expect(verify.output.contains(range.start.isEmpty ? "(start)" : range.start), "\(verify.output)")

                // Written again, it is the same everywhere.
                #expect(try await cluster.put(planted, [3], to: cluster.nodes[0], ledger).status == 204)
                try await cluster.expectEqualReplicas(ledger, "mended, seed \(seed)")
            }
        }

        private struct Report: Decodable {
            struct Difference: Decodable {
                var start: String
                var end: String
            }
            struct Replica: Decodable {
                var address: String
                var differences: [Difference]
            }
            struct Shard: Decodable { var replicas: [Replica] }
            var shards: [Shard]
        }

        /// Puts a value into the database of a node that does not run, beside its log.
        private static func plant(
            _ value: [UInt8], at key: String, _ version: Version, in cluster: TestCluster, node: Int
        ) throws {
            let database = try Database(
                path: "\(cluster.dataDirectory(node))/shards/shard-0/db", shared: SharedResources())
            var batch = WriteBatchBuilder()
            batch.put(key: ByteBuffer(string: key), version: version, value: ByteBuffer(bytes: value))
            try batch.finish().withUnsafeReadableBytes { try database.write($0, sync: true) }
            // In the log it would be found: it is no batch of the shard.
            try database.flush()
            try database.close()
        }
    }
}
