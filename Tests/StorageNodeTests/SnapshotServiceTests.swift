import Configuration
import Core
import DistribKVClient
import FoundationEssentials
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Sharding
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// A leader and a follower in this process, and HTTP to them; what a replicator does, the test does.
@Suite struct SnapshotServiceTests {
    private static let shard = "shard-0"
    /// Who they are in the topology; they listen elsewhere, and nobody listens here.
    private static let names = [NodeAddress(host: "127.0.0.1", port: 1), NodeAddress(host: "127.0.0.1", port: 2)]

    private struct Cluster {
        let leader: NodeAddress
        let follower: NodeAddress
        let directory: String
        let connections: NodeConnections

        func send(
            _ method: HTTPMethod, _ target: String, to node: NodeAddress, body: ByteBuffer? = nil,
            headers: [(name: String, value: String)] = []
        ) async throws -> NodeResponse {
            try await connections.execute(
                NodeRequest(method: method, target: target, headers: headers, body: body), to: node,
                deadline: .now() + .seconds(30))
        }

        func document<Document: Decodable>(
            _ type: Document.Type, _ method: HTTPMethod, _ target: String, at node: NodeAddress,
            body: some Encodable
        ) async throws -> Document {
            let response = try await send(
                method, target, to: node, body: ByteBuffer(bytes: try DocumentCoding.encode(body)))
            try #require(response.status == 200, "\(method) \(target): \(String(buffer: response.body))")
            return try DocumentCoding.decode(type, from: response.body.readableBytesView)
        }

        func document<Document: Decodable>(
            _ type: Document.Type, _ method: HTTPMethod, _ target: String, at node: NodeAddress
        ) async throws -> Document {
            let response = try await send(method, target, to: node)
            try #require(response.status == 200, "\(method) \(target): \(String(buffer: response.body))")
            return try DocumentCoding.decode(type, from: response.body.readableBytesView)
        }

        func status(_ node: NodeAddress) async throws -> StorageNodeStatus.Shard {
            try #require(try await document(StorageNodeStatus.self, .GET, APIPath.status, at: node).shards.first)
        }

        func push(
            _ part: NodeResponse, to file: String, at offset: UInt64, id: String, checksum: String? = nil
        ) async throws -> NodeResponse {
            let checksum = try #require(checksum ?? part.headers.first(name: KVHeader.checksum))
            return try await send(
                .PUT, "\(APIPath.receivedFile(shard: shard, file: file))?id=\(id)&offset=\(offset)", to: follower,
                body: part.body, headers: [(KVHeader.checksum, checksum)])
        }

        func read(_ file: String, of id: String, at offset: UInt64, _ length: Int) async throws -> NodeResponse {
            let path = APIPath.snapshotFile(shard: shard, id: id, file: file)
            return try await send(.GET, "\(path)?offset=\(offset)&length=\(length)", to: leader)
        }

        /// Carries the whole snapshot over.
        func carry(_ manifest: SnapshotManifest, partBytes: Int = 100_000) async throws {
            for file in manifest.files {
                var offset: UInt64 = 0
                while offset < file.bytes {
                    let part = try await read(file.name, of: manifest.id, at: offset, partBytes)
                    try #require(part.status == 200)
                    let answer = try await push(part, to: file.name, at: offset, id: manifest.id)
                    try #require(answer.status == 200, "\(String(buffer: answer.body))")
                    offset += UInt64(part.body.readableBytes)
                }
            }
        }
    }

    private static func withCluster(_ body: @Sendable (Cluster) async throws -> Void) async throws {
        let directory = try TemporaryDirectory()
        let topology = try Topology.placing(
            cluster: "test", epoch: 1,
            shards: [ShardPlacement(name: shard, index: 0, leader: names[0], followers: [names[1]])])
        let connections = NodeConnections(group: MultiThreadedEventLoopGroup.singleton)
        try await withThrowingTaskGroup(of: Void.self) { group in
            var listens: [NodeAddress] = []
            for (index, name) in names.enumerated() {
                var storage = StorageSettings()
                storage.durability = .os
                storage.blockCacheBytes = 8 << 20
                storage.writeBufferBytes = 8 << 20
                let configuration = StorageNodeConfiguration(
                    topology: topology, address: name, listen: NodeAddress(host: "127.0.0.1", port: 0),
                    dataDirectory: "\(directory.path)/n\(index)", storage: storage, eventLoopThreads: 1,
                    logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
                let (started, start) = AsyncStream.makeStream(of: NodeAddress.self)
                let node = StorageNode(configuration: configuration) { address in
                    start.yield(address)
                    start.finish()
                }
                group.addTask {
                    defer { start.finish() }
                    try await node.run()
                }
                listens.append(try #require(await started.first { _ in true }))
            }
            try await body(
                Cluster(
                    leader: listens[0], follower: listens[1], directory: directory.path, connections: connections))
            group.cancelAll()
            try await group.waitForAll()
        }
        await connections.shutdown()
    }

    private static func fill(_ cluster: Cluster, _ numbers: Range<Int>) async throws {
        for number in numbers {
            var random = SeededGenerator(seed: UInt64(number))
            let value = ByteBuffer(bytes: (0..<2_000).map { _ in UInt8.random(in: 0 ... .max, using: &random) })
            let answer = try await cluster.send(.PUT, "/kv/key-\(number)", to: cluster.leader, body: value)
            try #require(answer.status == 204, "\(String(buffer: answer.body))")
        }
    }

    @Test(.timeLimit(.minutes(2))) func aRunningFollowerIsRebuilt() async throws {
        try await SnapshotServiceTests.withCluster { cluster in
            let shard = SnapshotServiceTests.shard
            try await SnapshotServiceTests.fill(cluster, 0..<300)
            let manifest = try await cluster.document(
                SnapshotManifest.self, .POST, APIPath.snapshots(shard: shard), at: cluster.leader)
            #expect(manifest.files.reduce(0) { $0 + $1.bytes } > 100_000)
            let begun = try await cluster.document(
                SnapshotReceipt.self, .POST, APIPath.receivedSnapshot(shard: shard), at: cluster.follower,
                body: manifest)
            #expect(begun.files.map(\.name) == manifest.files.map(\.name))
            try await cluster.carry(manifest)
            let received = try await cluster.document(
                SnapshotReceipt.self, .GET, APIPath.receivedSnapshot(shard: shard), at: cluster.follower)
            #expect(received.files.map(\.received) == manifest.files.map(\.bytes))
            let progress = try #require(try await cluster.status(cluster.follower).snapshot)
            #expect(progress.bytesDone == manifest.bytesTotal && progress.bytesTotal == manifest.bytesTotal)

            let installed = try await cluster.document(
                PositionDocument.self, .POST, "\(APIPath.installSnapshot(shard: shard))?id=\(manifest.id)",
                at: cluster.follower)
            #expect(try installed.position == manifest.position.position)
            #expect(installed.role == .follower)
            let after = try await cluster.status(cluster.follower)
            #expect(after.lsn == manifest.position.lsn && after.snapshot == nil && after.diverged == nil)
            for number in [0, 150, 299] {
                let answer = try await cluster.send(.GET, "/kv/key-\(number)", to: cluster.leader)
                #expect(answer.status == 200)
            }
            // It goes on from the log, as a replicator would have it.
            try await SnapshotServiceTests.fill(cluster, 300..<310)
            let position = try installed.position
            let log = try await cluster.send(
                .GET,
                "\(APIPath.wal(shard: shard))?term=\(position.term)&lsn=\(position.lsn)"
                    + "&version=\(position.version.hexDigits)", to: cluster.leader)
            #expect(log.status == 200)
            let pushed = try await cluster.send(
                .POST, APIPath.batches(shard: shard), to: cluster.follower, body: log.body,
                headers: [(KVHeader.term, "1")])
            #expect(pushed.status == 200, "\(String(buffer: pushed.body))")
            #expect(try await cluster.status(cluster.follower).lsn == cluster.status(cluster.leader).lsn)

            let released = try await cluster.send(
                .DELETE, APIPath.snapshot(shard: shard, id: manifest.id), to: cluster.leader)
            #expect(released.status == 204)
            let gone = try await cluster.read("CURRENT", of: manifest.id, at: 0, 10)
            #expect(gone.status == 404)
            let metrics = try await cluster.send(.GET, APIPath.metrics, to: cluster.follower)
            let text = String(buffer: metrics.body)
            #expect(text.contains("distribkv_snapshots_installed_total 1"))
            #expect(text.contains("distribkv_snapshot_bytes_received_total \(manifest.bytesTotal)"))
        }
    }

    @Test(.timeLimit(.minutes(2))) func whatDoesNotFitIsRefused() async throws {
        try await SnapshotServiceTests.withCluster { cluster in
            let shard = SnapshotServiceTests.shard
            try await SnapshotServiceTests.fill(cluster, 0..<20)
            func problem(_ response: NodeResponse) -> String {
                struct Document: Decodable { var type: String }
                do {
                    return try DocumentCoding.decode(Document.self, from: response.body.readableBytesView).type
                } catch {
                    return "\(response.status)"
                }
            }
            let received = APIPath.receivedSnapshot(shard: shard)
            #expect(
                problem(try await cluster.send(.POST, APIPath.snapshots(shard: shard), to: cluster.follower))
                    == "not-leader")
            #expect(problem(try await cluster.send(.GET, received, to: cluster.follower)) == "unknown-snapshot")
            #expect(problem(try await cluster.send(.DELETE, received, to: cluster.follower)) == "unknown-snapshot")
            #expect(problem(try await cluster.send(.PUT, received, to: cluster.follower)) == "method-not-allowed")
            #expect(
                problem(try await cluster.send(.POST, received, to: cluster.follower, body: ByteBuffer(string: "{}")))
                    == "bad-request")
            #expect(
                problem(try await cluster.send(.POST, "/replication/none/snapshots", to: cluster.leader))
                    == "unknown-shard")

            let manifest = try await cluster.document(
                SnapshotManifest.self, .POST, APIPath.snapshots(shard: shard), at: cluster.leader)
            let body = ByteBuffer(bytes: try DocumentCoding.encode(manifest))
            #expect(problem(try await cluster.send(.POST, received, to: cluster.leader, body: body)) == "stale-term")
            for name in ["..%2F..%2FIDENTITY", "none", "%00"] {
                #expect(problem(try await cluster.read(name, of: manifest.id, at: 0, 10)) == "unknown-snapshot")
            }
            #expect(problem(try await cluster.read("CURRENT", of: "..", at: 0, 10)) == "unknown-snapshot")
            #expect(problem(try await cluster.read("CURRENT", of: manifest.id, at: 0, 5 << 20)) == "bad-request")

            _ = try await cluster.document(
                SnapshotReceipt.self, .POST, received, at: cluster.follower, body: manifest)
            let part = try await cluster.read("CURRENT", of: manifest.id, at: 0, 10)
            #expect(
                problem(try await cluster.push(part, to: "CURRENT", at: 0, id: manifest.id, checksum: "00000000"))
                    == "bad-request")
            #expect(problem(try await cluster.push(part, to: "CURRENT", at: 5, id: manifest.id)) == "snapshot-mismatch")
            #expect(problem(try await cluster.push(part, to: "OTHER", at: 0, id: manifest.id)) == "snapshot-mismatch")
            #expect(problem(try await cluster.push(part, to: "CURRENT", at: 0, id: "other")) == "unknown-snapshot")
            var large = part
            large.body = ByteBuffer(repeating: 0, count: 5 << 20)
            #expect(try await cluster.push(large, to: "CURRENT", at: 0, id: manifest.id).status == 413)
            #expect(
                problem(
                    try await cluster.send(
                        .POST, "\(APIPath.installSnapshot(shard: shard))?id=\(manifest.id)", to: cluster.follower))
                    == "snapshot-mismatch")
            // It was refused, and nothing is out of service.
            let state = try await cluster.status(cluster.follower)
            #expect(state.state == .joining && state.failure == nil)
            let given = try await cluster.send(.DELETE, "\(received)?id=\(manifest.id)", to: cluster.follower)
            #expect(given.status == 200)
        }
    }
}
