import Configuration
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

@Suite(.timeLimit(.minutes(2))) struct AckLevelTests {
    private let shard: ScriptedShard

    init() throws { shard = try ScriptedShard(replicas: 3) }

    /// Waits until that many writes wait for followers.
    private func waiting(_ count: Int, _ client: NodeClient) async throws {
        _ = try await eventually("\(count) writes wait") {
            try await client.metric("distribkv_shard_ack_waiting") == Double(count) ? true : nil
        }
    }

    @Test func allWaitsForEveryFollower() async throws {
        try await shard.withNode(0) { client async throws in
            async let answer = client.put("/kv/a?ack=all&timeout=60s")
            let position = try await eventually("the write is on the leader") {
                let position = try await client.position()
                return position.lsn == 2 ? position : nil
            }
            try await waiting(1, client)
            #expect(try await client.report([(shard.replicas[1], position)]).status == 204)
            #expect(try await client.metric("distribkv_shard_ack_waiting") == 1)
            #expect(try await client.get("/kv/a").status == 200)
            #expect(try await client.report([(shard.replicas[2], position)]).status == 204)
            let response = try await answer
            #expect(response.status == 204)
            #expect(response.version == position.version)
            #expect(try await client.metric("distribkv_shard_ack_waiting") == 0)
            #expect(try await client.metric("distribkv_ack_waits_total") == 1)
            #expect(try await client.metric("distribkv_ack_timeouts_total") == 0)
            #expect(try await client.metric("distribkv_ack_wait_seconds_count") == 1)
            let followers = try #require(try await client.status().followers)
            #expect(followers.map(\.address) == Array(shard.replicas.dropFirst()))
            #expect(followers.allSatisfy { $0.lsn == position.lsn })
        }
    }

    /// Writes of one tick wait for different things and cross to the shard's thread together.
    @Test(arguments: ["quorum", "2"]) func someWaitForOneFollowerOnly(level: String) async throws {
        try await shard.withNode(0) { client async throws in
            async let slow = client.put("/kv/a?ack=all&timeout=300ms")
            async let fast = client.put("/kv/b?ack=\(level)&timeout=60s")
            async let atOnce = client.send(.DELETE, "/kv/c?ack=leader")
            #expect(try await atOnce.status == 204)
            // Counted, not looked at: the slow one may be over by now.
            _ = try await eventually("both have begun to wait") {
                try await client.metric("distribkv_ack_waits_total") == 2 ? true : nil
            }
            let position = try await client.position()
            #expect(try await client.report([(shard.replicas[2], position)]).status == 204)
            #expect(try await fast.status == 204)
            #expect(try await slow.status == 504)
        }
    }

    @Test func saysWhatIsTrueOfAWriteThatTakesTooLong() async throws {
        try await shard.withNode(0) { client async throws in
            let first = try await client.put("/kv/a?ack=all&timeout=50ms", "1")
            #expect(first.status == 504)
            #expect(first.problem.type == "ack-timeout")
            #expect(first.problem.detail.contains("on 1 of 3 replicas"))
            let version = try #require(first.version)
            #expect(first.field("etag") == "\"\(version.hexDigits)\"")
            #expect(try await client.get("/kv/a").version == version)
            #expect(
                try await client.report([(shard.replicas[1], LogPosition(term: 1, lsn: 50, version: version))]).status
                    == 204)
            let second = try await client.put("/kv/a?ack=3&timeout=50ms", "2")
            #expect(second.status == 504)
            #expect(second.problem.detail.contains("on 2 of 3 replicas"))
            #expect(try await client.metric("distribkv_ack_timeouts_total") == 2)
            #expect(try await client.metric("distribkv_shard_ack_waiting") == 0)
        }
    }

    @Test func positionsOfAnotherTermDoNotCount() async throws {
        try await shard.withNode(0) { client async throws in
            let high = LogPosition(term: 2, lsn: 1_000, version: Version(rawValue: 1))
            let stranger = try DeafPort()
            let own = LogPosition(term: 1, lsn: 1_000, version: Version(rawValue: 1))
            let report = [(shard.replicas[1], high), (shard.replicas[2], high), (stranger.address, own)]
            #expect(try await client.report(report).status == 204)
            #expect(try await client.put("/kv/a?ack=quorum&timeout=20ms").status == 504)
        }
    }

    @Test(arguments: [
        ("ack=most", "leader, quorum, all"), ("ack=0", "leader, quorum, all"), ("ack=", "leader, quorum, all"),
        ("ack=4", "s0 has 3"), ("a%63k=4", "s0 has 3"), ("ack=all&timeout=0s", "1ms to 60s"),
        ("ack=all&timeout=61s", "1ms to 60s"), ("timeout=5", "1ms to 60s"), ("ack=all&ack=1", "twice"),
        ("consistency=leader", "for reads"), ("max_staleness=1s", "for reads"),
    ])
    func refuses(query: String, saying: String) async throws {
        try await shard.withNode(0) { client async throws in
            let before = try await client.position()
            let response = try await client.put("/kv/a?\(query)")
            #expect(response.status == 400)
            #expect(response.problem.type == "bad-request")
            #expect(response.problem.detail.contains(saying), "\(response.problem.detail)")
            #expect(try await client.position() == before)
        }
    }

    @Test func theConfigurationSaysWhatWritesWaitForThatDoNotSay() async throws {
        try await shard.withNode(0) {
            $0.replication.defaultAck = .all
        } _: { client async throws in
            #expect(try await client.put("/kv/a?timeout=20ms").status == 504)
            #expect(try await client.put("/kv/a?ack=leader").status == 204)
        }
        try await shard.withNode(0) {
            $0.replication.defaultAck = .replicas(4)
        } _: { client async throws in
            let response = try await client.put("/kv/a")
            #expect(response.status == 400)
            #expect(response.problem.detail.contains("default_ack"))
        }
    }

    @Test func noMoreWaitThanMay() async throws {
        try await shard.withNode(0) {
            $0.ackWaitersMax = 1
        } _: { client async throws in
            async let first = client.put("/kv/a?ack=all&timeout=60s")
            try await waiting(1, client)
            let position = try await client.position()
            let second = try await client.put("/kv/b?ack=all")
            #expect(second.status == 503)
            #expect(second.problem.type == "overloaded")
            #expect(second.field("retry-after") != nil)
            #expect(try await client.position() == position)
            #expect(try await client.put("/kv/c").status == 204)
            #expect(try await client.report(shard.replicas.dropFirst().map { ($0, position) }).status == 204)
            #expect(try await first.status == 204)
            #expect(try await client.put("/kv/b?ack=all&timeout=5ms").status == 504)
        }
    }

    /// A shard of one replica has all and a quorum as soon as the leader has it.
    @Test func aLoneLeaderNeedsNobody() async throws {
        try await ScriptedShard(replicas: 1).withNode(0) { client async throws in
            for level in ["leader", "1", "quorum", "all"] {
                #expect(try await client.put("/kv/a?ack=\(level)").status == 204)
            }
            #expect(try await client.put("/kv/a?ack=2").problem.detail.contains("s0 has 1"))
        }
    }

    @Test func onlyALeaderTakesReports() async throws {
        try await shard.withNode(1) { client async throws in
            let response = try await client.report([(shard.replicas[2], .start)])
            #expect(response.status == 409)
            #expect(response.problem.type == "not-leader")
            #expect(try await client.send(.GET, APIPath.acks(shard: "s0")).status == 405)
        }
        try await shard.withNode(0) { client async throws in
            let response = try await client.send(.POST, APIPath.acks(shard: "s0"), body: .init(string: "nonsense\n"))
            #expect(response.status == 400)
            #expect(response.problem.detail.contains("line 1"))
        }
    }

    /// The answers of writes that wait do not hold a shutdown up, and say what they know.
    @Test func aShutdownEndsTheWaits() async throws {
        let answer = try await shard.withNode(0) { client async throws in
            let answer = Task { try await client.put("/kv/a?ack=all&timeout=60s") }
            try await waiting(1, client)
            return answer
        }
        // The client is gone before the node is: what counts is that the node ended.
        _ = await answer.result
    }
}
