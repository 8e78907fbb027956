import Core
import LSM
import NIOCore
import Synchronization
import Testing
import Wire

@testable import Shard

/// The writer without its thread, over a sink in memory.
@Suite struct WriterCoreTests {
    final class Rig {
        let sink: TwinSink
        let promises: TwinPromises
        let clock = ManualClock()
        let log: CommitLog
        let inbox: WriterInbox
        var core: WriterCore
        let receipts = Collector<(Int, WriteReceipt)>()

        init(
            durability: Durability = .os, role: ShardRole = .leader(term: 1), position: LogPosition = .start,
            sink: TwinSink = TwinSink(), promises: TwinPromises = TwinPromises(),
            adjust: (inout ShardConfiguration) -> Void = { _ in }
        ) {
            var configuration = ShardConfiguration(name: "shard-0", cluster: "test", directory: "/nowhere")
            configuration.durability = durability
            self.sink = sink
            self.promises = promises
            adjust(&configuration)
            log = CommitLog(
                position: position, ringBytesMax: configuration.ringBytesMax, waitersMax: configuration.waitersMax)
            inbox = WriterInbox(
                shard: "shard-0", bytesMax: configuration.inboxBytesMax,
                operationsMax: configuration.inboxOperationsMax)
            core = WriterCore(
                configuration: configuration, role: role, position: position, latestSequence: 0,
                promise: promises.state.withLock { $0.promise }, sink: sink, values: sink, promises: promises,
                log: log, inbox: inbox, clock: clock.clock, expiries: ExpiryClock(clock.clock), logger: quietLogger)
        }

        func submit(_ id: Int, _ operations: [WriteOperation], isAtomic: Bool = false) throws {
            let load = WriterInbox.Load(
                bytes: operations.reduce(0) { $0 + $1.bytes }, operations: operations.count)
            _ = try inbox.add(
                .write(Submission(operations: operations, isAtomic: isAtomic) { [receipts] in receipts.add((id, $0)) }),
                load)
        }

        var batches: [[UInt8]] { sink.state.withLock { $0.batches } }
        func receipt(_ id: Int) -> WriteReceipt? { receipts.all.first { $0.0 == id }?.1 }
    }

    /// (position, keys) of a written batch.
    private func decode(_ batch: [UInt8]) throws -> (LogPosition, [String]) {
        try batch.withUnsafeBytes { bytes in
            var reader = try WriteBatchReader(bytes)
            let first = try #require(try reader.next())
            #expect(SystemRecords.isPositionKey(first.key))
            let position = try #require(first.value.flatMap { SystemRecords.decodePosition($0) })
            var keys: [String] = []
            while let record = try reader.next() { keys.append(String(decoding: record.key[1...], as: UTF8.self)) }
            return (position, keys)
        }
    }

    @Test func whatWaitsBecomesOneBatchInOrder() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1"), put("b", "2")])
        try rig.submit(2, [delete("a")])
        try rig.submit(3, [put("c", "3")])
        #expect(rig.core.drain() == nil)
        #expect(rig.batches.count == 1)
        let (position, keys) = try decode(rig.batches[0])
        #expect(keys == ["a", "b", "a", "c"])
        #expect(position.term == 1 && position.lsn == 1)
        #expect(rig.receipts.all.map(\.0) == [1, 2, 3])
        let versions = [
            rig.receipt(1)?.version(at: 0), rig.receipt(1)?.version(at: 1), rig.receipt(2)?.version(at: 0),
            rig.receipt(3)?.version(at: 0),
        ].compactMap { $0?.rawValue }
        #expect(versions == (0..<4).map { 1_000_000 << 16 + $0 })
        #expect(position.version.rawValue == versions.last)
        #expect(rig.receipt(1)?.version(at: 2) == nil)
        #expect(rig.log.committed == position)
    }

    @Test func aBarrierBeginsTheTerm() throws {
        let rig = Rig(role: .leader(term: 3), position: LogPosition(term: 2, lsn: 7, version: Version(rawValue: 9)))
        try rig.core.startLeading()
        #expect(rig.batches.count == 1)
        try rig.batches[0].withUnsafeBytes { bytes in
            try LogBatch.validate(
                bytes, is: rig.core.position, after: LogPosition(term: 2, lsn: 7, version: Version(rawValue: 9)))
        }
        #expect(rig.core.position.term == 3 && rig.core.position.lsn == 8)
        try rig.core.startLeading()
        #expect(rig.batches.count == 1, "once a term")
        let stale = Rig(role: .leader(term: 1), position: LogPosition(term: 2, lsn: 7, version: Version(rawValue: 9)))
        try stale.core.startLeading()
        #expect(stale.core.role == .follower(term: 2) && stale.batches.isEmpty)
    }

    @Test func versionsRiseWhenTheClockGoesBack() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1")])
        _ = rig.core.drain()
        rig.clock.setWall(5)
        try rig.submit(2, [put("a", "2"), put("b", "2")])
        _ = rig.core.drain()
        rig.clock.setWall(2_000_000)
        try rig.submit(3, [put("a", "3")])
        _ = rig.core.drain()
        let versions = [
            rig.receipt(1)?.version(at: 0), rig.receipt(2)?.version(at: 0), rig.receipt(2)?.version(at: 1),
            rig.receipt(3)?.version(at: 0),
        ].compactMap { $0?.rawValue }
        let first: UInt64 = 1_000_000 << 16
        #expect(versions == [first, first + 1, first + 2, 2_000_000 << 16])
    }

    @Test func boundsSplitWhatWaits() throws {
        let rig = Rig { $0.batchOperationsMax = 3 }
        try rig.submit(1, [put("a", "1"), put("b", "1")])
        try rig.submit(2, (0..<5).map { put("k\($0)", "2") })
        try rig.submit(3, [put("z", "3")])
        _ = rig.core.drain()
        let decoded = try rig.batches.map { try decode($0) }
        #expect(decoded.map(\.1) == [["a", "b", "k0"], ["k1", "k2", "k3"], ["k4", "z"]])
        #expect(decoded.map(\.0.lsn) == [1, 2, 3])
        let receipt = try #require(rig.receipt(2))
        #expect(receipt.committed == 5 && receipt.failure == nil && receipt.position.lsn == 3)
        let versions = (0..<5).compactMap { receipt.version(at: $0)?.rawValue }
        #expect(versions.count == 5 && versions == versions.sorted() && Set(versions).count == 5)

        let large = Rig { $0.batchBytesMax = 1_000 }
        let value = String(repeating: "v", count: 5_000)
        try large.submit(1, [put("a", "1"), put("large", value), put("b", "1")])
        _ = large.core.drain()
        #expect(try large.batches.map { try decode($0).1 } == [["a"], ["large"], ["b"]])
    }

    @Test func durabilityDecidesWhenToSync() throws {
        let always = Rig(durability: .always)
        try always.submit(1, [put("a", "1")])
        try always.submit(2, [put("b", "1")])
        #expect(always.core.drain() == nil)
        #expect(always.sink.state.withLock { $0.syncedWrites } == 1)
        #expect(always.sink.state.withLock { $0.syncs } == 0)

        let os = Rig(durability: .os)
        try os.submit(1, [put("a", "1")])
        #expect(os.core.drain() == nil)
        os.clock.advance(10_000)
        #expect(os.core.drain() == nil)
        #expect(os.sink.state.withLock { $0.syncedWrites + $0.syncs } == 0)

        let interval = Rig(durability: .interval)
        #expect(interval.core.drain() == nil, "nothing written, nothing to sync")
        try interval.submit(1, [put("a", "1")])
        #expect(interval.core.drain() == 100)
        interval.clock.advance(60)
        try interval.submit(2, [put("b", "1")])
        #expect(interval.core.drain() == 40, "the oldest write decides")
        interval.clock.advance(40)
        #expect(interval.core.drain() == nil)
        #expect(interval.sink.state.withLock { $0.syncs } == 1)
        #expect(interval.sink.state.withLock { $0.syncedWrites } == 0)
        interval.clock.advance(1_000)
        #expect(interval.core.drain() == nil)
        #expect(interval.sink.state.withLock { $0.syncs } == 1)
        for rig in [os, interval] { try rig.core.syncForClose() }
        #expect(os.sink.state.withLock { $0.syncs } == 1, "a clean close syncs")
    }

    @Test func aFailedWriteReachesItsWaitersAndStopsTheShard() throws {
        let rig = Rig(durability: .always) { $0.batchOperationsMax = 2 }
        try rig.submit(1, [put("a", "1")])
        _ = rig.core.drain()
        let before = rig.core.position
        rig.sink.state.withLock { $0.failWrites = KVError(.storageFull, "no space") }
        try rig.submit(2, [put("b", "1")])
        try rig.submit(3, [put("c", "1"), put("d", "1")])
        _ = rig.core.drain()
        #expect(rig.receipt(1)?.failure == nil)
        for id in [2, 3] {
            #expect(rig.receipt(id)?.failure?.code == .storageFull)
            #expect(rig.receipt(id)?.committed == 0)
        }
        #expect(rig.receipts.all.count == 3, "each once")
        #expect(rig.core.position == before && rig.log.committed == before, "the lsn is not used, nothing published")
        rig.sink.state.withLock { $0.failWrites = nil }
        let error = #expect(throws: KVError.self) { try rig.submit(4, [put("e", "1")]) }
        #expect(error?.code == .storageFull)
        #expect(error?.message.contains("restart") == true)
        _ = rig.core.drain()
        #expect(rig.batches.count == 1, "nothing is written after a failure")
    }

    @Test func aSubmissionThatFailsHalfwaySaysWhatIsCommitted() throws {
        let rig = Rig { $0.batchOperationsMax = 2 }
        let failing = FailAfter(1)
        rig.core = WriterCore(
            configuration: rig.core.configuration, role: .leader(term: 1), position: .start, latestSequence: 0,
            promise: nil, sink: failing, values: rig.sink, promises: rig.promises, log: rig.log, inbox: rig.inbox,
            clock: rig.clock.clock, expiries: ExpiryClock(rig.clock.clock), logger: quietLogger)
        try rig.submit(1, (0..<5).map { put("k\($0)", "1") })
        _ = rig.core.drain()
        let receipt = try #require(rig.receipt(1))
        #expect(receipt.committed == 2 && receipt.failure != nil)
        #expect(receipt.version(at: 1) != nil && receipt.version(at: 2) == nil)
    }

    @Test func aFailedSyncStopsTheShard() throws {
        let rig = Rig(durability: .interval)
        try rig.submit(1, [put("a", "1")])
        _ = rig.core.drain()
        rig.sink.state.withLock { $0.failSyncs = KVError(.storageFailed, "I/O error") }
        rig.clock.advance(100)
        #expect(rig.core.drain() == nil)
        #expect(rig.core.failure?.code == .storageFailed)
        #expect(throws: KVError.self) { try rig.submit(2, [put("b", "1")]) }
    }

    @Test func theInboxIsBounded() throws {
        let rig = Rig {
            $0.inboxOperationsMax = 3
            $0.inboxBytesMax = 1_000
        }
        try rig.submit(1, [put("a", "1"), put("b", "1")])
        let tooMany = #expect(throws: KVError.self) { try rig.submit(2, [put("c", "1"), put("d", "1")]) }
        #expect(tooMany?.code == .overloaded)
        let tooLarge = #expect(throws: KVError.self) {
            try rig.submit(3, [put("c", String(repeating: "v", count: 2_000))])
        }
        #expect(tooLarge?.code == .overloaded)
        _ = rig.core.drain()
        try rig.submit(4, [put("c", String(repeating: "v", count: 2_000))])
        _ = rig.core.drain()
        #expect(rig.receipts.all.map(\.0) == [1, 4])
    }

    @Test func waitersAreCalledOnce() throws {
        let rig = Rig()
        let called = Collector<Result<LogPosition, KVError>>()
        guard case .waiting = try rig.log.wait(after: 0, { called.add($0) }),
            case .waiting(let later) = try rig.log.wait(after: 5, { called.add($0) })
        else {
            Issue.record("nothing is committed yet")
            return
        }
        try rig.submit(1, [put("a", "1")])
        _ = rig.core.drain()
        #expect(called.all.count == 1)
        guard case .ready(let position) = try rig.log.wait(after: 0, { called.add($0) }) else {
            Issue.record("lsn 1 is committed")
            return
        }
        #expect(position.lsn == 1)
        #expect(rig.log.cancel(later))
        #expect(!rig.log.cancel(later))
        guard case .waiting = try rig.log.wait(after: 1, { called.add($0) }) else {
            Issue.record("lsn 2 is not committed")
            return
        }
        rig.log.close()
        #expect(called.all.count == 2)
        #expect(throws: KVError.self) { try called.all[1].get() }
        #expect(throws: KVError.self) { _ = try rig.log.wait(after: 1, { called.add($0) }) }
    }

    /// Lets some writes through and fails the rest.
    final class FailAfter: WriteSink {
        private let left: Collector<Int>
        private let max: Int
        init(_ max: Int) {
            self.max = max
            left = Collector()
        }
        func write(_ batch: UnsafeRawBufferPointer, sync: Bool) throws(KVError) {
            left.add(1)
            if left.all.count > max { throw KVError(.storageFailed, "I/O error") }
        }
        func syncWAL() throws(KVError) {}
        func trimArchivedLogs(keepingBytes bytes: Int) throws(KVError) -> Int { 0 }
    }
}
