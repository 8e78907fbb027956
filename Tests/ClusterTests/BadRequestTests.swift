import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Requests that are wrong, sent byte by byte as a client would that knows no better.
    @Suite struct BadRequests {
        struct Case: Sendable {
            var method: String
            var target: String
            var fields: String
            var body: String
            var status: Int
            var problem: String

            init(_ target: String, fields: String = "", _ status: Int, _ problem: String) {
                self.init("GET", target, fields: fields, status, problem)
            }

            init(
                _ method: String, _ target: String, fields: String = "", body: String = "", _ status: Int,
                _ problem: String
            ) {
                self.method = method
                self.target = target
                self.fields = fields
                self.body = body
                self.status = status
                self.problem = problem
            }

            var text: String {
                let length = method == "GET" || method == "HEAD" ? "" : "content-length: \(body.utf8.count)\r\n"
                return "\(method) \(target) HTTP/1.1\r\nhost: x\r\n\(fields)\(length)\r\n\(body)"
            }
        }

        /// The same on a node and on a router.
        static let everywhere: [Case] = [
            Case("/kv/", 400, "bad-request"),
            Case("PUT", "/kv/", body: "x", 400, "bad-request"),
            Case("DELETE", "/kv/", 400, "bad-request"),
            Case("/kv/a%", 400, "bad-request"),
            Case("/kv/a%2", 400, "bad-request"),
            Case("/kv/a%zz", 400, "bad-request"),
            Case("/kv/%%41", 400, "bad-request"),
            Case("PUT", "/kv/%G0", body: "x", 400, "bad-request"),
            Case("/kv/a#b", 400, "bad-request"),
            Case("/kv/a?b#c", 400, "bad-request"),
            Case("/kv/" + String(repeating: "a", count: 4_097), 400, "bad-request"),
            Case("/kv/" + String(repeating: "%41", count: 4_097), 400, "bad-request"),
            Case("PUT", "/kv/" + String(repeating: "a", count: 4_097), body: "x", 400, "bad-request"),
            Case("/kv/" + String(repeating: "a", count: 40_000), 414, "target-too-long"),
            Case("/kv/a?hops=", 400, "bad-request"),
            Case("/kv/a?hops=x", 400, "bad-request"),
            Case("/kv/a?hops=-1", 400, "bad-request"),
            Case("/kv/a?hops=1.5", 400, "bad-request"),
            Case("/kv/a?hops=99999999999999999999", 400, "bad-request"),
            Case("/kv/a?hops=4", 508, "redirect-loop"),
            Case("PUT", "/kv/a?hops=4", body: "x", 508, "redirect-loop"),
            Case("PATCH", "/kv/a", body: "x", 405, "method-not-allowed"),
            Case("OPTIONS", "/kv/a", 405, "method-not-allowed"),
            Case("TRACE", "/kv/a", 405, "method-not-allowed"),
            Case("/", 404, "unknown-path"),
            Case("/kv?limit=0", 400, "bad-request"),
            Case("/kv?limit=10001", 400, "bad-request"),
            Case("/kv?limit=1&limit=2", 400, "bad-request"),
            Case("/kv?reverse=maybe", 400, "bad-request"),
            Case("/kv?prefix=%zz", 400, "bad-request"),
            Case("/kv?prefix=" + String(repeating: "a", count: 5_000), 400, "bad-request"),
            Case("/kv?nonsense=1", 400, "bad-request"),
            Case("/kv?hops=9", 508, "redirect-loop"),
            Case("POST", "/kv", body: "x", 405, "method-not-allowed"),
            Case("GET", "/batch", 405, "method-not-allowed"),
            Case("POST", "/batch", body: "x", 400, "bad-request"),
            Case("POST", "/batch", body: "{}", 400, "bad-request"),
            Case("POST", "/batch", body: "{\"op\":\"put\",\"key\":\"a\"}", 400, "bad-request"),
            Case("POST", "/batch", body: "{\"op\":\"get\",\"key\":\"a\"}\n{\"op\":1}\n", 400, "bad-request"),
            Case("POST", "/batch?atomic=x", body: "{\"op\":\"get\",\"key\":\"a\"}", 400, "bad-request"),
            Case(
                "POST", "/batch", body: String(repeating: "{\"op\":\"get\",\"key\":\"a\"}\n", count: 10_001), 413,
                "batch-too-large"),
            Case("POST", "/batch/", body: "", 404, "unknown-path"),
            Case("/KV/a", 404, "unknown-path"),
            Case("/nothing", 404, "unknown-path"),
            Case("/status/", 404, "unknown-path"),
            Case("POST", "/status", body: "x", 405, "method-not-allowed"),
            Case("DELETE", "/topology", 405, "method-not-allowed"),
            Case("PUT", "/topology", body: "{}", 405, "method-not-allowed"),
            Case("PUT", "/healthz", body: "x", 405, "method-not-allowed"),
            Case("POST", "/readyz", body: "x", 405, "method-not-allowed"),
            Case("POST", "/metrics", body: "x", 405, "method-not-allowed"),
            Case("PUT", "/kv/a", fields: "expect: tea\r\n", body: "x", 417, "expectation-failed"),
            Case("/kv/a", fields: "x: " + String(repeating: "y", count: 100_000) + "\r\n", 431, "headers-too-large"),
        ]

        static let nodeOnly: [Case] = [
            Case("PATCH", "/kv/a", body: "x", 405, "method-not-allowed"),
            Case("POST", "/kv/a", body: "x", 400, "bad-request"),
            Case("POST", "/kv/a?incr=1.5", 400, "bad-request"),
            Case("PUT", "/kv/a?incr=1", body: "x", 400, "bad-request"),
            Case("/kv/a?nonsense=1", 400, "bad-request"),
            Case("PUT", "/kv/a?ttl=0s", body: "x", 400, "bad-request"),
            Case("PUT", "/kv/a?ttl=-1s", body: "x", 400, "bad-request"),
            Case("PUT", "/kv/a?ttl=1", body: "x", 400, "bad-request"),
            Case("PUT", "/kv/a?ttl=99999999999999999999d", body: "x", 400, "bad-request"),
            Case("PUT", "/kv/a?ttl=1s&ttl=1s", body: "x", 400, "bad-request"),
            Case("/kv/a?ttl=1s", 400, "bad-request"),
            Case("DELETE", "/kv/a?ttl=1s", 400, "bad-request"),
            Case("PUT", "/kv/a?ack=most", body: "x", 400, "bad-request"),
            Case("PUT", "/kv/a?ack=3", body: "x", 400, "bad-request"),
            Case("PUT", "/kv/a?ack=all&timeout=61s", body: "x", 400, "bad-request"),
            Case("PUT", "/kv/a?consistency=leader", body: "x", 400, "bad-request"),
            Case("/kv/a?ack=all", 400, "bad-request"),
            Case("/kv/a?consistency=strong", 400, "bad-request"),
            Case("/kv/a?max_staleness=soon", 400, "bad-request"),
            Case("/kv/a?hops=1&hops=1", 400, "bad-request"),
            Case("/kv/a?%zz=1", 400, "bad-request"),
            Case("PUT", "/kv/a", fields: "if-match: \"0\"\r\n", body: "x", 412, "precondition-failed"),
            Case("PUT", "/kv/a", fields: "If-None-Match: 0\r\n", body: "x", 400, "bad-request"),
            Case("PUT", "/kv/a", fields: "If-Unmodified-Since: x\r\n", body: "x", 501, "unsupported"),
            Case("DELETE", "/kv/a", fields: "IF-MATCH: *\r\n", 412, "precondition-failed"),
            Case("/replication/", 404, "unknown-path"),
            Case("/replication/shard-0", 404, "unknown-path"),
            Case("/replication/shard-0/", 404, "unknown-path"),
            Case("/replication/shard-0/nothing", 404, "unknown-path"),
            Case("/replication/shard-0/wal/more", 404, "unknown-path"),
            Case("/replication/nowhere/position", 404, "unknown-shard"),
            Case("/replication//position", 404, "unknown-shard"),
            Case("/replication/../position", 404, "unknown-shard"),
            Case("POST", "/replication/shard-0/position", body: "x", 405, "method-not-allowed"),
            Case("PUT", "/replication/shard-0/batches", body: "x", 405, "method-not-allowed"),
            Case("DELETE", "/replication/shard-0/wal", 405, "method-not-allowed"),
            Case("/replication/shard-0/wal", 400, "bad-request"),
            Case("/replication/shard-0/wal?term=1&lsn=1", 400, "bad-request"),
            Case("/replication/shard-0/wal?term=1&lsn=x&version=0000000000000000", 400, "bad-request"),
            Case("/replication/shard-0/wal?term=-1&lsn=0&version=0000000000000000", 400, "bad-request"),
            Case("/replication/shard-0/wal?term=0&lsn=0&version=0", 400, "bad-request"),
            Case("/replication/shard-0/wal?term=0&lsn=0&version=000000000000000g", 400, "bad-request"),
            Case("/replication/shard-0/wal?term=0&lsn=0&version=0000000000000000&wait=60001", 400, "bad-request"),
            Case("/replication/shard-0/wal?term=0&lsn=0&version=0000000000000000&max_bytes=0", 400, "bad-request"),
            Case("/replication/shard-0/wal?term=0&lsn=0&version=0000000000000000&x=1", 400, "bad-request"),
            Case("/replication/shard-0/wal?term=99&lsn=9&version=0000000000000000", 409, "diverged"),
            Case("/replication/shard-0/wal?term=1&lsn=999&version=0000000000000001", 409, "diverged"),
            Case("/replication/shard-1/wal?term=0&lsn=0&version=0000000000000000", 409, "not-leader"),
            Case("POST", "/replication/shard-1/batches", body: "", 400, "bad-request"),
            Case("POST", "/replication/shard-1/batches", fields: "kv-term: x\r\n", body: "", 400, "bad-request"),
            Case("POST", "/replication/shard-1/batches", fields: "kv-term: 1\r\n", body: "x", 400, "bad-request"),
            Case("POST", "/replication/shard-1/batches", fields: "kv-term: 0\r\n", body: "", 409, "stale-term"),
            Case("POST", "/replication/shard-0/batches", fields: "kv-term: 1\r\n", body: "", 409, "stale-term"),
        ]

        static let routerOnly: [Case] = [
            Case("/kv/a?proxy=maybe", 400, "bad-request"),
            Case("/kv/a?proxy=1", 400, "bad-request"),
            Case("/kv/a?proxy=true&nonsense=1", 400, "bad-request"),
            Case("PUT", "/kv/a?proxy=true&ttl=1w", body: "x", 400, "bad-request"),
            Case("PUT", "/kv/a?proxy=true", fields: "if-match: \"0\"\r\n", body: "x", 412, "precondition-failed"),
            Case("/replication/shard-0/position", 404, "unknown-path"),
        ]

        @Test(.timeLimit(.minutes(3)))
        func table() async throws {
            // The node leads shard-0 and follows shard-1, whose leader is the other one.
            let layout = Layout(
                shards: [.init(name: "shard-0", replicas: [0, 1]), .init(name: "shard-1", replicas: [1, 0])])
            try await TestCluster.running(layout, replicator: false) { cluster in
                let before = try await positions(cluster)
                // A node says what is wrong with a request for a key of its own; for others it redirects.
                let own = try #require(
                    (0..<1_000).lazy.map { "a\($0)" }.first {
                        cluster.leader(of: Array($0.utf8)) == cluster.nodes[0]
                    })
                let nodeOnly = BadRequests.nodeOnly.map { bad in
                    var bad = bad
                    bad.target = bad.target.replacing("/kv/a", with: "/kv/\(own)")
                    return bad
                }
                try await check(BadRequests.everywhere + nodeOnly, at: cluster.nodes[0])
                try await check(BadRequests.everywhere + BadRequests.routerOnly, at: cluster.router)
                #expect(try await positions(cluster) == before)
                // Both still serve.
                let put = try await HTTP.following(.PUT, "/kv/after", to: cluster.router, body: [1])
                #expect(put.response.status == 204)
            }
        }

        private func positions(_ cluster: TestCluster) async throws -> [LogPosition] {
            var positions: [LogPosition] = []
            for node in cluster.nodes {
                for shard in ["shard-0", "shard-1"] { positions.append(try await HTTP.position(of: shard, at: node)) }
            }
            return positions
        }

        private func check(_ cases: [Case], at address: NodeAddress) async throws {
            for bad in cases {
                let shown = "\(bad.method) \(bad.target.prefix(90)) \(bad.fields.prefix(40)) at \(address)"
                let client = try await RawClient.connect(to: address)
                client.send(bad.text)
                let answer = try await client.answers(1)[0]
                await client.close()
                #expect(answer.status == bad.status, "\(shown): \(answer.text)")
                #expect(answer["content-type"] == MediaType.problem, "\(shown)")
                #expect(answer.text.hasPrefix("{\"type\":\"\(bad.problem)\""), "\(shown): \(answer.text)")
                #expect(answer["kv-epoch"] == "1", "\(shown)")
                if bad.status == 405 { #expect(answer["allow"]?.isEmpty == false, "\(shown)") }
            }
        }

        /// Frames of a real log, damaged: never applied, not even in part.
        @Test(.timeLimit(.minutes(3)))
        func damagedFrames() async throws {
            let seed = testSeed("damagedFrames")
            var random = SeededGenerator(seed: seed)
            try await TestCluster.running(.ring(shards: 1, nodes: 2, replicas: 2), router: false, replicator: false) {
                cluster in
                let (leader, follower) = (cluster.nodes[0], cluster.nodes[1])
                for number in 0..<20 {
                    let put = try await HTTP.send(.PUT, "/kv/k\(number)", to: leader, body: random.bytes(50))
                    #expect(put.status == 204)
                }
                let start = LogPosition.start
                let wal = try await HTTP.get(
                    "/replication/shard-0/wal?term=0&lsn=0&version=\(start.version.hexDigits)", from: leader)
                #expect(wal.status == 200)
                let good = wal.bytes
                #expect(try await HTTP.position(of: "shard-0", at: follower) == start)

                for round in 0..<200 {
                    var bad = good
                    switch round % 4 {
                    case 0: bad.removeLast(Int.random(in: 1..<bad.count, using: &random))
                    case 1:
                        bad[Int.random(in: 0..<bad.count, using: &random)] ^=
                            1 << UInt8.random(in: 0..<8, using: &random)
                    case 2:
                        bad.insert(
                            UInt8.random(in: 0...255, using: &random), at: Int.random(in: 0..<bad.count, using: &random)
                        )
                    default: bad += random.bytes(Int.random(in: 1...100, using: &random))
                    }
                    // A cut between two frames leaves a shorter valid push; every other damage must be refused whole.
                    if LogFrames.areWhole(bad) { continue }
                    let answer = try await push(bad, to: follower)
                    #expect(answer.status == 400, "round \(round) of seed \(seed): \(answer.status) \(answer.text)")
                    let position = try await HTTP.position(of: "shard-0", at: follower)
                    #expect(position == start, "round \(round) of seed \(seed): damaged frames were applied")
                    guard position == start else { return }
                }

                // Whole frames that do not fit: a gap, a leader of a term it never had.
                let frames = try LogFrames.split(good)
                let gap = try await push(frames.dropFirst().flatMap { $0 }, to: follower)
                #expect(gap.status == 409)
                #expect(gap.problem == "log-mismatch")
                #expect(try await HTTP.position(of: "shard-0", at: follower) == start)

                // The undamaged frames are applied, and a second time harmlessly.
                for _ in 0..<2 { #expect(try await push(good, to: follower).status == 200) }
                let end = try await HTTP.position(of: "shard-0", at: leader)
                #expect(try await HTTP.position(of: "shard-0", at: follower) == end)

                // Nobody has told it yet that this is all there is: its reads go to the leader.
                #expect(try await HTTP.get("/kv/k19", from: follower).status == 307)
                let ready = try await HTTP.get(APIPath.readyz, from: follower)
                #expect(ready.status == 503 && ready.problem == "unavailable")
                let told = try await push(
                    [], to: follower, headers: [(KVHeader.lsn, "\(end.lsn)"), (KVHeader.clock, "1000")])
                #expect(told.status == 200)
                #expect(try await HTTP.get(APIPath.readyz, from: follower).status == 200)
                #expect(try await HTTP.get("/kv/k19", from: follower).bytes == HTTP.get("/kv/k19", from: leader).bytes)
            }
        }

        private func push(
            _ bytes: [UInt8], to address: NodeAddress, headers: [(name: String, value: String)] = []
        ) async throws -> NodeResponse {
            try await HTTP.send(
                .POST, APIPath.batches(shard: "shard-0"), to: address, body: bytes,
                headers: [(KVHeader.term, "1"), ("content-type", MediaType.logFrames)] + headers)
        }
    }
}

enum LogFrames {
    static func areWhole(_ bytes: [UInt8]) -> Bool {
        var buffer = ByteBuffer(bytes: bytes)
        do {
            while try LogFrame.decode(from: &buffer) != nil {}
            return buffer.readableBytes == 0
        } catch {
            return false
        }
    }

    static func split(_ bytes: [UInt8]) throws -> [[UInt8]] {
        var buffer = ByteBuffer(bytes: bytes)
        var frames: [[UInt8]] = []
        while let frame = try LogFrame.decode(from: &buffer) {
            var encoded = ByteBuffer()
            frame.encode(into: &encoded)
            frames.append(Array(encoded.readableBytesView))
        }
        return frames
    }
}
