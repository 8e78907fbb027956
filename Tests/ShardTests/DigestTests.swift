import Core
import LSM
import NIOCore
import Synchronization
import TestSupport
import Testing
import Wire

@testable import Shard

@Suite struct DigestTests {
    // MARK: Ranges

    private typealias Record = (key: [UInt8], version: UInt64, value: [UInt8])

    private func digests(_ records: [Record], _ boundaries: [[UInt8]]?, max: Int = 256) -> [DigestDocument.Range] {
        var digests = RangeDigests(boundaries: boundaries, chosenRangesMax: max)
        for record in records {
            record.key.withUnsafeBytes { key in
                record.value.withUnsafeBytes { value in
                    digests.add(key: key, StoredValue(version: Version(rawValue: record.version), bytes: value))
                }
            }
        }
        return digests.finish()
    }

    private func records(_ count: Int, _ generator: inout SeededGenerator) -> [Record] {
        (0..<count).map { index in
            (
                key: Array("key-\(1_000_000 + index)".utf8), version: generator.next(),
                value: generator.bytes(Int.random(in: 0..<20, using: &generator))
            )
        }
    }

    /// The checksum as documented, the slow way.
    private func checksum(_ records: some Sequence<Record>) -> String {
        var bytes: [UInt8] = []
        for record in records {
            withUnsafeBytes(of: UInt32(record.key.count).littleEndian) { bytes += $0 }
            bytes += record.key
            withUnsafeBytes(of: record.version.littleEndian) { bytes += $0 }
            withUnsafeBytes(of: UInt32(record.value.count).littleEndian) { bytes += $0 }
            bytes += record.value
        }
        let sum = bytes.withUnsafeBytes { CRC32C.checksum($0) }
        let digits = String(sum, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }

    @Test func noRecordsAreOneEmptyRange() {
        #expect(digests([], nil) == [DigestDocument.Range(start: "", keys: 0, crc32c: "00000000")])
        let asked = digests([], [Array("b".utf8), Array("c d".utf8)])
        #expect(asked.map(\.start) == ["", "b", "c%20d"] && asked.allSatisfy { $0.keys == 0 })
    }

    @Test(arguments: [UInt64(1), 2]) func chosenRangesAreBoundedAndEven(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for (count, max) in [(1, 4), (3, 4), (4, 4), (5, 4), (1_000, 7), (1_000, 8), (5_000, 256), (255, 256)] {
            let records = records(count, &generator)
            let ranges = digests(records, nil, max: max)
            #expect(ranges.count <= max && ranges.count >= min(count, max / 2), "\(count) in \(ranges.count)")
            #expect(ranges.reduce(0) { $0 + $1.keys } == count)
            let full = ranges[0].keys
            #expect(ranges.dropLast().allSatisfy { $0.keys == full } && ranges.last.map { $0.keys <= full } == true)
            var from = 0
            for (index, range) in ranges.enumerated() {
                let part = records[from..<from + Int(range.keys)]
                #expect(range.crc32c == checksum(part), "seed \(seed) range \(index)")
                #expect(range.start == (index == 0 ? "" : PercentCoding.encode(part.first?.key ?? [])))
                from += Int(range.keys)
            }
            // Asked for the same ranges, another replica answers the same.
            let boundaries = ranges.dropFirst().compactMap { PercentCoding.decode($0.start.utf8) }
            #expect(digests(records, boundaries) == ranges, "seed \(seed)")
        }
    }

    @Test func oneChangedByteChangesItsRangeOnly() {
        var generator = SeededGenerator(seed: 7)
        let records = records(400, &generator)
        let ranges = digests(records, nil, max: 16)
        let boundaries = ranges.dropFirst().compactMap { PercentCoding.decode($0.start.utf8) }
        func differing(_ records: [Record]) -> [Int] {
            zip(digests(records, boundaries), ranges).enumerated().filter { $1.0 != $1.1 }.map(\.offset)
        }
        #expect(ranges.count >= 8)
        var changed = records
        changed[40].value += [0]
        #expect(differing(changed) == [1])
        changed = records
        changed[0].version += 1
        #expect(differing(changed) == [0])
        changed = records
        changed.remove(at: 399)
        #expect(differing(changed) == [ranges.count - 1])
    }

    @Test func boundariesAreChecked() throws {
        func refused(_ boundaries: [[UInt8]]) -> Bool {
            let error = #expect(throws: KVError.self) { try RangeDigests.check(boundaries) }
            return error?.code == .invalidArgument
        }
        #expect(refused([[]]) && refused([[2], [1]]) && refused([[1], [1]]))
        #expect(refused([[UInt8](repeating: 1, count: Limits.keyBytesMax + 1)]))
        #expect(refused((0..<1_024).map { [UInt8($0 >> 8), UInt8($0 & 255), 1] }))
        try RangeDigests.check((0..<1_023).map { [UInt8($0 >> 8), UInt8($0 & 255), 1] })
        try RangeDigests.check([])
    }

    // MARK: Positions

    @Test func aPushStopsWhereADigestWaits() throws {
        let leader = WriterCoreTests.Rig()
        try leader.core.startLeading()
        for index in 0..<9 {
            try leader.submit(index, [put("k\(index)", "v")])
            _ = leader.core.drain()
        }
        guard case .frames(var buffer, _) = leader.log.read(after: .start, bytesMax: .max) else { return }
        var frames: [LogFrame] = []
        while let frame = try LogFrame.decode(from: &buffer) { frames.append(frame) }
        let follower = WriterCoreTests.Rig(role: .follower(term: 1)) { $0.positionStopsMax = 2 }
        let reached = Collector<Result<LogPosition, KVError>>()
        follower.core.stop(at: 4) { [sink = follower.sink] in
            #expect(sink.state.withLock { $0.batches.count } == 1, "called between two batches")
            reached.add($0)
        }
        follower.core.stop(at: 99) { reached.add($0) }
        follower.core.stop(at: 5) { reached.add($0) }
        #expect(reached.all.count == 1 && isFailure(reached.all[0], .overloaded))
        let outcome = follower.core.apply(ApplyRequest(frames: frames, leaderTerm: 1) { _ in })
        #expect(outcome.failure == nil && outcome.position.lsn == 10)
        #expect(follower.batches.count == 2, "joined up to the stop, and from there on")
        #expect(try reached.all.count == 2 && reached.all[1].get() == frames[3].position)
        follower.core.stop(at: 3) { reached.add($0) }
        #expect(reached.all.count == 3 && isFailure(reached.all[2], .logMismatch))
        follower.core.stop(at: nil) { reached.add($0) }
        #expect(try reached.all.count == 4 && reached.all[3].get() == outcome.position)
        // The one that is never reached ends with its time.
        #expect(follower.core.drain() == 1_000)
        follower.clock.advance(1_000)
        #expect(follower.core.drain() == nil)
        #expect(reached.all.count == 5 && isFailure(reached.all[4], .timedOut))
    }

    private func isFailure(_ result: Result<LogPosition, KVError>, _ code: KVError.Code) -> Bool {
        if case .failure(let error) = result { error.code == code } else { false }
    }

    @Test func equalReplicasHaveEqualDigests() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.directory += "-leader"
        let leader = try ShardReplica.openTest(configuration)
        configuration.directory = directory.path + "/follower"
        let follower = try ShardReplica.openTest(configuration, role: .follower(term: 1))
        for index in 0..<600 { _ = try await leader.write([put("key/\(index)", "v"), delete("key/\(index / 2)")]) }
        let middle = try leader.readAll()[300].position
        let frames = try leader.readAll()
        let waiting = Task { try await follower.digest(at: middle.lsn) }
        let begun = await follower.apply(Array(frames[..<301]), leaderTerm: 1)
        #expect(begun.failure == nil && begun.position == middle)
        #expect(try await waiting.value.position == middle)
        let rest = await follower.apply(frames, leaderTerm: 1)
        #expect(rest.failure == nil && rest.position == leader.position)
        let whole = try await leader.digest()
        #expect(whole.position == leader.position && whole.ranges.reduce(0) { $0 + $1.keys } == 300)
        #expect(whole.ranges.count >= 128 && whole.ranges[0].start.isEmpty)
        let boundaries = whole.ranges.dropFirst().compactMap { PercentCoding.decode($0.start.utf8) }
        let own = try await follower.digest(
            boundaries: boundaries, expiringAfter: whole.expiringAfter, at: whole.position.lsn)
        #expect(own == whole)
        // A value that differs behind the log's back is found.
        var builder = WriteBatchBuilder()
        builder.put(key: ByteBuffer(string: "key/450"), version: Version(rawValue: 1), value: ByteBuffer(string: "x"))
        try builder.finish().withUnsafeReadableBytes { bytes in try follower.database.write(bytes, sync: false) }
        let other = try await follower.digest(boundaries: boundaries, at: whole.position.lsn)
        #expect(zip(other.ranges, whole.ranges).filter { $0 != $1 }.count == 1)
        let unsorted = await #expect(throws: KVError.self) { try await leader.digest(boundaries: [[2], [1]]) }
        #expect(unsorted?.code == .invalidArgument)
        let past = await #expect(throws: KVError.self) { try await leader.digest(at: 3) }
        #expect(past?.code == .logMismatch)
        // Every snapshot is released: the databases close.
        try await leader.close()
        try await follower.close()
    }

    private func untilStopped(_ replica: ShardReplica) async throws {
        let deadline = ContinuousClock.now + .seconds(10)
        while await replica.writer.stopsWaiting == 0 {
            guard ContinuousClock.now < deadline else { throw DeadlineExceeded() }
            await Task.yield()
        }
    }

    /// A digest is of one moment whatever is written meanwhile, and two at once are refused.
    @Test func writesGoOnDuringADigest() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.digestWaitMilliseconds = 60_000
        let replica = try ShardReplica.openTest(configuration)
        for index in 0..<200 { _ = try await replica.write([put("key-\(index)", "v")]) }
        let target = replica.position.lsn + 1
        let waiting = Task { try await replica.digest(at: target) }
        try await untilStopped(replica)
        let refused = await #expect(throws: KVError.self) { try await replica.digest() }
        #expect(refused?.code == .overloaded)
        for index in 0..<50 { _ = try await replica.write([put("more-\(index)", "v")]) }
        let digest = try await waiting.value
        #expect(digest.position.lsn == target && digest.ranges.reduce(0) { $0 + $1.keys } == 201)
        try await replica.close()
    }

    @Test func aCloseEndsAWaitingDigest() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.digestWaitMilliseconds = 60_000
        let replica = try ShardReplica.openTest(configuration)
        let waiting = Task { try await replica.digest(at: 99) }
        try await untilStopped(replica)
        try await replica.close()
        let error = await #expect(throws: KVError.self) { _ = try await waiting.value }
        #expect(error?.code == .unavailable)
    }
}
