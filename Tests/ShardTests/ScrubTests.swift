import Core
import FoundationEssentials
import LSM
import TestSupport
import Testing
import Wire

@testable import Shard

/// A replica reads what it has on the disk, and finds what is damaged.
@Suite struct ScrubTests {
    /// With content in several tables.
    private func open() async throws -> (pair: SnapshotPair, replica: ShardReplica, tables: [String]) {
        let pair = try await SnapshotPair.open(writes: 0)
        for part in 0..<3 {
            try await pair.write(part * 100..<(part + 1) * 100)
            try pair.leader.database.flush()
        }
        return (pair, pair.leader, try Damage.tables(in: pair.leader.database.path).sorted())
    }

    private func scrubbed(_ replica: ShardReplica) async throws -> ScrubDocument {
        _ = replica.startScrub()
        try await eventually { !replica.lastScrub.isRunning }
        return replica.lastScrub
    }

    @Test func aWholeReplicaIsWhole() async throws {
        let (pair, replica, _) = try await open()
        #expect(replica.lastScrub == ScrubDocument(shard: "shard-0"))
        #expect(replica.secondsSinceScrub == nil)
        let begun = replica.startScrub()
        #expect(begun.number == 1)
        try await eventually { !replica.lastScrub.isRunning }
        let report = replica.lastScrub
        let bytes = try replica.database.liveTables().reduce(0) { $0 + $1.bytes }
        #expect(bytes > 0 && report.bytesDone == bytes && report.bytesTotal == bytes)
        #expect(report.damage.isEmpty && report.failure == nil && report.lastWholeMilliseconds != nil)
        #expect(replica.damage == nil && replica.secondsSinceScrub != nil)
        // What is known of it outlives the process.
        try await replica.close()
        let again = try ShardReplica.openTest(replica.configuration)
        #expect(again.lastScrub == report)
        #expect(try await scrubbed(again).number == 2)
        try await again.close()
        withExtendedLifetime(pair) {}
    }

    @Test func everyDamagedFileIsNamed() async throws {
        let (pair, replica, tables) = try await open()
        try #require(tables.count >= 2)
        for table in [tables[0], tables[tables.count - 1]] { try Damage.flipBit(ofFile: table) }
        try Damage.flipBit(ofFile: "\(replica.configuration.directory)/IDENTITY")
        let report = try await scrubbed(replica)
        #expect(report.damage.count == 3, "\(report.damage)")
        #expect(report.damage.first?.hasPrefix("\(tables[0]) is damaged: ") == true)
        #expect(report.bytesDone == report.bytesTotal && report.failure == nil)
        #expect(replica.damage?.message == report.damage.first)
        try await replica.close()
        withExtendedLifetime(pair) {}
    }

    /// A log that is only kept for followers is no data of the replica: it is put aside. One that is to be replayed is.
    @Test func logsAreRead() async throws {
        let (pair, replica, _) = try await open()
        try await pair.write(300..<400)
        let archive = "\(replica.database.path)/archive"
        let kept = try #require(LogFile.list(in: archive).last)
        try Damage.flipBit(ofFile: "\(archive)/\(kept.name)")
        #expect(try await scrubbed(replica).damage.isEmpty)
        #expect(LogFile.list(in: archive).isEmpty)
        let live = try #require(LogFile.list(in: replica.database.path).last)
        try Damage.flipBit(ofFile: "\(replica.database.path)/\(live.name)")
        let report = try await scrubbed(replica)
        #expect(report.damage == ["\(replica.database.path)/\(live.name) cannot be read to its end"])
        try await replica.close()
    }

    /// Tables come and go while a slow pass reads; what is gone is no damage.
    @Test func whatCompactionsReplaceIsNoDamage() async throws {
        let (pair, replica, _) = try await open()
        for round in 0..<20 {
            _ = replica.startScrub()
            try await pair.write(round * 10..<round * 10 + 50)
            try replica.database.compact()
        }
        try await eventually { !replica.lastScrub.isRunning }
        #expect(replica.damage == nil)
        try await replica.close()
    }

    // MARK: Slowly

    /// A pass that takes longer than a process lives comes to its end all the same.
    @Test func aSlowPassGoesOnWhereItWas() async throws {
        let (pair, replica, tables) = try await open()
        var record = ScrubRecord.load(directory: replica.configuration.directory, shard: "shard-0")
        #expect(record.database == nil)
        record.database = try DurableFile.read("\(replica.database.path)/IDENTITY")
        record.tableNumber = try #require(try replica.database.liveTables().first?.number)
        try await replica.close()
        try record.save(directory: replica.configuration.directory)
        // What was read before the restart is not read again, the rest is.
        try Damage.flipBit(ofFile: tables[0])
        let again = try ShardReplica.openTest(replica.configuration)
        let last = try #require(try again.database.liveTables().last)
        try Damage.flipBit(ofFile: "\(again.database.path)/\(last.name)")
        #expect(await again.scrubSlowly(bytesPerSecond: 1 << 30))
        #expect(again.lastScrub.damage.count == 1)
        #expect(again.lastScrub.damage.first?.contains(last.name) == true)
        // The next one begins at the start.
        #expect(await again.scrubSlowly(bytesPerSecond: 1 << 30))
        #expect(again.lastScrub.damage.count == 2)
        try await again.close()
        withExtendedLifetime(pair) {}
    }

    @Test func aSlowPassEndsAtOnce() async throws {
        let (pair, replica, _) = try await open()
        // A first read takes days at this pace.
        let slow = Task { await replica.scrubSlowly(bytesPerSecond: 1) }
        try await eventually { replica.lastScrub.isRunning }
        #expect(await replica.scrubSlowly(bytesPerSecond: 1) == false)
        slow.cancel()
        #expect(await slow.value == false)
        #expect(replica.lastScrub.failure == "it was ended before it was through")

        // One that is asked for takes its place, and so does a close.
        let second = Task { await replica.scrubSlowly(bytesPerSecond: 1) }
        try await eventually { replica.lastScrub.isRunning }
        #expect(try await scrubbed(replica).lastWholeMilliseconds != nil)
        #expect(await second.value == false)
        let third = Task { await replica.scrubSlowly(bytesPerSecond: 1) }
        try await eventually { replica.lastScrub.isRunning }
        try await replica.close()
        #expect(await third.value == false)
        withExtendedLifetime(pair) {}
    }

    @Test func aDamagedRecordOfScrubsIsNone() async throws {
        let (pair, replica, _) = try await open()
        _ = try await scrubbed(replica)
        try await replica.close()
        try Damage.flipBit(ofFile: "\(replica.configuration.directory)/SCRUB") { _ in 0 }
        let again = try ShardReplica.openTest(replica.configuration)
        #expect(again.lastScrub.number == 0)
        try await again.close()
        withExtendedLifetime(pair) {}
    }
}
