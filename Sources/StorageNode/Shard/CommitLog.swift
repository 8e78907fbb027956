public import Core
public import NIOCore
import Synchronization

/// What a reader of the log gets.
public enum LogRead: Sendable {
    /// Encoded ``LogFrame``s, whole and in order, that follow the reader's position; `last` is the newest of them.
    case frames(ByteBuffer, last: LogPosition)
    /// The reader has everything that is committed.
    case caughtUp(LogPosition)
    /// The answer is not in memory: read again with ``ShardLog/readFromDisk(after:bytesMax:)``.
    case needsDisk
    /// The log no longer reaches back to the reader's position. `firstLsn` is the oldest it holds.
    case truncated(firstLsn: UInt64)
    /// The reader's history is not this replica's.
    case diverged(String)
}

/// The committed end of a shard's log, in memory: the newest frames, the readers that wait for the next one.
///
/// Written by the writer's thread, read from any. What is in here is committed as the durability demands, so
/// nothing is shipped that this replica could still lose.
final class CommitLog: Sendable {
    typealias Callback = @Sendable (Result<LogPosition, KVError>) -> Void

    struct Batch {
        var position: LogPosition
        var frame: ByteBuffer
        /// RocksDB's sequence number of the batch's first record.
        var sequence: UInt64
    }

    private struct Waiter {
        var id: UInt64
        /// What is waited for: a batch after `lsn`, and one of at least `version`.
        var lsn: UInt64
        var version: Version
        var callback: Callback

        func isReached(by committed: LogPosition) -> Bool { committed.lsn > lsn && committed.version >= version }
    }

    private struct State {
        var committed: LogPosition
        var synced: LogPosition
        var ring: FrameRing
        var index = SequenceIndex()
        var waiters: [Waiter] = []
        var nextWaiter: UInt64 = 0
        var firstLsn: UInt64?
        var isClosed = false
    }

    private let state: Mutex<State>
    private let waitersMax: Int

    init(position: LogPosition, ringBytesMax: Int, waitersMax: Int) {
        state = Mutex(
            State(committed: position, synced: position, ring: FrameRing(base: position, bytesMax: ringBytesMax)))
        self.waitersMax = waitersMax
    }

    var committed: LogPosition { state.withLock { $0.committed } }

    /// The newest batch that an fsync has followed which was not a batch's own. With ``Durability/always`` every committed
    /// batch is on disk.
    var synced: LogPosition {
        get { state.withLock { $0.synced } }
        set { state.withLock { $0.synced = newValue } }
    }

    /// The oldest lsn on disk, as last looked up; nil if that is not known any more.
    var firstLsn: UInt64? {
        get { state.withLock { $0.firstLsn } }
        set { state.withLock { $0.firstLsn = newValue } }
    }

    /// Makes batches visible to readers and calls those that wait, on this thread.
    func publish(_ batches: [Batch]) {
        guard let newest = batches.last?.position else { return }
        let ready: [Waiter] = state.withLock { state in
            for batch in batches {
                state.ring.append(batch.frame, at: batch.position)
                state.index.note(
                    lsn: batch.position.lsn, sequence: batch.sequence, bytes: batch.frame.readableBytes)
            }
            state.committed = newest
            guard state.waiters.contains(where: { $0.isReached(by: newest) }) else { return [] }
            let ready = state.waiters.filter { $0.isReached(by: newest) }
            state.waiters.removeAll { $0.isReached(by: newest) }
            return ready
        }
        for waiter in ready { waiter.callback(.success(newest)) }
    }

    /// What memory has for a reader that stands at `position`. Never blocks.
    func read(after position: LogPosition, bytesMax: Int) -> LogRead {
        enum Found {
            case answer(LogRead)
            case frames([ByteBuffer], LogPosition)
        }
        let found: Found = state.withLock { state in
            let committed = state.committed
            if let problem = CommitLog.problem(of: position, committed: committed) { return .answer(problem) }
            guard let own = state.ring.position(at: position.lsn) else { return .answer(.needsDisk) }
            if let problem = CommitLog.disagreement(of: position, with: own) { return .answer(problem) }
            guard let frames = state.ring.frames(after: position.lsn, bytesMax: bytesMax) else {
                return .answer(.caughtUp(committed))
            }
            return .frames(frames.frames, frames.last)
        }
        switch found {
        case .answer(let answer): return answer
        case .frames(let frames, let last): return .frames(CommitLog.join(frames), last: last)
        }
    }

    private static func join(_ frames: [ByteBuffer]) -> ByteBuffer {
        if frames.count == 1 { return frames[0] }
        var joined = ByteBufferAllocator().buffer(capacity: frames.reduce(0) { $0 + $1.readableBytes })
        for frame in frames { joined.writeImmutableBuffer(frame) }
        return joined
    }

    /// A reader that is ahead of this log has a history of its own.
    static func problem(of reader: LogPosition, committed: LogPosition) -> LogRead? {
        if reader.lsn > committed.lsn || reader.term > committed.term {
            return .diverged("the reader is at \(reader), ahead of this replica's \(committed)")
        }
        return nil
    }

    static func disagreement(of reader: LogPosition, with own: LogPosition) -> LogRead? {
        if reader == own { return nil }
        return .diverged(
            "at lsn \(own.lsn) the reader has term \(reader.term) version \(reader.version), "
                + "this replica has term \(own.term) version \(own.version)")
    }

    func samples(around lsn: UInt64) -> (below: SequenceIndex.Sample?, above: SequenceIndex.Sample?) {
        state.withLock { $0.index.around(lsn) }
    }

    /// The position this replica has at `lsn`, where memory still knows.
    func position(at lsn: UInt64) -> LogPosition? { state.withLock { $0.ring.position(at: lsn) } }

    // MARK: Waiting

    func wait(
        after lsn: UInt64, version: Version = .zero, _ callback: @escaping Callback
    ) throws(KVError) -> CommitWait {
        let result: Result<CommitWait, KVError> = state.withLock { state in
            if state.isClosed { return .failure(KVError(.unavailable, "the shard is closed")) }
            if state.committed.lsn > lsn, state.committed.version >= version {
                return .success(.ready(state.committed))
            }
            guard state.waiters.count < waitersMax else {
                return .failure(KVError(.overloaded, "\(waitersMax) readers already wait for this shard's next batch"))
            }
            state.nextWaiter += 1
            state.waiters.append(Waiter(id: state.nextWaiter, lsn: lsn, version: version, callback: callback))
            return .success(.waiting(CommitWait.Token(id: state.nextWaiter)))
        }
        return try result.get()
    }

    func cancel(_ token: CommitWait.Token) -> Bool {
        state.withLock { state in
            guard let index = state.waiters.firstIndex(where: { $0.id == token.id }) else { return false }
            state.waiters.remove(at: index)
            return true
        }
    }

    /// Ends every wait of now.
    func endWaits(_ error: KVError) {
        let waiters = state.withLock { state in
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.callback(.failure(error)) }
    }

    /// Ends every wait, now and later, with `KVError(.unavailable)`.
    func close() {
        state.withLock { $0.isClosed = true }
        endWaits(KVError(.unavailable, "the shard is closed"))
    }
}

/// The answer to a request to wait for the log's next batch.
public enum CommitWait: Sendable {
    /// There is something already: the callback is not called.
    case ready(LogPosition)
    /// The callback will be called once, unless the wait is cancelled first.
    case waiting(Token)

    public struct Token: Sendable, Hashable {
        let id: UInt64
    }
}
