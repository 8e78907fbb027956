import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// Conditions and counters over HTTP.
@Suite(.timeLimit(.minutes(2))) struct ConditionTests {
    private let shard: ScriptedShard

    init() throws { shard = try ScriptedShard(replicas: 1) }

    @Test func aWriteIsMadeWhereItsConditionHolds() async throws {
        try await shard.withNode(0) { client async throws in
            func put(_ field: String, _ value: String, _ body: String) async throws -> Int {
                try await client.send(.PUT, "/kv/a", [(name: field, value: value)], body: ByteBuffer(string: body))
                    .status
            }
            #expect(try await put("If-Match", "*", "0") == 412)
            #expect(try await put("If-None-Match", "*", "1") == 204)
            let refused = try await client.send(
                .PUT, "/kv/a", [(name: "if-none-match", value: "*")], body: ByteBuffer(string: "2"))
            #expect(refused.status == 412 && refused.problem.type == "precondition-failed" && refused.version == nil)
            let read = try await client.get("/kv/a")
            #expect(String(buffer: read.body) == "1")
            let tag = try #require(read.field("etag"))
            #expect(try await put("If-Match", "W/\(tag)", "3") == 412, "a weak tag matches nothing strongly")
            #expect(try await put("If-Match", "\"other\" , \(tag)", "3") == 204)
            #expect(try await put("If-Match", tag, "4") == 412)
            let position = try await client.position()
            #expect(try await client.send(.DELETE, "/kv/a", [(name: "if-match", value: tag)]).status == 412)
            #expect(try await client.position() == position)
            #expect(try await client.send(.DELETE, "/kv/a", [(name: "if-match", value: "*")]).status == 204)
            #expect(try await put("If-Match", "*", "5") == 412)
            #expect(try await put("If-None-Match", "*", "6") == 204)
            #expect(String(buffer: try await client.get("/kv/a").body) == "6")
        }
    }

    @Test(arguments: ["", "a", "\"", "*, *", "\"a\",", "\"a\" \"b\"", "*, \"a\"", "0190000000000000"])
    func aConditionThatCannotBeReadIsRefused(value: String) async throws {
        try await shard.withNode(0) { client async throws in
            for field in ["if-match", "if-none-match"] {
                let response = try await client.send(.PUT, "/kv/a", [(name: field, value: value)])
                #expect(response.status == 400 && response.problem.type == "bad-request")
            }
            #expect(try await client.get("/kv/a").status == 404)
        }
    }

    @Test func countersAnswerWithTheirNumber() async throws {
        try await shard.withNode(0) { client async throws in
            let first = try await client.send(.POST, "/kv/n?incr=5")
            #expect(first.status == 200 && String(buffer: first.body) == "5")
            let version = try #require(first.version)
            #expect(first.field("etag") == "\"\(version.hexDigits)\"")
            let second = try await client.send(
                .POST, "/kv/n?incr=-7&ack=all", [(name: "if-match", value: "\"\(version.hexDigits)\"")])
            #expect(second.status == 200 && String(buffer: second.body) == "-2")
            #expect(
                try await client.send(.POST, "/kv/n?incr=1", [(name: "if-none-match", value: "*")]).status == 412)
            let read = try await client.get("/kv/n")
            #expect(String(buffer: read.body) == "-2" && read.version == second.version)
            let overflow = try await client.send(.POST, "/kv/n?incr=\(Int64.min)")
            #expect(overflow.status == 409 && overflow.problem.type == "counter-overflow")
            _ = try await client.put("/kv/text", "x")
            let text = try await client.send(.POST, "/kv/text?incr=1")
            #expect(text.status == 409 && text.problem.type == "not-an-integer")
            for target in ["/kv/n", "/kv/n?incr=", "/kv/n?incr=x", "/kv/n?incr=9223372036854775808", "/kv/n?ack=1"] {
                #expect(try await client.send(.POST, target).status == 400, "\(target)")
            }
            #expect(try await client.send(.POST, "/kv/n?incr=1", body: ByteBuffer(string: "1")).status == 400)
            #expect(try await client.put("/kv/n?incr=1").status == 400)
            #expect(String(buffer: try await client.get("/kv/n").body) == "-2")
        }
    }

    /// Refused writes give back the room they had among those that wait for followers.
    @Test func acknowledgementsAreForWritesThatAreMade() async throws {
        let pair = try ScriptedShard(replicas: 2)
        try await pair.withNode(0) {
            $0.ackWaitersMax = 1
        } _: { client async throws in
            for _ in 0..<3 {
                let refused = try await client.send(.PUT, "/kv/n?ack=all", [(name: "if-match", value: "*")])
                #expect(refused.status == 412)
            }
            #expect(try await client.metric("distribkv_shard_ack_waiting") == 0)
            async let answer = client.send(.POST, "/kv/n?incr=2&ack=all&timeout=60s")
            let position = try await eventually("the write is on the leader") {
                let position = try await client.position()
                return position.lsn == 2 ? position : nil
            }
            #expect(try await client.report([(pair.replicas[1], position)]).status == 204)
            let response = try await answer
            #expect(response.status == 200 && String(buffer: response.body) == "2")
            #expect(response.version == position.version)
        }
    }

    @Test func nothingIsLostAmongManyClients() async throws {
        try await shard.withNode(0) { client async throws in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<20 {
                    group.addTask {
                        var last = 0
                        for _ in 0..<250 {
                            let response = try await client.send(.POST, "/kv/n?incr=1")
                            let number = try #require(Int(String(buffer: response.body)))
                            #expect(response.status == 200 && number > last)
                            last = number
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(String(buffer: try await client.get("/kv/n").body) == "5000")
        }
    }

    /// Of clients that want the same key, or to replace the same version, one gets it.
    @Test func oneOfManyWins() async throws {
        try await shard.withNode(0) { client async throws in
            var condition = (name: "if-none-match", value: "*")
            for round in 0..<20 {
                let winners = try await withThrowingTaskGroup(of: Int.self) { group in
                    for number in 0..<8 {
                        group.addTask { [condition] in
                            try await client.send(
                                .PUT, "/kv/lock", [condition], body: ByteBuffer(string: "\(round)-\(number)")
                            ).status
                        }
                    }
                    return try await group.reduce(into: [Int]()) { $0.append($1) }
                }
                #expect(winners.count { $0 == 204 } == 1 && winners.count { $0 == 412 } == 7)
                condition = (name: "if-match", value: try #require(try await client.get("/kv/lock").field("etag")))
            }
        }
    }
}
