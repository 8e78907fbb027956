import Core
import DistribKVClient
import FoundationEssentials
import NIOCore
import NIOHTTP1
import Sharding
import Synchronization
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// A promotion was begun elsewhere, has taken the followers' promises, and never came to its end.
@Suite(.timeLimit(.minutes(2))) struct TermRenewalTests {
    /// A replica that has promised term 9 and does what is asked of it.
    private final class Follower: Sendable {
        struct State {
            var topology: Topology?
            var newest: (term: UInt64, candidate: NodeAddress?) = (1, nil)
            var fences: [FenceRequest] = []
        }

        let state = Mutex(State())

        func answer(_ request: ScriptedServer.Request) -> ScriptedServer.Action {
            do {
                return try state.withLock { try .answer(answer(request, &$0)) }
            } catch {
                return .answer(.init(500, body: "\(error)"))
            }
        }

        private func answer(_ request: ScriptedServer.Request, _ state: inout State) throws -> ScriptedServer.Answer {
            switch (request.method, request.target) {
            case (.POST, "/topology"):
                let shown = try Topology(json: request.body.utf8)
                if try state.topology.map({ try shown.supersedes($0) }) ?? true { state.topology = shown }
                fallthrough
            case (.GET, "/topology"):
                return .init(200, body: String(decoding: try state.topology?.json() ?? [], as: UTF8.self))
            case (.POST, "/replication/s0/fence"):
                let fence = try DocumentCoding.decode(FenceRequest.self, from: request.body.utf8)
                guard fence.term > state.newest.term else {
                    return .init(409, body: Problem(.staleTerm, "term \(state.newest.term) is promised").json)
                }
                state.fences.append(fence)
                state.newest = (fence.term, fence.candidate)
                fallthrough
            case (.GET, "/replication/s0/history"):
                let document = HistoryDocument(
                    position: PositionDocument(shard: "s0", role: .follower, position: .start),
                    history: TermHistory(starts: [], end: .start), newestTerm: state.newest.term,
                    promisedTo: state.newest.candidate, leaderLastSeen: nil)
                return .init(200, body: String(decoding: try DocumentCoding.encode(document), as: UTF8.self))
            default: return .init(404, body: Problem(.unknownPath, "no such path").json)
            }
        }
    }

    /// The leader, a candidate that nobody finds, and a follower.
    private func withLeader(
        of count: Int, _ body: (NodeClient, ScriptedShard, Follower) async throws -> Void
    ) async throws {
        let follower = Follower()
        let server = try await ScriptedServer.start { follower.answer($0) }
        let ports = try (0..<count).map { _ in try DeafPort() }
        let shard = try ScriptedShard(ports: ports, others: [server.address])
        follower.state.withLock { $0.topology = shard.topology }
        try await shard.withNode(
            0,
            {
                $0.termRenewal.intervalMilliseconds = 20
                $0.termRenewal.silenceMilliseconds = 200
                $0.termRenewal.patience = .init(promotionMilliseconds: 100, silenceMilliseconds: 200)
            },
            { client async throws in try await body(client, shard, follower) })
        try await server.stop()
    }

    private func promise(_ term: UInt64, to candidate: NodeAddress, _ follower: Follower) {
        follower.state.withLock { $0.newest = (term, candidate) }
    }

    @Test func theLeaderLeadsOnAndLosesNothing() async throws {
        try await withLeader(of: 2) { client, shard, follower in
            let address = shard.topology.shards[0].followers[1]
            async let waiting = client.put("/kv/a?ack=2&timeout=60s")
            _ = try await eventually("the write is there") { try await client.position().lsn == 2 ? true : nil }
            promise(9, to: shard.replicas[1], follower)
            let term = shard.topology.shards[0].nextTerm(of: shard.replicas[0], above: 9)
            let begun = try await eventually("it leads on") {
                let position = try await client.position()
                return position.term == term ? position : nil
            }
            #expect(begun.lsn == 3, "the barrier of the term, after all that was written")
            #expect(try await client.put("/kv/b").status == 204)
            // Who waited in the term before is answered in this one.
            let position = try await client.position()
            #expect(try await client.report([(address, position)]).status == 204)
            #expect(try await waiting.status == 204)
            let shown = try await eventually("the topology is spread") {
                follower.state.withLock { $0.topology?.epoch == term ? $0.topology : nil }
            }
            #expect(shown.shards[0].leader == shard.replicas[0] && shown.shards[0].term == term)
            #expect(
                follower.state.withLock { $0.fences } == [FenceRequest(term: term, candidate: shard.replicas[0])])
        }
    }

    /// It was promoted after all, and only the follower has heard of it.
    @Test func aNewerTopologyThatNamesAnotherIsGoneBy() async throws {
        try await withLeader(of: 2) { client, shard, follower in
            let other = try shard.topology.promoting(shard.replicas[1], in: "s0", above: 8)
            follower.state.withLock { $0.topology = other }
            promise(other.epoch, to: shard.replicas[1], follower)
            _ = try await eventually("it follows") {
                try await client.status().role == .follower ? true : nil
            }
            let response = try await client.put("/kv/a")
            #expect(response.status == 307 && response.epoch == other.epoch)
            #expect(follower.state.withLock { $0.fences } == [])
        }
    }

    /// Its own promise keeps it from leading; the candidate says that it does not lead either.
    @Test func aFencedLeaderTakesWritesAgain() async throws {
        try await withLeader(of: 1) { client, shard, follower in
            let candidate = shard.topology.shards[0].followers[0]
            promise(9, to: candidate, follower)
            let fence = FenceRequest(term: 9, candidate: candidate)
            let fenced = try await client.send(
                .POST, APIPath.fence(shard: "s0"), body: ByteBuffer(bytes: try DocumentCoding.encode(fence)))
            #expect(fenced.status == 200)
            let term = shard.topology.shards[0].nextTerm(of: shard.replicas[0], above: 9)
            _ = try await eventually("it takes writes") {
                let response = try await client.put("/kv/a")
                return response.status == 204 && response.epoch == term ? true : nil
            }
            #expect(try await client.position().term == term)
        }
    }
}
