import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// What becomes of writes and reads that a leader has taken and can no longer serve as one.
@Suite(.timeLimit(.minutes(2))) struct LeadershipLossTests {
    private let shard: ScriptedShard

    init() throws { shard = try ScriptedShard(replicas: 2) }

    /// The other replica leads.
    private func promote(_ client: NodeClient) async throws {
        let next = try shard.topology.promoting(shard.replicas[1], in: "s0", above: 1)
        let response = try await client.send(
            .POST, APIPath.topology, body: ByteBuffer(bytes: try next.json()))
        #expect(response.status == 200)
        #expect(response.epoch == next.epoch)
    }

    private func waiting(_ count: Int, _ client: NodeClient) async throws {
        _ = try await eventually("\(count) writes wait") {
            try await client.metric("distribkv_shard_ack_waiting") == Double(count) ? true : nil
        }
    }

    /// They were not made, so the new leader may make them; nothing is applied twice.
    @Test func writesHeldWhileTheLeadershipMovesAreSentAfterIt() async throws {
        try await shard.withNode(0) { client async throws in
            let before = try await client.position()
            // From its start on the node holds writes itself until its followers were asked.
            _ = try await eventually("writes are held") {
                let held = try await client.send(.POST, APIPath.hold(shard: "s0") + "?milliseconds=5000")
                return held.status == 200 ? true : nil
            }
            async let first = client.put("/kv/a%2Fb?ack=all&timeout=60s&hops=1")
            // Room is made for it when it comes in.
            try await waiting(1, client)
            async let second = client.send(.DELETE, "/kv/c")
            try await promote(client)
            let responses = [try await first, try await second]
            #expect(responses.map(\.status) == [307, 307])
            #expect(
                responses.map { $0.field("location") } == [
                    "http://\(shard.replicas[1])/kv/a%2Fb?ack=all&timeout=60s&hops=2",
                    "http://\(shard.replicas[1])/kv/c?hops=1",
                ])
            #expect(responses[0].field("cache-control") == "no-store")
            #expect(try await client.position() == before)
        }
    }

    /// Routers and clients that have the other one, of the same epoch, learn of it by the next.
    @Test func anotherTopologyOfTheSameEpochIsSettled() async throws {
        try await shard.withNode(0) { client async throws in
            var shards = shard.topology.shards
            shards[0].followers = [NodeAddress(host: "127.0.0.1", port: 9)]
            let other = try Topology(cluster: "test", epoch: 1, shards: shards)
            let winner = try other.supersedes(shard.topology) ? other : shard.topology
            for _ in 1...2 {
                let response = try await client.send(
                    .POST, APIPath.topology, body: ByteBuffer(bytes: try other.json()))
                let settled = try Topology(json: response.body.readableBytesView)
                #expect(settled.epoch == 2 && settled.shards == winner.shards)
            }
        }
    }

    /// They are made and may or may not be on the new leader: that has to be said.
    @Test func writesThatWaitForFollowersLearnThatTheyAreMade() async throws {
        try await shard.withNode(0) { client async throws in
            async let answer = client.put("/kv/a?ack=all&timeout=60s")
            let version = try await eventually("the write is on the leader") {
                let position = try await client.position()
                return position.lsn == 2 ? position.version : nil
            }
            try await waiting(1, client)
            try await promote(client)
            let response = try await answer
            #expect(response.status == 504)
            #expect(response.problem.type == "ack-timeout")
            #expect(response.problem.detail.contains("stopped serving"), "\(response.problem.detail)")
            #expect(response.version == version)
        }
    }

    /// This node must not lead, and does not know yet who does.
    @Test func aFencedLeaderAsksToComeBack() async throws {
        try await shard.withNode(0) { client async throws in
            let fence = FenceRequest(term: 9, candidate: shard.replicas[1])
            let fenced = try await client.send(
                .POST, APIPath.fence(shard: "s0"), body: ByteBuffer(bytes: try DocumentCoding.encode(fence)))
            #expect(fenced.status == 200)
            let before = try await client.position()
            for (method, target) in [
                (HTTPMethod.PUT, "/kv/a"), (.PUT, "/kv/a?ack=all"), (.DELETE, "/kv/a"),
                (.GET, "/kv/a?consistency=leader"),
            ] {
                let response = try await client.send(method, target)
                #expect(response.status == 503, "\(method) \(target)")
                #expect(response.field("retry-after") == "1")
                #expect(response.field("location") == nil)
                #expect(response.problem.type == "unavailable")
                #expect(
                    response.problem.detail.hasPrefix("This node led s0 in term 1, has promised term 9 to another"),
                    "\(response.problem.detail)")
            }
            // Nor does it change who the replicas are.
            let join = try DocumentCoding.encode(MembershipRequest(node: NodeAddress(host: "127.0.0.1", port: 9)))
            for (method, target) in [
                (HTTPMethod.POST, APIPath.replicas(shard: "s0")),
                (.DELETE, APIPath.replica(shard: "s0", node: shard.replicas[1])),
            ] {
                let response = try await client.send(method, target, body: ByteBuffer(bytes: join))
                #expect(response.status == 503 && response.epoch == 1, "\(method) \(target)")
                #expect(response.problem.detail.contains("has promised term 9"))
            }
            #expect(try await client.position() == before)
            #expect(try await client.get("/kv/a").status == 404)
            #expect(try await client.report([(shard.replicas[1], before)]).problem.type == "not-leader")
            #expect(try await client.log().problem.type == "not-leader")
        }
    }
}
