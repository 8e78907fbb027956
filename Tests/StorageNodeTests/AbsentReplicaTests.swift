import Core
import DistribKVClient
import FoundationEssentials
import NIOCore
import NIOHTTP1
import Shard
import Sharding
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// A replica that does not open is absent, with its reason, and its node serves the others.
@Suite(.timeLimit(.minutes(2))) struct AbsentReplicaTests {
    /// A key of each shard.
    private func keys(_ topology: Topology) -> [String] {
        topology.shards.indices.compactMap { position in
            (0..<10_000).lazy.map { "key-\($0)" }.first {
                topology.position(of: HashSlot(key: Array($0.utf8))) == position
            }
        }
    }

    /// Writes a key of each shard, damages `s0` while the node is down, and runs `body` with the node started again.
    private func withDamage(
        to file: String, shards: Int, _ body: (NodeClient, _ keys: [String], Topology) async throws -> Void
    ) async throws {
        let directory = try TemporaryDirectory()
        let shard = try ScriptedShard(shards: shards)
        let keys = keys(shard.topology)
        try #require(keys.count == shards)
        try await shard.withNode(0, { $0.dataDirectory = directory.path }) { client async throws in
            for key in keys { #expect(try await client.put("/kv/\(key)").status == 204) }
        }
        let path = "\(directory.path)/shards/s0/\(file)"
        try Data("damage".utf8).write(to: URL(filePath: path))
        try await shard.withNode(0, { $0.dataDirectory = directory.path }) { client async throws in
            try await body(client, keys, shard.topology)
        }
    }

    @Test(arguments: ["db/CURRENT", "FENCE"]) func theOthersServe(file: String) async throws {
        try await withDamage(to: file, shards: 3) { client, keys, topology async throws in
            for key in keys.dropFirst() {
                #expect(try await client.get("/kv/\(key)").status == 200)
                #expect(try await client.put("/kv/\(key)").status == 204)
            }
            try await expectAbsence(client, keys[0])
            let status = try await client.document(StorageNodeStatus.self, APIPath.status)
            #expect(status.shards.map(\.state) == [.failed, .leading, .leading])

            // A newer topology, of whatever roles, does not have it opened again.
            let next = try makeTopology(
                epoch: 2,
                [(2, [n2] + topology.shards[0].replicas)] + topology.shards[1...].map { ($0.term, $0.replicas) })
            let shown = try await client.send(
                .POST, APIPath.topology, [(name: "content-type", value: MediaType.json)],
                body: ByteBuffer(bytes: try next.json()))
            #expect(shown.status == 200)
            #expect(try await client.get("/kv/\(keys[0])").status == 307, "its leader is another node now")
            #expect(try await client.status().state == .failed)
            #expect(try await client.get("/kv/\(keys[1])").status == 200)
            #expect(try await client.send(.GET, APIPath.metrics).status == 200)
        }
    }

    @Test func theOnlyOneToo() async throws {
        try await withDamage(to: "db/CURRENT", shards: 1) { client, keys, _ async throws in
            try await expectAbsence(client, keys[0])
            #expect(try await client.send(.GET, APIPath.healthz).status == 200)
        }
    }

    private func expectAbsence(_ client: NodeClient, _ key: String) async throws {
        for answer in [
            try await client.get("/kv/\(key)"), try await client.put("/kv/\(key)"),
            try await client.send(.GET, APIPath.readyz),
            try await client.send(.GET, APIPath.position(shard: "s0")),
        ] {
            let text = String(buffer: answer.body)
            #expect(answer.status == 503 && text.contains("not open") && text.contains("s0"), "\(text)")
        }
        let status = try await client.status()
        #expect(status.state == .failed && status.failure?.contains("not open") == true)
    }

    /// A directory of another shard is a mistake of the operator, which the node must not make the best of.
    @Test func aForeignDirectoryStopsTheNode() async throws {
        let error = await #expect(throws: KVError.self) {
            try await withDamage(to: "IDENTITY", shards: 2) { _, _, _ async throws in }
        }
        #expect(error?.code == .invalidConfiguration)
    }
}
