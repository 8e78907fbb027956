import Configuration
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// `POST /batch` at one node.
@Suite(.timeLimit(.minutes(2))) struct BatchTests {
    private let shard: ScriptedShard

    init() throws { shard = try ScriptedShard(replicas: 1) }

    @Test func operationsAreDoneInTheirOrder() async throws {
        try await shard.withNode(0) { client async throws in
            let results = try await client.batch(
                """
                {"op":"get","key":"a"}
                {"op":"put","key":"a","value":"1"}
                {"op":"get","key":"a"}
                {"op":"incr","key":"a","by":4}

                {"op":"get","key":"a"}
                {"op":"delete","key":"a"}
                {"op":"get","key":"a"}
                {"op":"put","key":"a","value":"2","if_match":"*"}
                {"op":"put","key":"a","value":"3","if_none_match":"*","ttl":"1h"}
                {"op":"get","key":"a"}
                {"op":"put","key_base64":"/w==","value_base64":"/wA="}
                {"op":"incr","key_base64":"/w=="}
                """)
            #expect(
                results.map(\.text) == [
                    "404", "204", "1", "5", "5", "204", "404", "412", "204", "3", "204", "409",
                ])
            guard case .found(_, let version, let ttl) = results[9], case .written(let written) = results[8] else {
                throw KVError(.invalidData, "\(results)")
            }
            #expect(version == written && ttl == 3_600_000)
            let read = try await client.get("/kv/a")
            #expect(String(buffer: read.body) == "3" && read.version == version)
            #expect(Array(try await client.get("/kv/%FF").body.readableBytesView) == [255, 0])
            // What is in the middle of a batch is never seen after it; and a batch of gets alone writes nothing.
            let position = try await client.position()
            let gets = try await client.batch("{\"op\":\"get\",\"key\":\"a\"}\n{\"op\":\"get\",\"key\":\"b\"}")
            #expect(gets.map(\.text) == ["3", "404"])
            #expect(try await client.position() == position)
            #expect(try await client.send(.POST, "/batch", body: ByteBuffer()).body.readableBytes == 0)
        }
    }

    @Test(arguments: [
        ("{\"op\":\"get\",\"key\":\"a\"}\n{\"op\":\"put\",\"key\":\"a\"}", "Line 2: there is no member \"value\""),
        ("\n\nput a b\n", "Line 3: not JSON: an object is expected"),
        (
            "{\"op\":\"put\",\"key\":\"new\",\"value\":\"1\"}\n{\"op\":\"get\",\"key\":\"a\",\"if_match\":\"*\"}",
            "Line 2: "
        ),
        ("{\"op\":\"put\",\"key\":\"new\",\"value\":\"1\"}\n\u{0}", "Line 2: "),
    ]) func aMalformedLineRefusesTheBatch(body: String, detail: String) async throws {
        try await shard.withNode(0) { client async throws in
            let response = try await client.send(.POST, "/batch", body: ByteBuffer(string: body))
            let problem = response.problem
            #expect(response.status == 400 && problem.type == "bad-request")
            #expect(problem.detail.hasPrefix(detail), "\(problem.detail)")
            #expect(try await client.get("/kv/new").status == 404, "nothing was done")
        }
    }

    @Test func limitsAreKept() async throws {
        try await shard.withNode(0, { $0.storage.valueBytesMax = 100 }) { client async throws in
            let long = String(repeating: "k", count: 4_097)
            let results = try await client.batch(
                """
                {"op":"put","key":"a","value":"\(String(repeating: "v", count: 100))"}
                {"op":"put","key":"b","value":"\(String(repeating: "v", count: 101))"}
                {"op":"get","key":"\(long)"}
                {"op":"delete","key":""}
                {"op":"put","key":"c","value":"1","ttl":"99999999d"}
                {"op":"get","key":"b"}
                """)
            #expect(results.map(\.text) == ["204", "413", "400", "400", "400", "404"])
            let line = "{\"op\":\"get\",\"key\":\"a\"}\n"
            let most = ByteBuffer(string: String(repeating: line, count: Limits.batchOperationsMax))
            let answer = try await client.send(.POST, "/batch", body: most)
            #expect(answer.status == 200)
            var more = most
            more.writeString(line)
            let refused = try await client.send(.POST, "/batch", body: more)
            #expect(refused.status == 413 && refused.problem.type == "batch-too-large")
            let large = ByteBuffer(repeating: 0x20, count: Limits.batchBytesMax(valueBytesMax: 100) + 1)
            #expect(try await client.send(.POST, "/batch", body: large).status == 413)
            #expect(try await client.send(.GET, "/batch").status == 405)
            for query in ["?atomi=true", "?atomic=yes", "?ack=2", "?consistency=leader", "?timeout=0s"] {
                let response = try await client.send(.POST, "/batch\(query)", body: ByteBuffer(string: line))
                // More replicas than there are concern writes only: a batch of gets does not ask for any.
                #expect(response.status == (query == "?ack=2" ? 200 : 400), "\(query)")
            }
            let put = "{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"}"
            #expect(try await client.batch(put, "?ack=2").map(\.text) == ["400"])
            #expect(try await client.send(.POST, "/batches", body: ByteBuffer(string: line)).status == 404)
        }
    }

    @Test func anAtomicBatchIsDoneWholeOrNotAtAll() async throws {
        try await shard.withNode(0) { client async throws in
            let first = try await client.batch(
                """
                {"op":"put","key":"{u}a","value":"1"}
                {"op":"incr","key":"{u}n","by":3}
                {"op":"get","key":"{u}a"}
                """, "?atomic=true")
            #expect(first.map(\.text) == ["204", "3", "1"])
            let position = try await client.position()
            let refused = try await client.batch(
                """
                {"op":"put","key":"{u}a","value":"2"}
                {"op":"put","key":"{u}n","value":"0","if_none_match":"*"}
                {"op":"get","key":"{u}a"}
                """, "?atomic=true")
            #expect(refused.map(\.text) == ["424", "412", "424"])
            guard case .failed(let failure) = refused[0] else { throw KVError(.invalidData, "\(refused)") }
            #expect(failure.type == "failed-dependency")
            let wrong = try await client.batch(
                "{\"op\":\"put\",\"key\":\"a\",\"value\":\"2\"}\n{\"op\":\"put\",\"key\":\"\",\"value\":\"2\"}",
                "?atomic=true")
            #expect(wrong.map(\.text) == ["424", "400"])
            #expect(try await client.position() == position, "nothing was written")
            #expect(String(buffer: try await client.get("/kv/%7Bu%7Da").body) == "1")
            // Many more operations than otherwise go into one batch of the log.
            let many = (0..<Limits.batchOperationsMax).map { "{\"op\":\"put\",\"key\":\"{u}\($0)\",\"value\":\"\"}" }
            let results = try await client.batch(many.joined(separator: "\n"), "?atomic=true")
            #expect(results.allSatisfy { $0.text == "204" })
            #expect(try await client.position().lsn == position.lsn + 1)
        }
    }

    @Test func anAtomicBatchHasALimit() async throws {
        try await shard.withNode(0) { client async throws in
            let value = String(repeating: "v", count: 3 << 20)
            let lines = (0..<6).map { "{\"op\":\"put\",\"key\":\"a\($0)\",\"value\":\"\(value)\"}" }
            let body = ByteBuffer(string: lines.joined(separator: "\n"))
            let refused = try await client.send(.POST, "/batch?atomic=true", body: body)
            #expect(refused.status == 413 && refused.problem.type == "batch-too-large")
            let done = try await client.batch(lines.joined(separator: "\n"))
            #expect(done.map(\.text) == Array(repeating: "204", count: 6))
            #expect(try await client.get("/kv/a5").body.readableBytes == 3 << 20)
        }
    }

    @Test func writesThatAreNotAcknowledgedSaySo() async throws {
        try await ScriptedShard(replicas: 2).withNode(0) { client async throws in
            for query in ["?ack=all&timeout=50ms", "?ack=all&timeout=50ms&atomic=true"] {
                let results = try await client.batch(
                    "{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"}\n{\"op\":\"get\",\"key\":\"a\"}\n"
                        + "{\"op\":\"put\",\"key\":\"a\",\"value\":\"2\",\"if_match\":\"0000000000000001\"}", query)
                if query.contains("atomic") {
                    #expect(results.map(\.text) == ["424", "424", "412"])
                    continue
                }
                #expect(results.map(\.text) == ["504", "1", "412"])
                guard case .failed(let failure) = results[0] else { throw KVError(.invalidData, "\(results)") }
                #expect(failure.type == "ack-timeout")
                #expect(failure.version == (try await client.get("/kv/a").version))
            }
        }
    }

    /// Nobody answers where the other shard's leader is to be: its operations fail, the others are done.
    @Test func operationsOfAShardThatIsAwayFailAlone() async throws {
        let away = try DeafPort()
        let two = try ScriptedShard(replicas: 1)
        let half = UInt16(HashSlot.count / 2)
        let topology = try Topology(
            cluster: "test", epoch: 1,
            shards: [
                ShardTopology(
                    name: "s0", index: 0, term: 1, leader: two.replicas[0], followers: [],
                    slots: [SlotRange(first: HashSlot(rawValue: 0), last: HashSlot(rawValue: half - 1))]),
                ShardTopology(
                    name: "s1", index: 1, term: 1, leader: away.address, followers: [],
                    slots: [
                        SlotRange(
                            first: HashSlot(rawValue: half), last: HashSlot(rawValue: UInt16(HashSlot.count - 1)))
                    ]),
            ])
        try await two.withNode(0, { $0.topology = topology }) { client async throws in
            let keys = (0..<20).map { "k\($0)" }
            let here = keys.map { topology.position(of: HashSlot(key: $0.utf8)) == 0 }
            #expect(here.contains(true) && here.contains(false))
            let body = keys.map { "{\"op\":\"put\",\"key\":\"\($0)\",\"value\":\"1\"}" }.joined(separator: "\n")
            let results = try await client.batch(body)
            #expect(results.map(\.text) == here.map { $0 ? "204" : "503" })
            // What another process has sent on is not sent on again.
            let direct = try await client.batch(body, "?forward=false")
            #expect(direct.map(\.text) == here.map { $0 ? "204" : "409" })
            guard case .failed(let failure) = direct[here.firstIndex(of: false) ?? 0] else {
                throw KVError(.invalidData, "\(direct)")
            }
            #expect(failure.type == "not-leader")
            let atomic = try await client.send(.POST, "/batch?atomic=true", body: ByteBuffer(string: body))
            let problem = atomic.problem
            #expect(
                atomic.status == 400 && problem.detail.contains("\"k0\" is in s")
                    && problem.detail.contains("Keys with the same {tag}"))
        }
    }
}

extension NodeClient {
    fileprivate func batch(_ body: String, _ query: String = "") async throws -> [BatchResult] {
        let response = try await send(.POST, "/batch\(query)", body: ByteBuffer(string: body))
        guard response.status == 200 else { throw KVError(.invalidData, String(buffer: response.body)) }
        #expect(response.headers.first(name: "content-type") == "application/x-ndjson")
        return try String(buffer: response.body).split(separator: "\n").map {
            try BatchResult(ByteBuffer(substring: $0))
        }
    }
}

extension BatchResult {
    /// The value, the number or the status.
    fileprivate var text: String {
        switch self {
        case .written: "204"
        case .counted(let number, _): "\(number)"
        case .found(let value, _, _): String(buffer: value)
        case .failed(let failure): "\(failure.status)"
        }
    }
}
