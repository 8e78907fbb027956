import Core
import DistribKVClient
import Sharding
import Synchronization
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// A node that is to lead a shard starts with an empty directory.
@Suite(.timeLimit(.minutes(2))) struct LostDataTests {
    /// With a follower that has so much.
    private func withEmptyLeader(
        followerLsn lsn: UInt64, _ body: (NodeClient) async throws -> Void
    ) async throws {
        let server = try await ScriptedServer.start { request in
            guard request.target == "/replication/s0/history" else {
                return .answer(.init(404, body: Problem(.unknownPath, "no such path").json))
            }
            let end = LogPosition(term: min(lsn, 1), lsn: lsn, version: Version(rawValue: lsn))
            let starts = lsn == 0 ? [] : [TermStart(term: 1, firstLsn: 1, previousVersion: .zero)]
            let document = HistoryDocument(
                position: PositionDocument(shard: "s0", role: .follower, position: end),
                history: TermHistory(starts: starts, end: end), newestTerm: 1, leaderLastSeen: nil)
            guard let body = try? DocumentCoding.encode(document) else { return .answer(.init(500, body: "")) }
            return .answer(.init(200, body: String(decoding: body, as: UTF8.self)))
        }
        let shard = try ScriptedShard(ports: [try DeafPort()], others: [server.address])
        try await shard.withNode(0, { _ in }, { client async throws in try await body(client) })
        try await server.stop()
    }

    /// Else it would begin the term again at its first batch, and everybody be rebuilt from nothing.
    @Test func doesNotLeadWhereAFollowerHasData() async throws {
        try await withEmptyLeader(followerLsn: 7) { client async throws in
            #expect(try await client.position().lsn == 0)
            #expect(try await client.status().role == .follower)
            let refused = try await client.put("/kv/a")
            #expect(refused.status == 503 && refused.field("retry-after") != nil)
        }
    }

    @Test func leadsWhereNobodyHasAny() async throws {
        try await withEmptyLeader(followerLsn: 0) { client async throws in
            #expect(try await client.put("/kv/a").status == 204)
            #expect(try await client.status().role == .leader)
        }
    }
}
