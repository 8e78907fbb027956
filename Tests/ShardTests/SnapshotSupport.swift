import Core
import FoundationEssentials
import LSM
import NIOCore
import TestSupport
import Testing
import Wire

@testable import Shard

/// A leader with some content, and a place for a follower.
struct SnapshotPair {
    let directory: TemporaryDirectory
    let leader: ShardReplica

    static func open(writes: Int = 200, clock: ShardClock = .system, logRetentionBytes: Int = 1 << 30) async throws
        -> SnapshotPair
    {
        let directory = try TemporaryDirectory()
        for node in ["leader", "follower"] {
            try FileManager.default.createDirectory(
                atPath: "\(directory.path)/\(node)/shards", withIntermediateDirectories: true)
        }
        var configuration = SnapshotPair.configuration(directory, "leader")
        configuration.logRetentionBytes = logRetentionBytes
        let leader = try ShardReplica.openTest(configuration, clock: clock)
        let pair = SnapshotPair(directory: directory, leader: leader)
        try await pair.write(0..<writes)
        return pair
    }

    func write(_ numbers: Range<Int>) async throws {
        for number in numbers { _ = try await leader.write([put("key-\(number)", "value-\(number)")]) }
    }

    static func configuration(_ directory: TemporaryDirectory, _ node: String) -> ShardConfiguration {
        var configuration = ShardConfiguration(
            name: "shard-0", cluster: "test", directory: "\(directory.path)/\(node)/shards/shard-0")
        configuration.durability = .os
        return configuration
    }

    var followerConfiguration: ShardConfiguration { SnapshotPair.configuration(directory, "follower") }

    func openFollower(
        term: UInt64 = 1, clock: ShardClock = .system, change: (inout ShardConfiguration) -> Void = { _ in }
    ) throws -> ShardReplica {
        var configuration = followerConfiguration
        change(&configuration)
        return try ShardReplica.openTest(configuration, role: .follower(term: term), clock: clock)
    }
}

extension ShardReplica {
    /// Carries what is missing of a snapshot from `leader` to this replica, part by part, up to `partsMax` parts.
    @discardableResult
    func take(
        _ manifest: SnapshotManifest, from leader: ShardReplica, partBytes: Int = 10_000, partsMax: Int = .max
    ) throws -> Int {
        var parts = 0
        let (receipt, _) = try beginSnapshot(manifest)
        for (file, has) in zip(manifest.files, receipt.files) {
            var offset = has.received
            while offset < file.bytes {
                guard parts < partsMax else { return parts }
                let part = try leader.readSnapshot(id: manifest.id, file: file.name, offset: offset, length: partBytes)
                let answer = try received.append(
                    part.bytes, to: file.name, at: offset, id: manifest.id, checksum: part.checksum)
                offset += UInt64(part.bytes.readableBytes)
                parts += 1
                #expect(answer.files == [.init(name: file.name, received: offset)])
            }
        }
        return parts
    }

    /// Verifies and installs, and opens the replica anew.
    func install(
        _ id: String, role: ShardRole = .follower(term: 1)
    ) async throws -> (SnapshotInstallation, ShardReplica) {
        let installation = try await installSnapshot(verifySnapshot(id: id))
        return (installation, try ShardReplica.openTest(configuration, role: role))
    }
}

func code(of body: () throws -> Void) -> KVError.Code? {
    do {
        try body()
        return nil
    } catch {
        return (error as? KVError)?.code
    }
}
