import Core
import LSM
import NIOCore
import TestSupport
import Testing

@Suite struct ExpiryTests {
    // MARK: Encoding

    @Test func anExpiryStandsBetweenVersionAndValue() throws {
        var builder = WriteBatchBuilder()
        builder.put(
            key: ByteBuffer(string: "key"), version: Version(rawValue: 0x0102_0304_0506_0708),
            expires: 0x1112_1314_1516_1718, value: ByteBuffer(string: "value"))
        let expected: [UInt8] =
            [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
            + [0x01, 4, 0x01] + Array("key".utf8) + [22, 1, 1, 2, 3, 4, 5, 6, 7, 8]
            + [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18] + Array("value".utf8)
        #expect(bytes(builder.finish()) == expected)
        try expected[19...].withUnsafeBytes { record in
            let value = try #require(StoredValue(decoding: record))
            #expect(value.version.rawValue == 0x0102_0304_0506_0708)
            #expect(value.expiresMilliseconds == 0x1112_1314_1516_1718)
            #expect(Array(value.bytes) == Array("value".utf8))
        }
    }

    @Test func otherFlagsAndShortRecordsAreRefused() {
        for length in 0..<40 {
            for flags in UInt8.min...UInt8.max {
                var record = [UInt8](repeating: 0, count: length)
                if length > 0 { record[0] = flags }
                let value = record.withUnsafeBytes { StoredValue(decoding: $0).map { Array($0.bytes) } }
                let header = flags == 0 ? 9 : flags == 1 ? 17 : Int.max
                #expect(value?.count == (length >= header ? length - header : nil))
            }
        }
    }

    @Test func aValueIsGoneFromItsExpiryOn() {
        func value(_ expires: UInt64?) -> StoredValue {
            StoredValue(
                version: .zero, expiresMilliseconds: expires, bytes: UnsafeRawBufferPointer(start: nil, count: 0))
        }
        #expect(!value(1_000).isExpired(at: 999))
        #expect(value(1_000).isExpired(at: 1_000))
        #expect(value(1_000).isExpired(at: .max))
        #expect(!value(nil).isExpired(at: .max))
    }

    // MARK: Compaction

    private func fill(_ database: Database, _ keys: Range<Int>, expires: UInt64?) throws {
        var random = SeededGenerator(seed: UInt64(keys.lowerBound + 1))
        for start in stride(from: keys.lowerBound, to: keys.upperBound, by: 500) {
            try database.write { batch in
                for key in start..<min(start + 500, keys.upperBound) {
                    batch.put(
                        key: ByteBuffer(string: "key-\(key)"), version: Version(rawValue: 1), expires: expires,
                        value: ByteBuffer(bytes: random.bytes(100)))
                }
            }
        }
    }

    private func open(_ directory: TemporaryDirectory, _ clocks: Clocks, rewriteSeconds: Int? = nil) throws -> Database
    {
        var options = DatabaseOptions()
        options.expiries = clocks.expiryClock()
        clocks.settle(options.expiries)
        if let rewriteSeconds { options.rewriteSeconds = rewriteSeconds }
        return try Database(path: directory.path, shared: SharedResources(), options: options)
    }

    @Test func compactionFreesTheSpaceOfWhatHasExpiredAndLeavesTheRest() throws {
        let directory = try TemporaryDirectory()
        let clocks = Clocks()
        let database = try open(directory, clocks)
        let soon = clocks.wall + 1_000
        try database.write { batch in
            // Looks like a value that has expired, but is the shard's own.
            let (key, value): ([UInt8], [UInt8]) = ([KeySpace.reserved, 1], [1] + [UInt8](repeating: 0, count: 16))
            key.withUnsafeBytes { key in value.withUnsafeBytes { batch.putRaw(key: key, value: $0) } }
        }
        try database.put("older", "1")
        try database.flush()
        try fill(database, 0..<20_000, expires: soon)
        try fill(database, 20_000..<21_000, expires: nil)
        try fill(database, 21_000..<22_000, expires: clocks.wall + 1_000_000)
        try database.write {
            $0.put(
                key: ByteBuffer(string: "older"), version: Version(rawValue: 2), expires: clocks.wall + 1,
                value: ByteBuffer(string: "2"))
        }
        try database.compact()
        let before = try database.tableBytes()
        // Expired, but not for long.
        clocks.pass(60_999)
        try database.compact()
        #expect(try database.find("key-1") != .missing)
        #expect(try database.find("older") == .missing, "nothing older comes back")
        clocks.pass(1)
        try database.compact()
        let after = try database.tableBytes()
        #expect(after * 8 < before, "\(before) bytes before, \(after) after")
        var keys = 0
        try database.forEachUserRecord { _, value in
            keys += 1
            #expect(value.expiresMilliseconds != soon)
            return true
        }
        #expect(keys == 2_000)
        #expect(try database.record(at: [KeySpace.reserved, 1])?.count == 17)
        #expect(try database.find("key-1") == .missing)
        try database.close()
    }

    /// A table that nobody touches is rewritten when it is old, by RocksDB's clock.
    @Test func whatExpiresInOldDataGoesByItself() throws {
        let directory = try TemporaryDirectory()
        let clocks = Clocks()
        let database = try open(directory, clocks, rewriteSeconds: 1)
        try fill(database, 0..<5_000, expires: clocks.wall + 1_000)
        try database.compact()
        let before = try database.tableBytes()
        clocks.pass(61_000)
        let deadline = ContinuousClock.now + .seconds(60)
        while try database.tableBytes() * 8 > before {
            guard ContinuousClock.now < deadline else {
                Issue.record("the tables are never rewritten")
                break
            }
            try database.rewriteOldTables()
        }
        try database.close()
    }

    /// What was dropped while a clock was wrong would be gone also when it is right again.
    @Test(arguments: [true, false]) func nothingIsDroppedByAClockThatIsWrongForAWhile(fromTheStart: Bool) throws {
        let directory = try TemporaryDirectory()
        let clocks = Clocks()
        let hour: Int64 = 3_600_000
        let due = clocks.wall + UInt64(hour)
        var options = DatabaseOptions()
        if fromTheStart { clocks.jump(2 * hour) }
        let clock = clocks.expiryClock()
        options.expiries = clock
        _ = clock.now()
        let database = try Database(path: directory.path, shared: SharedResources(), options: options)
        if !fromTheStart {
            clocks.settle(clock)
            clocks.jump(2 * hour)
        }
        try fill(database, 0..<10, expires: due)
        clocks.pass(UInt64(ClockBound.settleMilliseconds) - 10_000, clock)
        try database.flush()
        try database.compact()
        clocks.jump(-2 * hour)
        #expect(try database.find("key-1") != .missing)
        clocks.settle(clock)
        #expect(clock.now() == clocks.wall && clock.now() < due)
        clocks.pass(UInt64(hour) + 60_000, clock)
        try database.compact()
        #expect(try database.find("key-1") == .missing)
        try database.close()
    }

    @Test func aDatabaseWithoutAClockDropsNothing() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        try fill(database, 0..<10, expires: 1)
        try database.compact()
        #expect(try database.find("key-1") != .missing)
        try database.rewriteOldTables()
        try database.close()
    }
}
