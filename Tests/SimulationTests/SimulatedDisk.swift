import Core
import LSM
import NIOCore
import Sharding
import Synchronization
import Wire

@testable import Shard

/// What a node keeps when its process dies: log, promise, topology, and what it received of a snapshot.
///
/// A write can be the last thing that a process does: it is then kept whole or not at all, and nobody is told.
final class SimulatedDisk: WriteSink, PromiseStore {
    struct Entry: Sendable {
        let position: LogPosition
        /// Of the batch before.
        let previous: LogPosition
        let frame: ByteBuffer
    }

    struct State: Sendable {
        /// The entry with lsn n is at n - 1.
        var entries: [Entry] = []
        /// Entries below are in the database and not in the log any more.
        var firstRetained: UInt64 = 1
        var starts: [TermStart] = []
        var records: UInt64 = 0
        var promise: TermPromise?
        var topology: Topology?
        /// Never caught up with a leader.
        var isJoining = false
        /// A snapshot that is being received, and bytes of its files.
        var staging: (manifest: SnapshotManifest, received: [UInt64])?
        /// Appended since somebody looked.
        var fresh: [Entry] = []
        /// Writes until the process dies in one; nil for never.
        var writesUntilDeath: Int?
        /// Whether the last write is kept.
        var keepsLastWrite = false
        var isDead = false
        var forgetsPromises = false
        /// What must not happen.
        var violation: String?

        var last: LogPosition { entries.last?.position ?? .start }
        var history: TermHistory { TermHistory(starts: starts, end: last) }

        mutating func append(_ entry: Entry) {
            if entry.position.lsn != UInt64(entries.count) + 1 {
                violation = "wrote lsn \(entry.position.lsn) after lsn \(entries.count)"
            }
            if entry.position.term != last.term {
                starts.append(
                    TermStart(
                        term: entry.position.term, firstLsn: entry.position.lsn, previousVersion: last.version))
            }
            entries.append(entry)
            fresh.append(entry)
        }
    }

    let state = Mutex(State())

    func read<Value: Sendable>(_ body: @Sendable (borrowing State) -> Value) -> Value { state.withLock { body($0) } }

    var last: LogPosition { state.withLock { $0.last } }

    /// Does a durable change, unless the process dies before it.
    @discardableResult
    func write(_ change: @Sendable (inout State) -> Void) -> Bool {
        state.withLock { state in
            guard !state.isDead else { return false }
            if let left = state.writesUntilDeath {
                guard left > 0 else {
                    state.isDead = true
                    state.writesUntilDeath = nil
                    if state.keepsLastWrite { change(&state) }
                    return false
                }
                state.writesUntilDeath = left - 1
            }
            change(&state)
            return true
        }
    }

    func write(_ batch: UnsafeRawBufferPointer, sync: Bool) throws(KVError) {
        var entries: [(LogPosition, ByteBuffer)] = []
        for part in try LogBatch.parts(of: batch) {
            entries.append((part.position, LogBatch.frame(of: part, in: batch)))
        }
        let records = batch.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
        let isDone = write { [entries] state in
            for (position, frame) in entries {
                state.append(Entry(position: position, previous: state.last, frame: frame))
            }
            state.records += UInt64(records)
        }
        guard isDone else { throw KVError(.storageFailed, "the process died in a write") }
    }

    func syncWAL() throws(KVError) {}

    func trimArchivedLogs(keepingBytes bytes: Int) throws(KVError) -> Int { 0 }

    func save(_ promise: TermPromise) throws(KVError) {
        let isDone = write { state in
            if !state.forgetsPromises { state.promise = promise }
        }
        guard isDone else { throw KVError(.storageFailed, "the process died in a write") }
    }

    /// What the log on disk has after `position`.
    func readLog(after position: LogPosition, bytesMax: Int) -> LogRead {
        state.withLock { state in
            let last = state.last
            if let problem = CommitLog.problem(of: position, committed: last) { return problem }
            let wanted = max(position.lsn, 1)
            guard state.firstRetained <= wanted, wanted <= last.lsn else {
                return .truncated(firstLsn: state.firstRetained)
            }
            if position.lsn > 0 {
                let own = state.entries[Int(position.lsn) - 1].position
                if let problem = CommitLog.disagreement(of: position, with: own) { return problem }
            }
            var frames = ByteBuffer()
            var end = position
            for entry in state.entries[Int(position.lsn)...] {
                guard frames.readableBytes == 0 || frames.readableBytes + entry.frame.readableBytes <= bytesMax else {
                    break
                }
                frames.writeImmutableBuffer(entry.frame)
                end = entry.position
            }
            return frames.readableBytes == 0 ? .caughtUp(last) : .frames(frames, last: end)
        }
    }
}

/// What is in the database is what the log wrote last.
extension SimulatedDisk: ValueSource {
    func read(key: ByteBuffer, tier: ReadTier, _ body: (Lookup) -> Void) throws(KVError) {
        for entry in read({ $0.entries }).reversed() {
            let isFound: Result<Bool, KVError> = entry.frame.withUnsafeReadableBytes { bytes in
                do throws(KVError) {
                    var found: Lookup?
                    var reader = try WriteBatchReader(UnsafeRawBufferPointer(rebasing: bytes[LogFrame.headerBytes...]))
                    while let record = try reader.next() {
                        guard record.key.first == KeySpace.user,
                            record.key.dropFirst().elementsEqual(key.readableBytesView)
                        else { continue }
                        let stored = record.value.flatMap { StoredValue(decoding: $0) }
                        found = stored.map { .value($0) } ?? .missing
                    }
                    if let found { body(found) }
                    return .success(found != nil)
                } catch {
                    return .failure(error)
                }
            }
            if try isFound.get() { return }
        }
        body(.missing)
    }
}

/// The clocks of one machine: both run with the world's, and the wall clock is off by what somebody set it to.
final class SimulatedClock: Sendable {
    private struct State {
        var now: Instant = 0
        var wallOffsetMilliseconds: Int64 = 0
    }

    private static let epochMilliseconds: Int64 = 1_760_000_000_000
    private let state = Mutex(State())

    func set(now: Instant) { state.withLock { $0.now = now } }
    func step(milliseconds: Int64) { state.withLock { $0.wallOffsetMilliseconds += milliseconds } }

    var wall: UInt64 {
        state.withLock { UInt64(SimulatedClock.epochMilliseconds + $0.now / 1_000 + $0.wallOffsetMilliseconds) }
    }
    var monotonic: UInt64 { state.withLock { UInt64(1_000_000 + $0.now / 1_000) } }
    var shardClock: ShardClock {
        ShardClock(wallMilliseconds: { self.wall }, monotonicMilliseconds: { self.monotonic })
    }
    var reading: ReplicaFreshness.Now { ReplicaFreshness.Now(wall: wall, monotonic: monotonic) }
}
