import Core
import FoundationEssentials
import LSM
import NIOCore
import TestSupport
import Testing
import Wire

@testable import Shard

@Suite struct ShardLogTests {
    /// Frames with the bytes that matter.
    private func summary(_ frames: [LogFrame]) -> [String] {
        frames.map { "\($0.position) \($0.position.version) \(Array($0.batch.readableBytesView))" }
    }

    private func fill(_ replica: ShardReplica, _ batches: Int, valueBytes: Int = 100) async throws {
        for index in 0..<batches {
            _ = try await replica.write([
                put("key-\(index % 50)", String(repeating: "v", count: valueBytes)), delete("key-\(index % 7)"),
            ])
        }
    }

    @Test func ringDiskAndRestartGiveTheSameBytes() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        let replica = try ShardReplica.openTest(configuration)
        try await fill(replica, 300)
        let fromRing = try replica.readAll(fromDisk: false)
        #expect(fromRing.count == 301)
        let position = replica.position
        try await replica.close()
        // An empty ring after the restart: everything from the write-ahead log.
        configuration.ringBytesMax = 1_000
        let again = try ShardReplica.openTest(configuration)
        guard case .needsDisk = again.log.readFromMemory(after: .start, bytesMax: 1 << 20) else {
            Issue.record("the ring cannot have it")
            return
        }
        for bytesMax in [1, 700, 1 << 20] {
            let fromDisk = try again.readAll(bytesMax: bytesMax)
            #expect(summary(fromDisk) == summary(fromRing))
        }
        #expect(again.position == position)
        // From every place in the middle.
        for index in stride(from: 0, to: 300, by: 37) {
            let rest = try again.readAll(after: fromRing[index].position)
            #expect(summary(rest) == summary(Array(fromRing[(index + 1)...])))
        }
        guard case .caughtUp(let end) = again.log.readFromMemory(after: position, bytesMax: 1) else {
            Issue.record("the reader has everything")
            return
        }
        #expect(end == position)
        try await again.close()
    }

    @Test func rotationIsCrossed() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.memtableBytesEach = 64 << 10
        configuration.ringBytesMax = 4_000
        let replica = try ShardReplica.openTest(configuration)
        var position = LogPosition.start
        var read = 0
        for _ in 0..<20 {
            try await fill(replica, 40, valueBytes: 1_000)
            // A reader that comes back now and then, over logs rotated meanwhile.
            let frames = try replica.readAll(after: position, bytesMax: 10_000)
            read += frames.count
            position = try #require(frames.last?.position)
        }
        #expect(read == 801 && position == replica.position)
        #expect(try replica.readAll().count == 801)
        try await replica.close()
    }

    @Test func aReaderNeverSeesBeyondTheCommitted() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.ringBytesMax = 0
        let replica = try ShardReplica.openTest(configuration)
        try await fill(replica, 10)
        // Written behind the writer's back: in the write-ahead log, not committed.
        var builder = WriteBatchBuilder()
        builder.putPosition(
            LogPosition(term: 1, lsn: replica.position.lsn + 1, version: Version(rawValue: .max)))
        try builder.finish().withUnsafeReadableBytes { try replica.database.write($0, sync: false) }
        #expect(try replica.readAll().last?.position == replica.position)
        try await replica.close()
    }

    @Test func truncatedLogIsReported() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.ringBytesMax = 1_000
        let replica = try ShardReplica.openTest(configuration)
        var positions: [LogPosition] = []
        for _ in 0..<5 {
            try await fill(replica, 20, valueBytes: 1_000)
            positions.append(replica.position)
            try replica.database.flush()
        }
        try replica.database.trimArchivedLogs(keepingBytes: 50_000)
        for reader in [LogPosition.start, positions[0]] {
            guard case .truncated(let first) = try replica.log.readFromDisk(after: reader, bytesMax: 1_000) else {
                Issue.record("the log does not reach back to \(reader)")
                return
            }
            #expect(first > positions[1].lsn && first <= positions[3].lsn)
            #expect(replica.log.firstLsn == first)
        }
        #expect(try replica.readAll(after: positions[3]).count == 20)
        try await replica.close()
    }

    /// Whatever is asked for, what is missing in the middle of the log is never skipped.
    @Test func aHoleIsFoundAndNotSkipped() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.ringBytesMax = 1_000
        let replica = try ShardReplica.openTest(configuration)
        var ends: [LogPosition] = []
        for _ in 0..<5 {
            try await fill(replica, 20, valueBytes: 1_000)
            ends.append(replica.position)
            try replica.database.flush()
        }
        let frames = try replica.readAll()
        let archive = configuration.directory + "/db/archive"
        let files = try FileManager.default.contentsOfDirectory(atPath: archive).filter { $0.hasSuffix(".log") }
            .sorted()
        try #require(files.count == 5)
        try FileManager.default.removeItem(atPath: archive + "/" + files[2])

        // From before the hole: everything up to it, then the place where the log goes on.
        var reader = LogPosition.start
        while case .frames(_, let last) = try replica.log.readFromDisk(after: reader, bytesMax: 3_000) { reader = last }
        #expect(reader == ends[1])
        let inside = try #require(frames.first { $0.position.lsn == ends[1].lsn + 7 }).position
        for position in [reader, inside, ends[2]] {
            guard case .truncated(let first) = try replica.log.readFromDisk(after: position, bytesMax: 3_000) else {
                Issue.record("lsn \(position.lsn) cannot be continued")
                return
            }
            #expect(first == ends[2].lsn + 1)
        }
        #expect(try replica.readAll(after: ends[3]).last?.position == replica.position)
        try await replica.close()

        // The newest files gone, while the tables have their content.
        for file in try FileManager.default.contentsOfDirectory(atPath: archive).sorted().dropFirst(2) {
            try FileManager.default.removeItem(atPath: archive + "/" + file)
        }
        let again = try ShardReplica.openTest(configuration)
        #expect(again.position == ends[4])
        for position in [ends[1], ends[3]] {
            guard case .truncated(let first) = try again.log.readFromDisk(after: position, bytesMax: 3_000) else {
                Issue.record("lsn \(position.lsn) cannot be continued")
                return
            }
            #expect(first == ends[4].lsn + 1)
        }
        try await again.close()
    }

    @Test func theRetentionTrimsByItself() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.logRetentionBytes = 4 << 20
        configuration.memtableBytesEach = 1 << 20
        configuration.ringBytesMax = 1_000
        let replica = try ShardReplica.openTest(configuration)
        let value = String(repeating: "v", count: 100_000)
        for index in 0..<500 { _ = try await replica.write([put("key-\(index % 10)", value)]) }
        let first = try #require(try replica.log.lookUpFirstLsn())
        #expect(first > 200, "50 MB were written and 4 MiB, and what is checked every 16, kept")
        #expect(try replica.database.sizes().logBytes < 30 << 20)
        try await replica.close()
    }

    @Test func anotherHistoryIsFoundOut() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        for ringBytesMax in [1 << 20, 0] {
            configuration.ringBytesMax = ringBytesMax
            configuration.directory = directory.path + "/ring-\(ringBytesMax)"
            let replica = try ShardReplica.openTest(configuration, role: .leader(term: 2))
            try await fill(replica, 10)
            let committed = replica.position
            let middle = try replica.readAll()[5].position
            var strangers = [
                LogPosition(term: 2, lsn: committed.lsn + 1, version: Version(rawValue: .max)),
                LogPosition(term: 3, lsn: 4, version: middle.version),
                LogPosition(term: 2, lsn: committed.lsn, version: middle.version),
            ]
            strangers.append(LogPosition(term: 1, lsn: middle.lsn, version: middle.version))
            strangers.append(LogPosition(term: 2, lsn: middle.lsn, version: Version(rawValue: 1)))
            for stranger in strangers {
                guard case .diverged = try replica.log.readFromDisk(after: stranger, bytesMax: 1_000) else {
                    Issue.record("\(stranger) \(stranger.version) is none of ours, ring \(ringBytesMax)")
                    return
                }
            }
            guard case .frames = try replica.log.readFromDisk(after: middle, bytesMax: 1_000) else {
                Issue.record("\(middle) is ours")
                return
            }
            try await replica.close()
        }
    }

    @Test func anLsnIsFoundAmongManyRecords() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.ringBytesMax = 1_000
        configuration.memtableBytesEach = 1 << 20
        configuration.batchOperationsMax = 4_096
        var positions: [LogPosition] = []
        do {
            let replica = try ShardReplica.openTest(configuration)
            // Uneven: small batches, then large ones, then small ones.
            for round in 0..<900 {
                let operations = (0..<(round / 300 == 1 ? 1_000 : 2)).map { put("key-\($0)", "v") }
                positions.append(try await replica.write(operations).position)
            }
            try await replica.close()
        }
        // A restart: no index in memory.
        let replica = try ShardReplica.openTest(configuration)
        for index in stride(from: 0, to: 890, by: 49) {
            guard
                case .frames(var buffer, _) = try replica.log.readFromDisk(after: positions[index], bytesMax: 1)
            else {
                Issue.record("lsn \(positions[index].lsn) has followers")
                return
            }
            #expect(try LogFrame.decode(from: &buffer)?.position == positions[index + 1])
        }
        try await replica.close()
    }
}
