import Core
import LSM
import NIOCore
import Synchronization
import TestSupport
import Testing
import Wire

@testable import Shard

/// Values that expire, with a clock that the test moves.
@Suite struct ExpiryTests {
    private typealias Rig = WriterCoreTests.Rig

    /// A value as text, with its end or what is left until then.
    private struct Value: Equatable {
        var text: String
        var milliseconds: UInt64?

        init(_ text: String, _ milliseconds: UInt64?) { (self.text, self.milliseconds) = (text, milliseconds) }
    }

    private func put(_ key: String, _ value: String, ttl: UInt64) -> WriteOperation {
        .expiringPut(key: ByteBuffer(string: key), value: ByteBuffer(string: value), milliseconds: ttl)
    }

    private func add(_ amount: Int64, to key: String) -> WriteOperation {
        .increment(key: ByteBuffer(string: key), by: amount)
    }

    private func onlyIfAbsent(_ operation: WriteOperation) -> WriteOperation {
        .conditional(WriteCondition(noneMatch: .any), operation)
    }

    private func onlyIfThere(_ operation: WriteOperation) -> WriteOperation {
        .conditional(WriteCondition(match: .any), operation)
    }

    /// What is stored: the value and its expiry, whatever the time.
    private func stored(_ key: String, _ rig: Rig) throws -> Value? {
        var found: Value?
        try rig.sink.read(key: ByteBuffer(string: key), tier: .disk) { lookup in
            if case .value(let value) = lookup {
                found = Value(String(decoding: value.bytes, as: UTF8.self), value.expiresMilliseconds)
            }
        }
        return found
    }

    private func pass(_ milliseconds: UInt64, _ rig: Rig) {
        rig.clock.setWall(rig.clock.clock.wallMilliseconds() + milliseconds)
        rig.clock.advance(milliseconds)
    }

    // MARK: Writing

    @Test func aLifeEndsSoLongAfterTheWriteAndAPlainPutTakesTheEndAway() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1", ttl: 250), plain("b", "1")])
        _ = rig.core.drain()
        #expect(try stored("a", rig) == Value("1", 1_000_250))
        #expect(try stored("b", rig) == Value("1", nil))
        #expect(rig.sink.state.withLock { $0.reads } == 2, "only this test has looked anything up")
        try rig.submit(2, [plain("a", "2")])
        _ = rig.core.drain()
        #expect(try stored("a", rig) == Value("2", nil))
    }

    @Test func anExpiredValueDoesNotExistForConditions() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1", ttl: 250)])
        _ = rig.core.drain()
        let first = rig.receipt(1)?.version(at: 0)
        pass(249, rig)
        try rig.submit(2, [onlyIfAbsent(put("a", "2", ttl: 1)), onlyIfThere(plain("b", "1"))])
        _ = rig.core.drain()
        #expect(rig.receipt(2)?.refused == 2)
        pass(1, rig)
        let versions = WriteCondition.Versions.listed([first].compactMap(\.self))
        try rig.submit(
            3,
            [
                .conditional(WriteCondition(match: versions), plain("a", "3")), onlyIfThere(plain("a", "4")),
                onlyIfAbsent(put("a", "5", ttl: 100)), onlyIfAbsent(plain("a", "6")),
            ])
        _ = rig.core.drain()
        let receipt = try #require(rig.receipt(3))
        #expect([0, 1, 3].allSatisfy { receipt.refusal(at: $0) != nil } && receipt.version(at: 2) != nil)
        #expect(try stored("a", rig) == Value("5", 1_000_350))
    }

    @Test func aCounterKeepsItsEndAndBeginsAnewBehindIt() throws {
        let rig = Rig()
        try rig.submit(1, [put("n", "7", ttl: 250)])
        _ = rig.core.drain()
        pass(100, rig)
        try rig.submit(2, [add(1, to: "n"), put("m", "1", ttl: 10), add(4, to: "m")])
        _ = rig.core.drain()
        #expect(rig.receipt(2)?.number(at: 0) == 8 && rig.receipt(2)?.number(at: 2) == 5)
        #expect(try stored("n", rig) == Value("8", 1_000_250))
        #expect(try stored("m", rig) == Value("5", 1_000_110))
        pass(150, rig)
        try rig.submit(3, [add(3, to: "n")])
        _ = rig.core.drain()
        #expect(rig.receipt(3)?.number(at: 0) == 3)
        #expect(try stored("n", rig) == Value("3", nil))
    }

    @Test func aWallClockThatGoesBackBringsNothingBack() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1", ttl: 250)])
        _ = rig.core.drain()
        pass(250, rig)
        try rig.submit(2, [onlyIfAbsent(plain("b", "1")), onlyIfThere(plain("a", "2"))])
        _ = rig.core.drain()
        #expect(rig.receipt(2)?.refusal(at: 1) != nil)
        rig.clock.setWall(900_000)
        try rig.submit(3, [onlyIfThere(plain("a", "2")), put("c", "1", ttl: 50)])
        _ = rig.core.drain()
        #expect(rig.receipt(3)?.refusal(at: 0) != nil)
        // And what is written now lives as long as it is to live.
        #expect(try stored("c", rig) == Value("1", 1_000_300))
        rig.clock.advance(49)
        try rig.submit(4, [onlyIfThere(put("c", "2", ttl: 50))])
        _ = rig.core.drain()
        #expect(rig.receipt(4)?.refused == 0)
        rig.clock.advance(50)
        try rig.submit(5, [onlyIfThere(plain("c", "3"))])
        _ = rig.core.drain()
        #expect(rig.receipt(5)?.refused == 1)
    }

    // MARK: Reading

    private func read(_ key: String, _ replica: ShardReplica, _ tier: ReadTier = .disk) throws -> Value? {
        var found: Value?
        var answers = 0
        try Array(key.utf8).withUnsafeBytes { key in
            try replica.read(key: key, tier: tier) { lookup in
                answers += 1
                guard case .value(let value) = lookup else { return }
                found = Value(String(decoding: value.bytes, as: UTF8.self), replica.millisecondsLeft(of: value))
            }
        }
        #expect(answers == 1)
        return found
    }

    @Test(arguments: [ReadTier.memory, .disk]) func whatHasExpiredIsMissing(tier: ReadTier) async throws {
        let directory = try TemporaryDirectory()
        let clock = ManualClock()
        let replica = try ShardReplica.openTest(.test(directory), clock: clock.clock)
        _ = try await replica.write([put("a", "1", ttl: 250), plain("b", "2")])
        #expect(try read("a", replica, tier) == Value("1", 250))
        #expect(try read("b", replica, tier) == Value("2", nil))
        clock.setWall(1_000_249)
        #expect(try read("a", replica, tier) == Value("1", 1))
        clock.setWall(1_000_250)
        #expect(try read("a", replica, tier) == nil)
        clock.setWall(1_000_000)
        #expect(try read("a", replica, tier) == nil, "it was reported as gone")
        #expect(try read("b", replica, tier) == Value("2", nil))
        try await replica.close()
    }

    @Test func followersAndRestartsKeepTheEnd() async throws {
        let directory = try TemporaryDirectory()
        let (clock, other) = (ManualClock(), ManualClock())
        var configuration = ShardConfiguration.test(directory)
        let leader = try ShardReplica.openTest(configuration, clock: clock.clock)
        configuration.directory += "-follower"
        let follower = try ShardReplica.openTest(configuration, role: .follower(term: 1), clock: other.clock)
        clock.setWall(2_000_000)
        _ = try await leader.write([put("a", "1", ttl: 500)])
        let outcome = await follower.apply(try leader.readAll(), leaderTerm: 1)
        #expect(outcome.failure == nil)
        #expect(try follower.content() == leader.content())
        // The follower's own clock is far behind: it goes by the leader's, whose time the versions tell.
        #expect(try read("a", follower) == Value("1", 500))
        other.advance(500)
        #expect(try read("a", follower) == nil)
        try await follower.close()
        let again = try ShardReplica.openTest(configuration, role: .leader(term: 2), clock: other.clock)
        _ = try await again.write([add(1, to: "n")])
        #expect(try read("a", again) == Value("1", 500), "a restart knows only what is stored")
        other.advance(500)
        #expect(try read("a", again) == nil)
        #expect(try await again.write([onlyIfAbsent(plain("a", "2"))]).refused == 0)
        try await again.close()
        try await leader.close()
    }

    @Test func aSnapshotKeepsTheEnd() async throws {
        let clock = ManualClock()
        let pair = try await SnapshotPair.open(writes: 5, clock: clock.clock)
        _ = try await pair.leader.write([put("a", "1", ttl: 1_000), put("gone", "1", ttl: 10)])
        clock.setWall(1_000_400)
        let empty = try pair.openFollower(clock: clock.clock)
        let manifest = try pair.leader.openSnapshot()
        try empty.take(manifest, from: pair.leader)
        let (_, follower) = try await empty.install(manifest.id, role: .follower(term: 1))
        #expect(try follower.content() == pair.leader.content())
        #expect(try follower.content().contains { $0.hasPrefix("a ") && $0.hasSuffix(" 1 until 1001000") })
        #expect(try read("gone", follower) == nil)
        try await follower.close()
        try await pair.leader.close()
    }

    // MARK: Comparing

    /// One replica has compacted away what has expired, the other has not: they are equal all the same.
    @Test func replicasAreEqualWhicheverHasDroppedWhatExpired() async throws {
        let directory = try TemporaryDirectory()
        let now: UInt64 = 1_800_000_000_000
        let settling = UInt64(ClockBound.settleMilliseconds)
        let (clock, ahead) = (ManualClock(wall: now), ManualClock(wall: now + 181_000 - settling))
        var configuration = ShardConfiguration.test(directory)
        let leader = try ShardReplica.openTest(configuration, clock: clock.clock)
        configuration.directory += "-follower"
        let follower = try ShardReplica.openTest(configuration, role: .follower(term: 1), clock: ahead.clock)
        for index in 0..<60 {
            _ = try await leader.write([
                put("short-\(index)", "1", ttl: 1_000), put("long-\(index)", "1", ttl: 10_000_000),
                plain("p-\(index)", "1"),
            ])
        }
        #expect(await follower.apply(try leader.readAll(), leaderTerm: 1).failure == nil)
        // The follower's clock is ahead by two minutes more than it takes to drop them.
        _ = follower.expiries.now()
        ahead.setWall(now + 181_000)
        ahead.advance(settling)
        try follower.database.compact()
        #expect(try follower.content().count == 120 && leader.content().count == 180)
        let whole = try await leader.digest()
        #expect(whole.expiringAfter == now + 300_000)
        #expect(whole.ranges.reduce(0) { $0 + $1.keys } == 120)
        let own = try await follower.digest(
            boundaries: whole.ranges.dropFirst().compactMap { PercentCoding.decode($0.start.utf8) },
            expiringAfter: whole.expiringAfter, at: whole.position.lsn)
        #expect(own == whole)
        // What lives long enough counts with its end.
        var builder = WriteBatchBuilder()
        try follower.database.forEachUserRecord { key, value in
            guard key.elementsEqual("long-7".utf8), let expires = value.expiresMilliseconds else { return true }
            builder.put(key: key, version: value.version, expires: expires + 1, value: value.bytes)
            return true
        }
        try builder.finish().withUnsafeReadableBytes { try follower.database.write($0, sync: false) }
        let other = try await follower.digest(
            boundaries: whole.ranges.dropFirst().compactMap { PercentCoding.decode($0.start.utf8) },
            expiringAfter: whole.expiringAfter, at: whole.position.lsn)
        #expect(zip(other.ranges, whole.ranges).filter { $0 != $1 }.count == 1)
        try await leader.close()
        try await follower.close()
    }

    // MARK: Compacting

    @Test func aCompactionOnRequestFreesSpace() async throws {
        let directory = try TemporaryDirectory()
        let clock = ManualClock(wall: 1_800_000_000_000)
        let replica = try ShardReplica.openTest(.test(directory), clock: clock.clock)
        #expect(replica.lastCompaction == CompactionDocument(shard: "shard-0"))
        for start in stride(from: 0, to: 20_000, by: 1_000) {
            _ = try await replica.write(
                (start..<start + 1_000).map { put("key-\($0)", "value \($0 &* 7919)", ttl: 1_000) })
        }
        _ = try await replica.write([plain("stays", "1")])
        // Expired for a minute, by a clock that has been where it is for long enough.
        let passing = UInt64(ClockBound.settleMilliseconds) + 61_000
        clock.setWall(1_800_000_000_000 + passing)
        clock.advance(passing)
        let begun = replica.startCompaction()
        #expect(begun.number == 1 && begun.isRunning)
        try await eventually { !replica.lastCompaction.isRunning }
        let report = replica.lastCompaction
        #expect(report.number == 1 && report.failure == nil)
        let (before, after) = (try #require(report.tableBytesBefore), try #require(report.tableBytesAfter))
        #expect(before > 20 * after, "\(before) bytes before, \(after) after")
        #expect(try replica.content().count == 1)
        _ = replica.startCompaction()
        try await replica.close()
        try await eventually { !replica.lastCompaction.isRunning }
        #expect(replica.lastCompaction.number == 2)
    }
}

/// A put without an end.
private func plain(_ key: String, _ value: String) -> WriteOperation {
    .put(key: ByteBuffer(string: key), value: ByteBuffer(string: value))
}
