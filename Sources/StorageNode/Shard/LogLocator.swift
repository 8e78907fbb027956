import Core
import LSM

/// Finds the place of an lsn in the write-ahead log, which RocksDB knows by sequence numbers only.
///
/// A batch takes at least one sequence number, so both rise together and a guess between two known pairs lands
/// near. Every probe opens the log and is checked by the lsn it finds; near enough, it reads on.
struct LogLocator {
    let database: Database
    let commits: CommitLog

    enum Located {
        /// Stands right after the reader's position.
        case cursor(LogCursor)
        case answer(LogRead)
    }

    /// Nearer than this many records, reading on is cheaper than another probe (which reads its log file from the
    /// start).
    private static let scanRecordsMax: UInt64 = 50_000
    private static let probesMax = 40

    /// The oldest record of the log; nil where there is none. Blocks.
    ///
    /// Read without RocksDB, which reads the first record of every log for that.
    func first() throws(KVError) -> LogCursor.Record? {
        for path in try database.logPaths() {
            if let record = try LogCursor.first(inLogAt: path) { return record }
        }
        return nil
    }

    func locate(after reader: LogPosition) throws(KVError) -> Located {
        // Who has nothing asks for the first batch; everybody else proves that the batch they have is ours.
        let wanted = max(reader.lsn, 1)
        guard let oldest = try first() else { return .answer(.truncated(firstLsn: commits.committed.lsn + 1)) }
        commits.firstLsn = oldest.first
        guard oldest.first <= wanted else { return .answer(.truncated(firstLsn: oldest.first)) }
        guard let cursor = try cursor(at: wanted, oldest: oldest), let found = try cursor.peek() else {
            // Its newest files are gone.
            return .answer(.truncated(firstLsn: commits.committed.lsn + 1))
        }
        guard found.position.lsn == wanted else {
            // Log was deleted meanwhile, or a file in the middle is gone.
            return .answer(.truncated(firstLsn: found.position.lsn))
        }
        if reader.lsn > 0 {
            if let problem = CommitLog.disagreement(of: reader, with: found.position) { return .answer(problem) }
            cursor.advance()
        }
        return .cursor(cursor)
    }

    /// A cursor whose next batch is the one at `lsn`, or the first after it where that is gone.
    private func cursor(at lsn: UInt64, oldest: LogCursor.Record) throws(KVError) -> LogCursor? {
        let samples = commits.samples(around: lsn)
        var low = SequenceIndex.Sample(lsn: oldest.first, sequence: oldest.sequence)
        if let below = samples.below, below.lsn > low.lsn { low = below }
        let end = SequenceIndex.Sample(lsn: commits.committed.lsn + 1, sequence: try database.latestSequence() + 1)
        var high = samples.above ?? end
        var probes = 0
        while high.sequence > low.sequence + LogLocator.scanRecordsMax, probes < LogLocator.probesMax {
            let guess = LogLocator.guess(lsn, between: low, and: high, halve: probes % 3 == 2)
            probes += 1
            let probe = LogCursor(database, sequence: guess)
            guard let record = try probe.load(framesFrom: lsn), record.sequence < high.sequence else { break }
            if record.first > lsn {
                high = SequenceIndex.Sample(lsn: record.first, sequence: record.sequence)
            } else if record.last < lsn {
                if record.nextSequence + LogLocator.scanRecordsMax > high.sequence || record.last + 64 > lsn {
                    return try scan(probe, to: lsn)
                }
                low = SequenceIndex.Sample(lsn: record.last + 1, sequence: record.nextSequence)
            } else {
                return probe
            }
        }
        return try scan(LogCursor(database, sequence: low.sequence), to: lsn)
    }

    private func scan(_ cursor: LogCursor, to lsn: UInt64) throws(KVError) -> LogCursor? {
        while let record = try cursor.load(framesFrom: lsn) {
            if record.last >= lsn { return cursor }
        }
        return nil
    }

    /// By interpolation, aiming a little low, since reading on goes forward only; every third time by halves,
    /// so that an uneven log cannot keep the guesses at one end.
    private static func guess(
        _ lsn: UInt64, between low: SequenceIndex.Sample, and high: SequenceIndex.Sample, halve: Bool
    ) -> UInt64 {
        let width = high.sequence - low.sequence
        guard !halve, high.lsn > low.lsn, lsn >= low.lsn else { return low.sequence + width / 2 }
        let share = Double(lsn - low.lsn) / Double(high.lsn - low.lsn)
        let offset = UInt64(share * Double(width))
        return low.sequence + min(width - 1, offset - min(offset, scanRecordsMax / 4))
    }
}
