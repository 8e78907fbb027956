import Core
import FoundationEssentials
import LSM
import NIOCore
import TestSupport
import Testing
import Wire

@testable import Shard

/// A real log with `always`, damaged as a loss of power during the last write damages it.
@Suite struct TornRecordTests {
    private static let page = 4_096

    /// A replica's directory as killed after a last write that nobody was told of, and where that write is in the
    /// newest log.
    private struct Crash {
        var configuration: ShardConfiguration
        var before: LogPosition
        var log: String
        /// The last record, and the one before it.
        var last: Range<Int>
        var previous: Range<Int>

        func damage(_ body: (inout [UInt8]) -> Void) throws {
            var bytes = Array(try #require(FileManager.default.contents(atPath: log)))
            body(&bytes)
            try Data(bytes).write(to: URL(filePath: log))
        }
    }

    private func crash(_ directory: TemporaryDirectory, lastBytes: Int, previousBytes: Int = 9_000) async throws
        -> Crash
    {
        var generator = SeededGenerator(seed: 9)
        var configuration = ShardConfiguration.test(directory)
        configuration.durability = .always
        let replica = try ShardReplica.openTest(configuration)
        func write(_ key: String, _ count: Int) async throws {
            let value = ByteBuffer(bytes: generator.bytes(count))
            let receipt = try await replica.write([.put(key: ByteBuffer(string: key), value: value)])
            #expect(receipt.failure == nil)
        }
        let database = configuration.directory + "/db"
        let name = try #require(
            try FileManager.default.contentsOfDirectory(atPath: database).filter { $0.hasSuffix(".log") }.max())
        func size() throws -> Int { try #require(FileManager.default.contents(atPath: "\(database)/\(name)")).count }
        for index in 0..<20 { try await write("key-\(index)", 700) }
        let first = try size()
        try await write("previous", previousBytes)
        let second = try size()
        let before = replica.position
        try await write("last", lastBytes)
        var copy = configuration
        copy.directory += "-crashed"
        try FileManager.default.copyItem(atPath: configuration.directory, toPath: copy.directory)
        let end = try size()
        try await replica.close()
        return Crash(
            configuration: copy, before: before, log: "\(copy.directory)/db/\(name)", last: second..<end,
            previous: first..<second)
    }

    /// Which pages of the last record are missing, of how many bytes.
    enum Missing: Sendable, CaseIterable {
        case first, middle, last, allButTheLast, all
    }

    @Test(arguments: Missing.allCases, [300, 10_000, 100_000])
    func theLastRecordIsDropped(missing: Missing, bytes: Int) async throws {
        let directory = try TemporaryDirectory()
        let crash = try await crash(directory, lastBytes: bytes)
        // Pieces of the record by page of the file.
        var pieces: [Range<Int>] = []
        var start = crash.last.lowerBound
        while start < crash.last.upperBound {
            let end = min(crash.last.upperBound, (start / TornRecordTests.page + 1) * TornRecordTests.page)
            pieces.append(start..<end)
            start = end
        }
        try crash.damage { bytes in
            let zeroed =
                switch missing {
                case .first: pieces[..<1]
                case .middle: pieces[(pieces.count / 2)...].prefix(1)
                case .last: pieces.suffix(1)
                case .allButTheLast: pieces.count > 1 ? pieces.dropLast() : pieces[...]
                case .all: pieces[...]
                }
            for piece in zeroed { for index in piece { bytes[index] = 0 } }
        }
        // In the same run of the machine no page can be missing.
        let error = #expect(throws: KVError.self) { _ = try ShardReplica.openTest(crash.configuration) }
        #expect(error?.code == .corrupted)
        try SyncedMark.change(in: crash.configuration) { $0.boot = "another" }
        let replica = try ShardReplica.openTest(crash.configuration)
        #expect(replica.position == crash.before)
        // What was dropped is kept.
        let dropped = try FileManager.default.contentsOfDirectory(atPath: crash.configuration.directory + "/dropped")
        #expect(dropped.map { $0.hasSuffix("-\(crash.last.lowerBound)") } == [true])
        #expect(try replica.content().count == 21 && !replica.content().contains { $0.hasPrefix("last ") })
        let receipt = try await replica.write([put("last", "again")])
        #expect(receipt.position.lsn == crash.before.lsn + 1)
        let content = try replica.content()
        try await replica.close()
        let again = try ShardReplica.openTest(crash.configuration)
        #expect(try again.content() == content && again.position == receipt.position)
        try await again.close()
    }

    /// Damage that no write of one record leaves: refused, and undone, everything is there.
    @Test func otherDamageIsRefused() async throws {
        let directory = try TemporaryDirectory()
        let crash = try await crash(directory, lastBytes: 10_000)
        let middle = (crash.previous.lowerBound / TornRecordTests.page + 1) * TornRecordTests.page
        try SyncedMark.change(in: crash.configuration) { $0.boot = "another" }
        let damages: [(String, (inout [UInt8]) -> Void)] = [
            ("a flipped bit in the last record", { $0[crash.last.lowerBound + 5_000] ^= 4 }),
            ("a flipped bit in its header", { $0[crash.last.lowerBound] ^= 4 }),
            ("a page of the record before", { for index in middle..<middle + 4_096 { $0[index] = 0 } }),
            (
                "the header of the record before",
                { for index in crash.previous.lowerBound..<crash.previous.lowerBound + 40 { $0[index] = 0 } }
            ),
        ]
        let sound = try #require(FileManager.default.contents(atPath: crash.log))
        for (name, damage) in damages {
            try crash.damage(damage)
            let error = #expect(throws: KVError.self, "\(name)") { _ = try ShardReplica.openTest(crash.configuration) }
            #expect(error?.code == .corrupted, "\(name)")
            try sound.write(to: URL(filePath: crash.log))
        }
        let replica = try ShardReplica.openTest(crash.configuration)
        #expect(replica.position.lsn == crash.before.lsn + 1)
        try await replica.close()
    }

    /// A log before the newest must be whole, however the newest ends.
    @Test func anOlderLogMustBeSound() async throws {
        let directory = try TemporaryDirectory()
        let crash = try await crash(directory, lastBytes: 10_000)
        let newer = crash.log.replacing(".log", with: "").dropLast(3) + "999.log"
        let bytes = try #require(FileManager.default.contents(atPath: crash.log))
        try crash.damage { for index in crash.last.lowerBound + 100..<crash.last.upperBound { $0[index] = 0 } }
        try bytes.write(to: URL(filePath: String(newer)))
        let error = #expect(throws: KVError.self) { _ = try ShardReplica.openTest(crash.configuration) }
        #expect(error?.code == .corrupted)
    }
}
