import Core
import LSM
import Logging
import NIOCore
import Wire

/// What the shard's writer knows and does, without its thread: turns what waits into batches, in order.
///
/// Invariants: one batch at a time; `lsn` rises by one with every batch that is known to be written; versions rise
/// whatever the wall clock does; after a failed write nothing is written any more, because that batch may or may
/// not be in the log and its lsn must not be used twice.
struct WriterCore {
    let configuration: ShardConfiguration
    let sink: any WriteSink
    let values: any ValueSource
    let promises: any PromiseStore
    let published: PublishedRole
    let log: CommitLog
    let inbox: WriterInbox
    let clock: ShardClock
    let expiries: ExpiryClock
    let logger: Logger

    var terms: TermState
    /// While set, everything in the inbox waits.
    var hold: ActiveHold?
    var holdsBegun: UInt64 = 0
    var stops: PositionStops
    /// While this replica is joining.
    var joining: JoiningMark?
    /// Told where a write fails because something is damaged.
    var damage: ReplicaDamage?
    /// The newest batch written.
    private(set) var position: LogPosition
    private(set) var failure: KVError?
    private var versions: HybridLogicalClock
    /// The sequence number RocksDB gives the next record.
    private(set) var nextSequence: UInt64
    /// When the oldest write that no fsync has followed yet was made; only with ``Durability/interval``.
    private var unsyncedSinceMilliseconds: UInt64?
    private var logBytesSinceTrim = 0

    /// A leader that the log or the promise does not let lead starts as a follower.
    /// - Parameter latestSequence: RocksDB's newest sequence number.
    init(
        configuration: ShardConfiguration, role: ShardRole, position: LogPosition, latestSequence: UInt64,
        promise: TermPromise?, sink: any WriteSink, values: any ValueSource, promises: any PromiseStore, log: CommitLog,
        inbox: WriterInbox, clock: ShardClock, expiries: ExpiryClock, logger: Logger
    ) {
        self.configuration = configuration
        self.position = position
        self.sink = sink
        self.values = values
        self.promises = promises
        self.log = log
        self.inbox = inbox
        self.clock = clock
        self.expiries = expiries
        self.logger = logger
        terms = TermState(
            shard: configuration.name, node: configuration.node, role: role, logTerm: position.term, promise: promise)
        published = PublishedRole(terms.role)
        stops = PositionStops(shard: configuration.name, max: configuration.positionStopsMax)
        versions = HybridLogicalClock(last: position.version)
        expiries.observe(position.version)
        nextSequence = latestSequence + 1
    }

    var role: ShardRole { terms.role }
    var newestTerm: UInt64 { terms.newestTerm }

    // MARK: Draining

    /// Emptyings of the inbox before the writer's other jobs get a turn.
    private static let roundsMax = 64

    /// Works through the inbox, then does what is due.
    /// - Returns: milliseconds after which to drain again, because something is due then or more is waiting; nil for
    ///   never.
    mutating func drain() -> UInt64? {
        endHoldIfDue()
        if stops.nextMilliseconds != nil { stops.expire(now: clock.monotonicMilliseconds(), at: position) }
        if let mark = joining, mark.removeIfOver() { joining = nil }
        for _ in 0..<WriterCore.roundsMax {
            if hold != nil {
                inbox.settle()
                return doWhatIsDue()
            }
            let items = inbox.take()
            if items.isEmpty { return doWhatIsDue() }
            process(items)
            syncIfDue()
        }
        return 0
    }

    /// Milliseconds until the next thing is due; nil for never.
    private mutating func doWhatIsDue() -> UInt64? {
        let sync = syncIfDue()
        guard let due = [hold?.untilMilliseconds, stops.nextMilliseconds].compactMap(\.self).min() else { return sync }
        let left = due - min(due, clock.monotonicMilliseconds())
        return min(left, sync ?? left)
    }

    private mutating func process(_ items: [WriterInbox.Item]) {
        var submissions: [Submission] = []
        submissions.reserveCapacity(items.count)
        for item in items {
            switch item {
            case .write(let submission):
                submissions.append(submission)
            case .apply(let request):
                commit(submissions)
                submissions.removeAll(keepingCapacity: true)
                request.completion(apply(request))
            }
        }
        commit(submissions)
    }

    // MARK: Leading

    /// Writes the barrier batch of a term that this replica begins to lead.
    mutating func writeBarrier(term: UInt64) throws(KVError) {
        let barrier = LogPosition(
            term: term, lsn: position.lsn + 1, version: versions.next(wallMilliseconds: expiries.now()))
        var builder = WriteBatchBuilder(
            reservedBytes: LogFrame.headerBytes, capacity: SystemRecords.batchOverheadBytes)
        builder.putPosition(barrier)
        builder.putTermStart(TermStart(term: term, firstLsn: barrier.lsn, previousVersion: position.version))
        try write(builder, at: barrier)
    }

    private struct Cursor {
        var submission = 0
        var operation = 0
    }

    private struct Span {
        var end: Cursor
        var operations = 0
        var bytes = 0
        /// Whether some operation depends on what is stored.
        var isChecked = false
    }

    /// What a span has become.
    private struct Settled {
        /// Of the first operation that has one; the others follow one by one.
        var firstVersion: Version
        /// Where in the submissions there is something to say beyond that.
        var remarks: [BatchAssembly.Noted]
    }

    /// Turns submissions into batches and answers each once, as soon as its last operation is settled.
    private mutating func commit(_ submissions: [Submission]) {
        var receipts = [WriteReceipt](repeating: WriteReceipt(), count: submissions.count)
        var start = Cursor()
        while start.submission < submissions.count {
            do throws(KVError) {
                if let failure { throw failure }
                guard case .leader(let term) = role else {
                    throw KVError(.notLeader, "this node does not lead \(configuration.name)")
                }
                let span = nextSpan(of: submissions, from: start)
                let settled = try commit(span, of: submissions, from: start, term: term)
                note(span, from: start, settled, in: &receipts, of: submissions)
                start = span.end
            } catch {
                for index in start.submission..<submissions.count {
                    receipts[index].failure = error
                    submissions[index].completion(receipts[index])
                }
                return
            }
        }
    }

    /// What goes into the next batch: as much as the bounds allow, one operation or atomic submission at least.
    private func nextSpan(of submissions: [Submission], from start: Cursor) -> Span {
        var span = Span(end: start)
        while span.end.submission < submissions.count {
            let operations = submissions[span.end.submission].operations
            if submissions[span.end.submission].isAtomic {
                guard span.operations == 0 || fits(operations, into: span) else { return span }
                for operation in operations {
                    span.isChecked = span.isChecked || operation.isChecked
                    span.bytes += operation.bytes
                }
                span.operations += operations.count
                span.end.operation = operations.count
            }
            while span.end.operation < operations.count {
                let bytes = operations[span.end.operation].bytes
                if span.operations > 0,
                    span.bytes + bytes > configuration.batchBytesMax
                        || span.operations >= configuration.batchOperationsMax
                {
                    return span
                }
                span.isChecked = span.isChecked || operations[span.end.operation].isChecked
                span.bytes += bytes
                span.operations += 1
                span.end.operation += 1
            }
            span.end.submission += 1
            span.end.operation = 0
        }
        return span
    }

    private func fits(_ operations: [WriteOperation], into span: Span) -> Bool {
        span.operations + operations.count <= configuration.batchOperationsMax
            && operations.reduce(span.bytes) { $0 + $1.bytes } <= configuration.batchBytesMax
    }

    /// Writes one batch; none where every operation of the span is refused.
    private mutating func commit(
        _ span: Span, of submissions: [Submission], from start: Cursor, term: UInt64
    ) throws(KVError) -> Settled {
        let times = expiries.times()
        let firstVersion = versions.next(wallMilliseconds: times.now)
        var next = LogPosition(
            term: term, lsn: position.lsn + 1,
            version: Version(rawValue: firstVersion.rawValue + UInt64(span.operations) - 1))
        var builder = WriteBatchBuilder(
            reservedBytes: LogFrame.headerBytes, capacity: span.bytes + SystemRecords.batchOverheadBytes)
        builder.putPosition(next)
        var assembly = BatchAssembly(
            consume builder, firstVersion: firstVersion, lifeBegins: times.lifeBegins,
            checks: span.isChecked
                ? CheckedWrites(
                    values, now: times.now, lifeBegins: times.lifeBegins, readBytesMax: configuration.readBytesMax)
                : nil)
        var cursor = start
        while cursor.submission < submissions.count, cursor.submission <= span.end.submission {
            let submission = submissions[cursor.submission]
            let end =
                cursor.submission < span.end.submission ? submission.operations.count : span.end.operation
            if cursor.operation < end { assembly.add(cursor.operation..<end, of: submission, at: cursor.submission) }
            cursor = Cursor(submission: cursor.submission + 1, operation: 0)
        }
        let remarks = assembly.remarks
        next.version = assembly.lastVersion
        versions.observe(next.version)
        let batch = assembly.finish()
        if batch.count > 1 { try write(consume batch, at: next) }
        return Settled(firstVersion: firstVersion, remarks: remarks)
    }

    /// Enters a written batch into the receipts and answers the submissions it completes.
    private func note(
        _ span: Span, from start: Cursor, _ settled: Settled, in receipts: inout [WriteReceipt],
        of submissions: [Submission]
    ) {
        var remarks = settled.remarks[...]
        var version = settled.firstVersion
        var cursor = start
        while cursor.submission < submissions.count, cursor.submission <= span.end.submission {
            let isWhole = cursor.submission < span.end.submission
            let end = isWhole ? submissions[cursor.submission].operations.count : span.end.operation
            if end > cursor.operation {
                var committed = end - cursor.operation
                while let noted = remarks.first, noted.submission == cursor.submission {
                    receipts[cursor.submission].note(noted.remark, at: noted.operation)
                    if !noted.remark.takesVersion { committed -= 1 }
                    remarks.removeFirst()
                }
                receipts[cursor.submission].settle(
                    operations: end - cursor.operation, firstVersion: version, position: position)
                version = Version(rawValue: version.rawValue + UInt64(committed))
            }
            if isWhole { submissions[cursor.submission].completion(receipts[cursor.submission]) }
            cursor = Cursor(submission: cursor.submission + 1, operation: 0)
        }
    }

    // MARK: Writing

    /// Writes one log batch of this replica's own making.
    /// - Parameter builder: with ``LogFrame/headerBytes`` bytes reserved, and the position record first.
    private mutating func write(_ builder: consuming WriteBatchBuilder, at position: LogPosition) throws(KVError) {
        let records = builder.count
        var frame = builder.finish()
        LogFrame.seal(&frame, position: position)
        let batch = CommitLog.Batch(position: position, frame: frame, sequence: nextSequence)
        try write(frame, records: records, batches: [batch])
    }

    /// Writes one RocksDB batch that holds the given log batches, then publishes them.
    /// - Parameter frame: ``LogFrame/headerBytes`` bytes of anything and then the batch.
    mutating func write(_ frame: ByteBuffer, records: UInt32, batches: [CommitLog.Batch]) throws(KVError) {
        guard let newest = batches.last?.position else { return }
        let sync = configuration.durability == .always
        let error: KVError? = frame.withUnsafeReadableBytes { bytes in
            do throws(KVError) {
                try sink.write(UnsafeRawBufferPointer(rebasing: bytes[LogFrame.headerBytes...]), sync: sync)
                return nil
            } catch {
                return error
            }
        }
        if let error { throw stopWriting(error) }
        position = newest
        versions.observe(newest.version)
        expiries.observe(newest.version)
        nextSequence += UInt64(records)
        if configuration.durability == .interval, unsyncedSinceMilliseconds == nil {
            unsyncedSinceMilliseconds = clock.monotonicMilliseconds()
        }
        log.publish(batches)
        stops.reached(position)
        trimLogIfDue(written: frame.readableBytes)
    }

    /// Sticky: a write or fsync that failed leaves the end of the log unknown.
    private mutating func stopWriting(_ cause: KVError) -> KVError {
        let stopped = KVError(
            cause.code,
            "\(configuration.name) takes no writes since one failed: "
                + "fix the cause and restart the node: \(cause.message)", cause: cause.cause)
        failure = stopped
        damage?.note(cause, foundBy: .write)
        unsyncedSinceMilliseconds = nil
        inbox.refuse(stopped)
        logger.error("\(stopped.message)", metadata: ["shard": "\(configuration.name)"])
        return stopped
    }

    // MARK: Upkeep

    /// Fsyncs where the interval is over; returns the milliseconds until it is.
    @discardableResult
    private mutating func syncIfDue() -> UInt64? {
        guard let since = unsyncedSinceMilliseconds else { return nil }
        let now = clock.monotonicMilliseconds()
        let due = since + configuration.syncIntervalMilliseconds
        guard now >= due else { return due - now }
        sync()
        return nil
    }

    /// Makes everything written so far durable, unless the durability is `os` or `always` has done so.
    mutating func sync() {
        guard unsyncedSinceMilliseconds != nil else { return }
        unsyncedSinceMilliseconds = nil
        do throws(KVError) {
            try sink.syncWAL()
            log.synced = position
        } catch {
            _ = stopWriting(error)
        }
    }

    /// The last fsync of a clean shutdown, in every durability.
    mutating func syncForClose() throws(KVError) {
        unsyncedSinceMilliseconds = nil
        // A damaged one is to be replaced, and what it could not sync is read from its files.
        guard configuration.durability != .always, failure == nil, damage?.error == nil else { return }
        try sink.syncWAL()
        log.synced = position
    }

    private mutating func trimLogIfDue(written bytes: Int) {
        logBytesSinceTrim += bytes
        guard logBytesSinceTrim >= max(16 << 20, configuration.logRetentionBytes / 16) else { return }
        logBytesSinceTrim = 0
        do throws(KVError) {
            if try sink.trimArchivedLogs(keepingBytes: configuration.logRetentionBytes) > 0 { log.firstLsn = nil }
        } catch {
            // Too much log is kept; nothing is lost, and the next round tries again.
            logger.warning("\(error)", metadata: ["shard": "\(configuration.name)"])
        }
    }
}
