import Configuration
import Core
import DistribKVClient
import Logging
import NIOCore
import NIOHTTP1
import ReplicatorService
import Sharding
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// A leader, a follower that its log cannot feed, and replicators, all of them the real ones.
@Suite struct RebuildTests {
    private static let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private static func withNodes(_ body: (NodeClient, NodeClient) async throws -> Void) async throws {
        let shard = try ScriptedShard(replicas: 2)
        let configure: (inout StorageNodeConfiguration) -> Void = {
            $0.storage.writeBufferBytes = 1 << 20
            $0.replication.logRetentionBytes = 1 << 20
        }
        try await shard.withNode(0, configure) { leader in
            try await shard.withNode(1, configure) { follower in try await body(leader, follower) }
        }
    }

    /// Until the log no longer reaches back to its start, which the ring in memory and the retained log together do
    /// for some 20 MB.
    private static func fill(_ leader: NodeClient) async throws {
        var random = SeededGenerator(seed: 7)
        let value = ByteBuffer(bytes: (0..<200_000).map { _ in UInt8.random(in: 0 ... .max, using: &random) })
        for number in 0..<400 {
            let answer = try await leader.send(.PUT, "/kv/key-\(number)", body: value)
            try #require(answer.status == 204)
            if number % 20 == 0, let first = try await leader.status().logFirstLsn, first > 3 { return }
        }
        throw KVError(.timedOut, "the log still reaches back to its start")
    }

    private static func withReplicator(
        _ leader: NodeClient, _ follower: NodeClient, bytesPerSecondMax: Int? = nil, _ body: () async throws -> Void
    ) async throws {
        let slots = [SlotRange(first: HashSlot(rawValue: 0), last: HashSlot(rawValue: UInt16(HashSlot.count - 1)))]
        let topology = try Topology(
            cluster: "test", epoch: 1,
            shards: [
                ShardTopology(
                    name: "s0", index: 0, term: 1, leader: leader.address, followers: [follower.address], slots: slots)
            ])
        var configuration = ReplicatorConfiguration(
            topology: topology, listen: NodeAddress(host: "127.0.0.1", port: 0), version: "test", logger: quiet)
        configuration.limits.snapshotBytesPerSecondMax = bytesPerSecondMax
        configuration.limits.snapshotRangeBytesMax = 100_000
        configuration.limits.snapshotWatchInterval = .milliseconds(20)
        let replicator = try Replicator(configuration: configuration)
        let running = Task { try await replicator.run() }
        let result: Result<Void, any Error>
        do {
            result = .success(try await body())
        } catch {
            result = .failure(error)
        }
        running.cancel()
        try await running.value
        try result.get()
    }

    private static func waitUntilEqual(_ leader: NodeClient, _ follower: NodeClient) async throws {
        _ = try await eventually("the follower to have everything") {
            try? await follower.position() == leader.position() ? true : nil
        }
        let digests = try await [leader, follower].asyncMap { node in
            let body = ByteBuffer(bytes: try DocumentCoding.encode(DigestRequest(lsn: nil, boundaries: [])))
            let answer = try await node.send(.POST, APIPath.digest(shard: "s0"), body: body)
            return try DocumentCoding.decode(DigestDocument.self, from: answer.body.readableBytesView)
        }
        #expect(digests[0].ranges == digests[1].ranges && digests[0].ranges.contains { $0.keys > 0 })
    }

    /// Every byte was taken once and the snapshot installed once, however many replicators there were.
    private static func expectOneTransfer(_ follower: NodeClient, _ bytesTotal: UInt64) async throws {
        #expect(try await follower.metric("distribkv_snapshot_bytes_received_total") == Double(bytesTotal))
        #expect(try await follower.metric("distribkv_snapshots_installed_total") == 1)
    }

    private static func progress(_ follower: NodeClient) async throws -> SnapshotProgress {
        try await eventually("a snapshot on its way") {
            guard let progress = try await follower.status().snapshot, progress.bytesDone > 0 else { return nil }
            return progress
        }
    }

    @Test(.timeLimit(.minutes(2))) func aFollowerThatTheLogCannotFeedIsRebuiltAndFed() async throws {
        try await Self.withNodes { leader, follower in
            try await Self.fill(leader)
            try await Self.withReplicator(leader, follower) {
                try await Self.waitUntilEqual(leader, follower)
                #expect(try await leader.put("/kv/later").status == 204)
                try await Self.waitUntilEqual(leader, follower)
            }
            #expect(try await follower.metric("distribkv_snapshots_installed_total") == 1)
            #expect(try await leader.metric("distribkv_snapshot_bytes_sent_total") > 1_000_000)
        }
    }

    @Test(.timeLimit(.minutes(2))) func anotherReplicatorGoesOnWhereOneWasStopped() async throws {
        try await Self.withNodes { leader, follower in
            try await Self.fill(leader)
            var before: SnapshotProgress?
            try await Self.withReplicator(leader, follower, bytesPerSecondMax: 4 << 20) {
                before = try await Self.progress(follower)
            }
            let total = try #require(before?.bytesTotal)
            #expect(try await follower.status().snapshot?.bytesTotal == total, "it was done too soon")
            try await Self.withReplicator(leader, follower) { try await Self.waitUntilEqual(leader, follower) }
            try await Self.expectOneTransfer(follower, total)
        }
    }

    @Test(.timeLimit(.minutes(2))) func twoReplicatorsAtOnceDoNoHarm() async throws {
        try await Self.withNodes { leader, follower in
            try await Self.fill(leader)
            try await Self.withReplicator(leader, follower, bytesPerSecondMax: 8 << 20) {
                try await Self.withReplicator(leader, follower, bytesPerSecondMax: 8 << 20) {
                    let total = try await Self.progress(follower).bytesTotal
                    try await Self.waitUntilEqual(leader, follower)
                    try await Self.expectOneTransfer(follower, total)
                    #expect(try await leader.put("/kv/later").status == 204)
                    try await Self.waitUntilEqual(leader, follower)
                }
            }
        }
    }
}

extension Sequence {
    fileprivate func asyncMap<Result>(_ transform: (Element) async throws -> Result) async throws -> [Result] {
        var results: [Result] = []
        for element in self { results.append(try await transform(element)) }
        return results
    }
}
