public import Core
import LSM
import NIOCore
import Synchronization

/// A shard's log as followers read it: from memory where they keep up, else from the write-ahead log.
///
/// Every answer continues the reader's position without a gap, holds only committed batches, and is given only
/// where the reader's own batch is one of this replica's.
public final class ShardLog: Sendable {
    private let commits: CommitLog
    private let database: Database
    private let cursors: CursorCache

    init(commits: CommitLog, database: Database, cursorsMax: Int) {
        self.commits = commits
        self.database = database
        cursors = CursorCache(max: cursorsMax)
    }

    /// The newest committed batch.
    public var committed: LogPosition { commits.committed }

    /// What memory has after `position`; ``LogRead/needsDisk`` where that does not suffice. Never blocks.
    /// - Parameter bytesMax: of the answer; one frame is given even when it is larger.
    public func readFromMemory(after position: LogPosition, bytesMax: Int) -> LogRead {
        commits.read(after: position, bytesMax: bytesMax)
    }

    /// As ``readFromMemory(after:bytesMax:)``, and from the write-ahead log where needed: never
    /// ``LogRead/needsDisk``. Blocks, the first time for a place in the log up to some hundred milliseconds.
    ///
    /// A log that does not go on right after `position`, because its start was deleted or a file in its middle is
    /// gone, is ``LogRead/truncated(firstLsn:)``: what is missing is never skipped.
    ///
    /// Throws `KVError`: `.corrupted` for damaged log, `.storageFailed`, `.unavailable` once closed.
    public func readFromDisk(after position: LogPosition, bytesMax: Int) throws(KVError) -> LogRead {
        let inMemory = commits.read(after: position, bytesMax: bytesMax)
        guard case .needsDisk = inMemory else { return inMemory }
        if let cursor = cursors.take(at: position) {
            do throws(KVError) {
                if case .frames(let frames, let last) = try gather(from: cursor, after: position, bytesMax: bytesMax) {
                    return .frames(frames, last: last)
                }
            } catch  where error.code == .storageFailed {
                // The file it was to go on with was deleted meanwhile, or something worse that shows again below.
            }
            // The log under the cursor is gone; look again.
        }
        var answer = LogRead.needsDisk
        for _ in 0..<ShardLog.looksMax {
            switch try LogLocator(database: database, commits: commits).locate(after: position) {
            case .answer(let located): answer = located
            case .cursor(let cursor): answer = try gather(from: cursor, after: position, bytesMax: bytesMax)
            }
            guard case .truncated(let firstLsn) = answer else { break }
            // A log that does not go on where it should may hold one that cannot be read: then it begins behind that.
            if let first = commits.firstLsn, first <= position.lsn + 1, try database.setUnreadableLogsAside() > 0 {
                commits.firstLsn = nil
                continue
            }
            // A log that seems to end too early may have been rotated just now.
            guard firstLsn > commits.committed.lsn else { break }
        }
        return answer
    }

    /// How often the log is looked at before it is believed to lack its end: that costs the reader a snapshot.
    private static let looksMax = 3

    /// The frames from `cursor` on; `.truncated` where it does not go on right after `position`.
    private func gather(from cursor: LogCursor, after position: LogPosition, bytesMax: Int) throws(KVError) -> LogRead {
        let committed = commits.committed
        var answer = ByteBuffer()
        var last = position
        var nextLsn: UInt64?
        while let next = try cursor.peek(), next.position.lsn <= committed.lsn {
            nextLsn = next.position.lsn
            guard next.position.lsn == last.lsn + 1 else { break }
            guard answer.readableBytes == 0 || answer.readableBytes + next.frame.readableBytes <= bytesMax else {
                break
            }
            if answer.readableBytes == 0 { answer.reserveCapacity(min(bytesMax, ShardLog.answerBytesMin)) }
            answer.writeImmutableBuffer(next.frame)
            last = next.position
            cursor.advance()
        }
        guard answer.readableBytes > 0 else { return .truncated(firstLsn: nextLsn ?? committed.lsn + 1) }
        cursors.put(cursor, at: last)
        return .frames(answer, last: last)
    }

    private static let answerBytesMin = 64 << 10

    /// Calls back once when a batch after `lsn` is committed; from the writer's thread, so hand on and return.
    ///
    /// Throws `KVError(.overloaded)` where too many wait, `.unavailable` once closed; a wait that a close ends
    /// is called back with `.unavailable`, one that the end of the leadership ends with `.notLeader`.
    public func waitForCommit(
        after lsn: UInt64, _ callback: @escaping @Sendable (Result<LogPosition, KVError>) -> Void
    ) throws(KVError) -> CommitWait {
        try commits.wait(after: lsn, callback)
    }

    /// Calls back once when a batch of at least `version` is committed; as ``waitForCommit(after:_:)``.
    public func waitForVersion(
        _ version: Version, _ callback: @escaping @Sendable (Result<LogPosition, KVError>) -> Void
    ) throws(KVError) -> CommitWait {
        try commits.wait(after: 0, version: version, callback)
    }

    /// Ends a wait; true where the callback has not been called and never will be.
    @discardableResult
    public func cancelWait(_ token: CommitWait.Token) -> Bool { commits.cancel(token) }

    /// As ``CommitLog/synced``.
    var synced: LogPosition { commits.synced }

    /// The oldest lsn that a reader can still get, as last looked up; nil where not known.
    public var firstLsn: UInt64? { commits.firstLsn }

    /// Looks the oldest lsn up. Blocks.
    @discardableResult
    public func lookUpFirstLsn() throws(KVError) -> UInt64? {
        let first = try LogLocator(database: database, commits: commits).first()?.first
        commits.firstLsn = first
        return first
    }

    /// Lets the open places in the log go, so that the database can close.
    func close() {
        commits.close()
        cursors.close()
    }
}

/// Open places in the write-ahead log by the position they stand after, the longest unused let go first.
private final class CursorCache: Sendable {
    /// Unchecked because a cursor is used by one thread at a time: whoever took it out of the cache.
    private struct Slot: @unchecked Sendable {
        var position: LogPosition
        var cursor: LogCursor
    }

    private struct State {
        var slots: [Slot] = []
        var isClosed = false
    }

    private let state = Mutex(State())
    private let max: Int

    init(max: Int) { self.max = max }

    func take(at position: LogPosition) -> LogCursor? {
        let slot: Slot? = state.withLock { state in
            guard let index = state.slots.firstIndex(where: { $0.position == position }) else { return nil }
            return state.slots.remove(at: index)
        }
        return slot?.cursor
    }

    func put(_ cursor: LogCursor, at position: LogPosition) {
        let slot = Slot(position: position, cursor: cursor)
        // What is let go closes its iterator: outside the lock.
        let dropped: [Slot] = state.withLock { state in
            guard !state.isClosed else { return [slot] }
            var dropped = state.slots.filter { $0.position == position }
            state.slots.removeAll { $0.position == position }
            state.slots.append(slot)
            while state.slots.count > max { dropped.append(state.slots.removeFirst()) }
            return dropped
        }
        _ = dropped
    }

    func close() {
        let dropped = state.withLock { state in
            state.isClosed = true
            defer { state.slots = [] }
            return state.slots
        }
        _ = dropped
    }
}
