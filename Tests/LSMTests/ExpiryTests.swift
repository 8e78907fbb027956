import Core
import LSM
import NIOCore
import Synchronization
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

    // MARK: The clock

    private final class Clocks: Sendable {
        private let times = Mutex<(wall: UInt64, monotonic: UInt64)>((10_000_000, 500))
        var wall: UInt64 { times.withLock { $0.wall } }

        func pass(_ milliseconds: UInt64) {
            times.withLock { $0 = ($0.wall + milliseconds, $0.monotonic + milliseconds) }
        }

        func set(_ wall: UInt64) { times.withLock { $0.wall = wall } }

        func expiryClock() -> ExpiryClock {
            ExpiryClock(
                wallMilliseconds: { self.wall }, monotonicMilliseconds: { self.times.withLock { $0.monotonic } })
        }
    }

    @Test func timeGoesWithTheWallClock() {
        let clocks = Clocks()
        let clock = clocks.expiryClock()
        #expect(clock.now() == 10_000_000)
        clocks.pass(25)
        #expect(clock.now() == 10_000_025)
        clocks.set(20_000_000)
        #expect(clock.now() == 20_000_000, "a step ahead is followed")
    }

    @Test func timeNeitherGoesBackNorStandsStillWhenTheWallClockGoesBack() {
        let clocks = Clocks()
        let clock = clocks.expiryClock()
        #expect(clock.now() == 10_000_000)
        clocks.set(9_000_000)
        #expect(clock.now() == 10_000_000)
        clocks.pass(30)
        #expect(clock.now() == 10_000_030)
        #expect(clock.moment(after: 50) == 10_000_080)
    }

    @Test func timeIsNotBehindTheNewestVersion() {
        let clocks = Clocks()
        let clock = clocks.expiryClock()
        clock.observe(Version(rawValue: 10_000_700 << 16 + 3))
        #expect(clock.now() == 10_000_700)
        clocks.pass(5)
        #expect(clock.now() == 10_000_705)
        clock.observe(Version(rawValue: 10_000_701 << 16))
        #expect(clock.now() == 10_000_705)
    }

    @Test func absurdTimesDoNotTrap() {
        let clock = ExpiryClock(wallMilliseconds: { .max }, monotonicMilliseconds: { .max })
        #expect(clock.now() >= UInt64(Int64.max))
        #expect(clock.moment(after: .max) > clock.now())
        let early = ExpiryClock(wallMilliseconds: { 0 }, monotonicMilliseconds: { .max })
        #expect(early.now() == 0)
    }
}
