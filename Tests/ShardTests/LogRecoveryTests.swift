import Core
import FoundationEssentials
import LSM
import NIOCore
import TestSupport
import Testing
import Wire

@testable import Shard

/// A replica's log with every kind of damage: no acknowledged write goes without a word.
@Suite struct LogRecoveryTests {
    /// The directory of a replica with 60 writes in one log, each synced, that was killed.
    private struct Killed {
        let configuration: ShardConfiguration
        let log: String
        /// Where each batch ends in the log, the term's first one included.
        let ends: [Int]
        let sound: [UInt8]

        /// - Parameter isMarked: the mark has caught up with the log.
        init(
            _ directory: TemporaryDirectory, durability: Durability = .always, isMarked: Bool,
            value: (Int) -> [UInt8] = { Array("value-\($0)".utf8) }
        ) async throws {
            var configuration = ShardConfiguration.test(directory)
            configuration.durability = durability
            let replica = try ShardReplica.openTest(configuration)
            let name = try #require(try LogFile.live(in: configuration.directory + "/db").last?.name)
            var ends: [Int] = []
            func noteEnd() throws {
                ends.append(try #require(try Files.bytes(of: "\(configuration.directory)/db/\(name)")).asInt)
            }
            try noteEnd()
            for index in 0..<60 {
                let receipt = try await replica.write([
                    .put(key: ByteBuffer(string: "key-\(index)"), value: ByteBuffer(bytes: value(index)))
                ])
                #expect(receipt.failure == nil)
                try noteEnd()
            }
            if isMarked { replica.keepSyncedMark() }
            var killed = configuration
            killed.directory += "-killed"
            try FileManager.default.copyItem(atPath: configuration.directory, toPath: killed.directory)
            try await replica.close()
            self.configuration = killed
            log = "\(killed.directory)/db/\(name)"
            self.ends = ends
            sound = Array(try #require(FileManager.default.contents(atPath: log)))
        }

        func write(_ bytes: some Sequence<UInt8>) throws { try Data(bytes).write(to: URL(filePath: log)) }

        /// What opening would come to, without RocksDB.
        func recover(hasRebooted: Bool = false) throws -> LogRecovery.Dropped? {
            if hasRebooted { try SyncedMark.change(in: configuration) { $0.boot = "another" } }
            return try LogRecovery(configuration).run { () throws(KVError) in
                try LogRecovery.tablesEnd(of: configuration.directory + "/db", configuration, SharedResources())
            }
        }

        func expectRefused(
            _ what: Comment, hasRebooted: Bool = false, location: SourceLocation = #_sourceLocation
        ) throws {
            let before = FileManager.default.contents(atPath: log)
            let error = #expect(throws: KVError.self, what, sourceLocation: location) {
                _ = try recover(hasRebooted: hasRebooted)
            }
            #expect(error?.code == .corrupted, what, sourceLocation: location)
            #expect(FileManager.default.contents(atPath: log) == before, "nothing is changed", sourceLocation: location)
        }
    }

    @Test func aWholeLogStaysAsItIs() async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, isMarked: true)
        let dropped = try killed.recover()
        #expect(dropped == nil)
        #expect(FileManager.default.contents(atPath: killed.log).map(Array.init) == killed.sound)
    }

    /// Every bit of every header, and bits anywhere else: also where the mark is far behind and where pages may be missing.
    @Test(arguments: [false, true], [false, true])
    func aFlippedBitIsRefused(isMarked: Bool, hasRebooted: Bool) async throws {
        let seed: UInt64 = 20
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, isMarked: isMarked)
        var random = SeededGenerator(seed: seed)
        var places: [Int] = []
        for start in [0] + killed.ends.dropLast() { places += start..<start + 7 }
        for _ in 0..<300 { places.append(Int.random(in: 0..<killed.sound.count, using: &random)) }
        for place in places {
            let bit = UInt8.random(in: 0..<8, using: &random)
            var bytes = killed.sound
            bytes[place] ^= 1 << bit
            try killed.write(bytes)
            try killed.expectRefused("bit \(bit) of byte \(place), seed \(seed)", hasRebooted: hasRebooted)
        }
    }

    @Test(arguments: [false, true]) func aHeaderOfZerosIsRefused(hasRebooted: Bool) async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, isMarked: false)
        for start in [0] + killed.ends.dropLast() {
            var bytes = killed.sound
            for index in start..<start + 7 { bytes[index] = 0 }
            try killed.write(bytes)
            try killed.expectRefused("the header at byte \(start)", hasRebooted: hasRebooted)
        }
    }

    /// Where it ends in a whole record, the mark alone tells.
    @Test func aLogThatEndsTooEarlyIsRefused() async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, isMarked: true)
        for length in [
            0, killed.ends[0], killed.ends[20], killed.ends[20] + 3, killed.ends[59], killed.sound.count - 1,
        ] {
            try killed.write(killed.sound.prefix(length))
            let error = #expect(throws: KVError.self, "\(length) bytes") {
                _ = try ShardReplica.openTest(killed.configuration)
            }
            #expect(error?.code == .corrupted)
        }
        try FileManager.default.removeItem(atPath: killed.log)
        let error = #expect(throws: KVError.self) { _ = try ShardReplica.openTest(killed.configuration) }
        #expect(error?.code == .corrupted, "\(error as Any)")
        try killed.write(killed.sound)
        let replica = try ShardReplica.openTest(killed.configuration)
        #expect(try replica.content().count == 60)
        try await replica.close()
    }

    /// The write that was being made when the process was killed.
    @Test func aWriteThatNeverEndedIsCutOff() async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, isMarked: false)
        for length in killed.ends[59] + 1..<killed.ends[60] {
            try killed.write(killed.sound.prefix(length))
            let dropped = try killed.recover()
            #expect(dropped?.end?.lsn == 60 && dropped?.keptIn == nil, "\(length) bytes")
            #expect(dropped?.bytes == UInt64(length - killed.ends[59]))
            #expect(FileManager.default.contents(atPath: killed.log)?.count == killed.ends[59])
        }
    }

    /// A value of zeros looks like pages that were never written: only after a restart of the machine it may be that.
    @Test func zerosInAnAcknowledgedValueAreNoMissingPages() async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, isMarked: false) {
            [UInt8](repeating: 0, count: $0 == 59 ? 20_000 : 1)
        }
        var bytes = killed.sound
        bytes[killed.ends[59] + 60] ^= 1
        try killed.write(bytes)
        try killed.expectRefused("a flipped bit before the zeros")
        // Nor if the machine was restarted and the write is known to have been on the disk.
        try SyncedMark.change(in: killed.configuration) { $0.position.lsn = 61 }
        try killed.expectRefused("a flipped bit before the zeros", hasRebooted: true)
    }

    /// Without an fsync a loss of power may take anything behind the mark. It is cut off, kept and told.
    @Test(arguments: [Durability.interval, .os]) func unsyncedDamageIsCutOff(durability: Durability) async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, durability: durability, isMarked: false)
        let newer = "\(killed.configuration.directory)/db/000999.log"
        try Data(killed.sound).write(to: URL(filePath: newer))
        var bytes = killed.sound
        for index in killed.ends[20]..<killed.ends[22] { bytes[index] = 0 }
        try killed.write(bytes)
        let replica = try ShardReplica.openTest(killed.configuration)
        #expect(replica.position.lsn == 21)
        #expect(try replica.content().count == 20)
        try await replica.close()
        let kept = "\(killed.configuration.directory)/dropped"
        #expect(try Files.names(in: kept)?.count == 2)
        #expect(FileManager.default.contents(atPath: "\(kept)/000999.log-0").map(Array.init) == killed.sound)
        let name = try #require(killed.log.split(separator: "/").last)
        #expect(
            FileManager.default.contents(atPath: "\(kept)/\(name)-\(killed.ends[20])").map(Array.init)
                == Array(bytes[killed.ends[20]...]))
    }

    /// Behind the mark, not before it.
    @Test func syncedDamageIsRefusedInEveryDurability() async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, durability: .os, isMarked: false)
        try SyncedMark.change(in: killed.configuration) { $0.position.lsn = 25 }
        var bytes = killed.sound
        bytes[killed.ends[22]] ^= 1
        try killed.write(bytes)
        try killed.expectRefused("damage before the mark")
        // Also if nothing is left before it: then it is the tables that lack what was on the disk.
        bytes = killed.sound
        bytes[8] ^= 1
        try killed.write(bytes)
        try killed.expectRefused("damage in the first record")
        bytes = killed.sound
        bytes[killed.ends[30]] ^= 1
        try killed.write(bytes)
        #expect(try killed.recover()?.end?.lsn == 31)
    }

    /// For the only replica there is: what is damaged goes, what is whole is served, and nothing is thrown away.
    @Test func damageIsDroppedOnRequest() async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, isMarked: true)
        var bytes = killed.sound
        bytes[killed.ends[40]] ^= 1
        try killed.write(bytes)
        try killed.expectRefused("damage")
        var configuration = killed.configuration
        configuration.dropsDamagedLog = true
        let replica = try ShardReplica.openTest(configuration)
        #expect(try replica.content().count == 40)
        let receipt = try await replica.write([put("more", "1")])
        #expect(receipt.failure == nil && receipt.position.lsn == 42)
        try await replica.close()
        #expect(try Files.names(in: "\(configuration.directory)/dropped")?.count == 1)
        // The mark is that of what is left.
        let again = try ShardReplica.openTest(killed.configuration)
        #expect(try again.content().count == 41)
        try await again.close()
    }

    /// A manifest that has lost its end knows fewer tables than there are.
    @Test func aManifestThatEndsTooEarlyIsRefused() async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, isMarked: true)
        let opened = try ShardReplica.openTest(killed.configuration)
        for round in 0..<3 {
            for index in 0..<20 { _ = try await opened.write([put("\(round)-\(index)", "value")]) }
            try opened.database.flush()
        }
        for index in 0..<20 { _ = try await opened.write([put("last-\(index)", "value")]) }
        try await opened.close()
        var refused = 0
        for cut in [1, 20, 100, 150, 200, 250, 300, 400] {
            var copy = killed.configuration
            copy.directory += "-\(cut)"
            try FileManager.default.copyItem(atPath: killed.configuration.directory, toPath: copy.directory)
            let names = try #require(try Files.names(in: "\(copy.directory)/db"))
            let path = "\(copy.directory)/db/\(try #require(names.first { $0.hasPrefix("MANIFEST-") }))"
            try #require(FileManager.default.contents(atPath: path)).dropLast(cut).write(to: URL(filePath: path))
            do {
                let replica = try ShardReplica.openTest(copy)
                #expect(try replica.content().count == 140, "\(cut) bytes are missing")
                try await replica.close()
            } catch let error as KVError {
                #expect(error.code == .corrupted, "\(cut) bytes are missing: \(error)")
                refused += 1
            }
        }
        #expect(refused > 3)
        let replica = try ShardReplica.openTest(killed.configuration)
        #expect(try replica.content().count == 140)
        try await replica.close()
    }

    @Test func aDatabaseThatIsGoneIsNotMadeAnew() async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, isMarked: false)
        let database = "\(killed.configuration.directory)/db"
        for name in ["CURRENT", ""] {
            let path = "\(database)/\(name)"
            try FileManager.default.moveItem(atPath: path, toPath: "\(directory.path)/aside")
            let error = #expect(throws: KVError.self) { _ = try ShardReplica.openTest(killed.configuration) }
            #expect(error?.code == .corrupted, "\(name)")
            try FileManager.default.moveItem(atPath: "\(directory.path)/aside", toPath: path)
        }
        let replica = try ShardReplica.openTest(killed.configuration)
        #expect(try replica.content().count == 60)
        try await replica.close()
    }

    /// A mark that cannot be read says nothing; one of another database neither.
    @Test func aMarkIsBelievedIfItIsOfThisDatabase() async throws {
        let directory = try TemporaryDirectory()
        let killed = try await Killed(directory, isMarked: true)
        try killed.write(killed.sound.prefix(killed.ends[20]))
        try SyncedMark.change(in: killed.configuration) { $0.database = "another" }
        #expect(try killed.recover() == nil)
        try Data("rubbish".utf8).write(to: URL(filePath: "\(killed.configuration.directory)/SYNCED"))
        #expect(try killed.recover() == nil)
        let replica = try ShardReplica.openTest(killed.configuration)
        try await replica.close()
        guard case .mark(let mark) = try SyncedMark.load(from: killed.configuration.directory) else {
            return #expect(Bool(false), "it is written anew")
        }
        #expect(mark.position == replica.position)
        #expect(SyncedMark(text: mark.text) == mark)
        #expect(SyncedMark(text: mark.text.replacing("lsn = 21", with: "lsn = 12")) == nil)
    }
}

extension UInt64 {
    fileprivate var asInt: Int { Int(self) }
}

/// Logs that are kept for followers only.
@Suite struct KeptLogTests {
    /// Five kept logs, of which one is damaged.
    @Test(arguments: [0, 10, 15_000]) func aDamagedOneStopsNobody(place: Int) async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.ringBytesMax = 1_000
        let replica = try ShardReplica.openTest(configuration)
        var ends: [LogPosition] = []
        for round in 0..<5 {
            for index in 0..<20 {
                let value = ByteBuffer(repeating: UInt8(round), count: 1_000)
                let receipt = try await replica.write([.put(key: ByteBuffer(string: "\(round)-\(index)"), value: value)]
                )
                #expect(receipt.failure == nil)
            }
            ends.append(replica.position)
            try replica.database.flush()
        }
        try await replica.close()
        let archive = configuration.directory + "/db/archive"
        let logs = LogFile.list(in: archive)
        try #require(logs.count == 5)
        var bytes = Array(try #require(FileManager.default.contents(atPath: "\(archive)/\(logs[2].name)")))
        bytes[place] ^= 1
        try Data(bytes).write(to: URL(filePath: "\(archive)/\(logs[2].name)"))

        let again = try ShardReplica.openTest(configuration)
        #expect(again.position == ends[4])
        #expect(try again.content().count == 100)
        // Nothing was looked at so far.
        #expect(again.log.firstLsn == nil)
        // What is behind the damage is still to be had.
        #expect(try again.readAll(after: ends[3]).last?.position == ends[4])
        var reader = LogPosition.start
        while case .frames(_, let last) = try again.log.readFromDisk(after: reader, bytesMax: 3_000) { reader = last }
        #expect(reader < ends[2])
        guard case .truncated(let first) = try again.log.readFromDisk(after: reader, bytesMax: 3_000) else {
            Issue.record("lsn \(reader.lsn) cannot be continued")
            return
        }
        #expect(first == ends[2].lsn + 1)
        // Nobody is promised what cannot be had: a snapshot must reach behind it.
        #expect(try again.log.lookUpFirstLsn() == ends[2].lsn + 1)
        #expect(try again.readAll(after: ends[3]).last?.position == ends[4])
        try await again.close()
    }
}
