import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Shard
import Synchronization
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// Values that expire, over HTTP, with a clock that the test moves.
@Suite(.timeLimit(.minutes(2))) struct ExpiryTests {
    private final class Time: Sendable {
        private let milliseconds = Mutex<UInt64>(1_800_000_000_000)

        func pass(_ span: UInt64) { milliseconds.withLock { $0 += span } }

        var clock: ShardClock {
            ShardClock(
                wallMilliseconds: { self.milliseconds.withLock { $0 } },
                monotonicMilliseconds: { self.milliseconds.withLock { $0 - 1_700_000_000_000 } })
        }
    }

    private let shard: ScriptedShard
    private let time = Time()

    init() throws { shard = try ScriptedShard(replicas: 1) }

    private func withNode(_ body: (NodeClient) async throws -> Void) async throws {
        try await shard.withNode(0, { $0.clock = time.clock }, body)
    }

    @Test func aValueIsGoneWhenItsLifeIsOver() async throws {
        try await withNode { client async throws in
            let written = try await client.put("/kv/a?ttl=30s", "one")
            #expect(written.status == 204 && written.version != nil)
            let first = try await client.get("/kv/a")
            #expect(first.status == 200 && String(buffer: first.body) == "one")
            #expect(first.field("kv-expires-in") == "30000ms")
            time.pass(29_999)
            let tag = try #require(first.field("etag"))
            let unchanged = try await client.send(.GET, "/kv/a", [(name: "if-none-match", value: tag)])
            #expect(unchanged.status == 304 && unchanged.field("kv-expires-in") == "1ms")
            let head = try await client.send(.HEAD, "/kv/a")
            #expect(head.status == 200 && head.field("kv-expires-in") == "1ms")
            time.pass(1)
            for method in [HTTPMethod.GET, .HEAD] {
                let gone = try await client.send(method, "/kv/a", [(name: "if-none-match", value: tag)])
                #expect(gone.status == 404 && gone.field("kv-expires-in") == nil && gone.version == nil)
            }
            #expect(try await client.send(.PUT, "/kv/a", [(name: "if-match", value: tag)]).status == 412)
            #expect(try await client.send(.PUT, "/kv/a", [(name: "if-none-match", value: "*")]).status == 204)
        }
    }

    @Test func scansSayWhatIsLeftAndPassOverWhatIsGone() async throws {
        try await withNode { client async throws in
            #expect(try await client.put("/kv/a?ttl=1s", "1").status == 204)
            #expect(try await client.put("/kv/b?ttl=2s", "2").status == 204)
            let plain = try #require(try await client.put("/kv/c", "3").version)
            time.pass(999)
            let page = String(buffer: try await client.get("/kv").body).split(separator: "\n")
            #expect(page.count == 3 && page[0].hasSuffix(#","ttl":"1ms"}"#) && page[1].hasSuffix(#","ttl":"1001ms"}"#))
            #expect(page[2] == #"{"key":"c","value":"3","version":"\#(plain.hexDigits)"}"#)
            time.pass(1)
            let later = try await client.get("/kv?keys_only=true&limit=2")
            #expect(String(buffer: later.body).hasPrefix(#"{"key":"b","version":""#))
            #expect(later.field("kv-next") == nil)
            time.pass(1_001)
            #expect(String(buffer: try await client.get("/kv?reverse=true").body).split(separator: "\n").count == 1)
        }
    }

    @Test func aPlainPutTakesTheEndAwayAndACounterKeepsIt() async throws {
        try await withNode { client async throws in
            #expect(try await client.put("/kv/n?ttl=1m", "5").status == 204)
            time.pass(10_000)
            #expect(String(buffer: try await client.send(.POST, "/kv/n?incr=2").body) == "7")
            #expect(try await client.get("/kv/n").field("kv-expires-in") == "50000ms")
            #expect(try await client.put("/kv/n", "8").status == 204)
            #expect(try await client.get("/kv/n").field("kv-expires-in") == nil)
            time.pass(1_000_000)
            #expect(String(buffer: try await client.get("/kv/n").body) == "8")
            #expect(try await client.put("/kv/n?ttl=500ms&ack=leader", "9").status == 204)
            time.pass(500)
            #expect(String(buffer: try await client.send(.POST, "/kv/n?incr=1").body) == "1")
            #expect(try await client.get("/kv/n").field("kv-expires-in") == nil)
        }
    }

    @Test(arguments: [("1ms", "1ms"), ("2h", "7200000ms"), ("36500d", "3153600000000ms"), ("7d", "604800000ms")])
    func livesAreFromAMillisecondToAHundredYears(ttl: String, left: String) async throws {
        try await withNode { client async throws in
            #expect(try await client.put("/kv/a?ttl=\(ttl)").status == 204)
            #expect(try await client.get("/kv/a").field("kv-expires-in") == left)
        }
    }

    @Test(arguments: [
        "", "0s", "0ms", "-1s", "1", "s", "1.5s", "1S", "1w", "36501d", "99999999999999999999s", "%2B1s", "1s%20",
        "%FF",
    ])
    func otherLivesAreRefused(ttl: String) async throws {
        try await withNode { client async throws in
            let refused = try await client.put("/kv/a?ttl=\(ttl)")
            #expect(refused.status == 400 && refused.problem.type == "bad-request")
            #expect(refused.problem.detail.contains("ttl"))
            #expect(try await client.get("/kv/a").status == 404)
        }
    }

    @Test func onlyAPutTakesALife() async throws {
        try await withNode { client async throws in
            _ = try await client.put("/kv/a", "1")
            for (method, target) in [
                (HTTPMethod.DELETE, "/kv/a?ttl=1s"), (.GET, "/kv/a?ttl=1s"), (.HEAD, "/kv/a?ttl=1s"),
                (.POST, "/kv/a?incr=1&ttl=1s"), (.PUT, "/kv/a?ttl=1s&ttl=1s"),
            ] {
                let refused = try await client.send(method, target)
                #expect(refused.status == 400, "\(method) \(target)")
                if method != .HEAD { #expect(refused.problem.detail.contains("ttl")) }
            }
            let read = try await client.get("/kv/a")
            #expect(String(buffer: read.body) == "1" && read.field("kv-expires-in") == nil)
        }
    }

    @Test func aCompactionIsBegunAndLookedAt() async throws {
        try await withNode { client async throws in
            let path = APIPath.compaction(shard: "s0")
            func look(_ response: NodeResponse) throws -> CompactionDocument {
                try DocumentCoding.decode(CompactionDocument.self, from: response.body.readableBytesView)
            }
            #expect(try look(try await client.send(.GET, path)) == CompactionDocument(shard: "s0"))
            for key in 0..<500 {
                #expect(try await client.put("/kv/\(key)?ttl=1s", "a value of key \(key &* 7919)").status == 204)
            }
            // Until the clock has stood where it is for long enough, nothing is dropped.
            time.pass(UInt64(ClockBound.settleMilliseconds) + 61_000)
            let begun = try await client.send(.POST, path)
            #expect(begun.status == 202)
            #expect(try look(begun).number == 1)
            let done = try await eventually("the compaction ends") {
                let document = try look(try await client.send(.GET, path))
                return document.isRunning ? nil : document
            }
            #expect(done.failure == nil && done.number == 1)
            #expect(try #require(done.tableBytesBefore) > 4 * (try #require(done.tableBytesAfter)))
            let refused = try await client.send(.PUT, path)
            #expect(refused.status == 405 && refused.field("allow") == "GET, POST")
            #expect(try await client.send(.POST, APIPath.compaction(shard: "other")).status == 404)
        }
    }
}
