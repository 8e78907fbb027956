import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// Checksums of a replica's content over HTTP.
@Suite(.timeLimit(.minutes(2))) struct DigestServiceTests {
    private let shard: ScriptedShard

    init() throws { shard = try ScriptedShard(replicas: 2) }

    private func ask(
        _ node: NodeClient, lsn: UInt64? = nil, _ boundaries: [String]? = nil
    ) async throws -> NodeResponse {
        let body = try DocumentCoding.encode(DigestRequest(lsn: lsn, boundaries: boundaries))
        return try await node.send(.POST, APIPath.digest(shard: "s0"), body: ByteBuffer(bytes: body))
    }

    private func digest(_ response: NodeResponse) throws -> DigestDocument {
        try DocumentCoding.decode(DigestDocument.self, from: response.body.readableBytesView)
    }

    @Test func replicasAreCompared() async throws {
        try await shard.withNode(0) { leader in
            try await shard.withNode(1) { follower in
                for number in 0..<40 { #expect(try await leader.put("/kv/a%20\(number)").status == 204) }
                #expect(try await follower.push(try await leader.log()).status == 200)
                let position = try await leader.position()
                let mine = try digest(try await ask(leader, lsn: position.lsn, ["a%2020", "b"]))
                #expect(mine.ranges.map(\.start) == ["", "a%2020", "b"])
                #expect(mine.ranges.map(\.keys) == [13, 27, 0])
                #expect(try mine.position.position == position && mine.position.role == .leader)
                let theirs = try digest(try await ask(follower, lsn: position.lsn, ["a%2020", "b"]))
                #expect(theirs.ranges == mine.ranges)
                #expect(try theirs.position.position == position && theirs.position.role == .follower)
                // As many ranges as it likes, where it stands.
                let chosen = try digest(try await ask(follower))
                #expect(chosen.ranges.reduce(0) { $0 + $1.keys } == 40)
            }
        }
    }

    @Test func whatCannotBeAnswered() async throws {
        try await shard.withNode(0) { node in
            #expect(try await node.put("/kv/a").status == 204)
            let past = try await ask(node, lsn: 1)
            #expect(past.status == 409 && past.problem.type == "log-mismatch", "\(past.problem)")
            for boundaries in [["b", "a"], ["%zz"]] {
                let bad = try await ask(node, boundaries)
                #expect(bad.status == 400 && bad.problem.type == "bad-request", "\(bad.problem)")
            }
            let empty = try await node.send(.POST, APIPath.digest(shard: "s0"), body: ByteBuffer(string: "none"))
            #expect(empty.status == 400)
            let get = try await node.send(.GET, APIPath.digest(shard: "s0"))
            #expect(get.status == 405 && get.field("allow") == "POST")
            let unknown = try await node.send(
                .POST, APIPath.digest(shard: "other"), body: ByteBuffer(string: "{}"))
            #expect(unknown.status == 404 && unknown.problem.type == "unknown-shard", "\(unknown.problem)")
        }
    }
}
