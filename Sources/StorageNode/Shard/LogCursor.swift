import Core
import LSM
import NIOCore

/// A place in the write-ahead log that moves forward one log batch at a time.
///
/// Keeps its RocksDB iterator over the end of the log and opens a new one where the log was rotated. Not
/// thread-safe; one owner at a time.
final class LogCursor {
    private let database: Database
    private var iterator: WALIterator?
    /// The first sequence number that was not loaded yet.
    private var nextSequence: UInt64
    private var pending: ArraySlice<(position: LogPosition, frame: ByteBuffer)> = []

    /// How often the log may be rotated under one look at its next record.
    private static let reopensMax = 8

    /// Stands before the record that holds `sequence`. Opens nothing yet.
    init(_ database: Database, sequence: UInt64) {
        self.database = database
        nextSequence = sequence
    }

    /// The next log batch as a sealed frame; nil at the end of the log. Blocks.
    func peek() throws(KVError) -> (position: LogPosition, frame: ByteBuffer)? {
        while pending.isEmpty {
            guard try load(framesFrom: 0) != nil else { return nil }
        }
        return pending.first
    }

    func advance() { pending = pending.dropFirst() }

    /// What one record of the write-ahead log holds.
    struct Record {
        var first: UInt64
        var last: UInt64
        var sequence: UInt64
        var nextSequence: UInt64
    }

    /// Takes the next record of the write-ahead log, keeping its log batches from `lsn` on for ``peek()``; nil at the
    /// end of the log. Blocks.
    func load(framesFrom lsn: UInt64) throws(KVError) -> Record? {
        var reopens = 0
        while true {
            guard try advanceIterator(reopens: &reopens), let iterator else { return nil }
            let from = nextSequence
            let loaded = try iterator.takeBatch {
                (bytes: UnsafeRawBufferPointer) throws(KVError) -> LoadedRecord? in
                try LogCursor.read(bytes, from: from, framesFrom: lsn)
            }
            // A new iterator begins at the record that holds the sequence asked for, or with one read before.
            guard let loaded = loaded ?? nil else { continue }
            nextSequence = loaded.record.nextSequence
            pending = loaded.frames[...]
            return loaded.record
        }
    }

    private struct LoadedRecord {
        var record: Record
        var frames: [(position: LogPosition, frame: ByteBuffer)]
    }

    /// The first record of a log file; nil if it holds none or cannot be read. Blocks.
    static func first(inLogAt path: String) throws(KVError) -> Record? {
        var record: Record?
        do throws(KVError) {
            _ = try LogFileCheck.run(path: path) { bytes throws(KVError) in
                record = try read(bytes, from: 0, framesFrom: .max)?.record
                return record == nil
            }
        } catch  where error.code == .corrupted || error.code == .storageFailed {
            return nil
        }
        return record
    }

    private static func read(
        _ bytes: UnsafeRawBufferPointer, from sequence: UInt64, framesFrom lsn: UInt64
    ) throws(KVError) -> LoadedRecord? {
        let header = try WriteBatchReader(bytes)
        guard header.sequence + UInt64(header.count) > sequence else { return nil }
        let parts = try LogBatch.parts(of: bytes)
        guard let first = parts.first, let last = parts.last else { return nil }
        var frames: [(position: LogPosition, frame: ByteBuffer)] = []
        for part in parts where part.position.lsn >= lsn {
            frames.append((part.position, LogBatch.frame(of: part, in: bytes)))
        }
        return LoadedRecord(
            record: Record(
                first: first.position.lsn, last: last.position.lsn, sequence: header.sequence,
                nextSequence: header.sequence + UInt64(header.count)),
            frames: frames)
    }

    /// Makes the iterator stand on an untaken record; false at the end of the log.
    private func advanceIterator(reopens: inout Int) throws(KVError) -> Bool {
        while true {
            if let iterator {
                if iterator.hasBatch { return true }
                switch try iterator.next() {
                case .batch: return true
                case .caughtUp: return false
                case .reopen: self.iterator = nil
                }
            }
            guard reopens < LogCursor.reopensMax else { return false }
            reopens += 1
            do throws(KVError) {
                iterator = try WALIterator(database, since: nextSequence)
            } catch {
                // RocksDB looks at every log, also at those that nobody asks for.
                guard try database.setUnreadableLogsAside() > 0 else { throw error }
                continue
            }
            guard let iterator else { return false }
            guard iterator.hasBatch else {
                // Never valid, so it cannot be kept until there is something.
                self.iterator = nil
                return false
            }
        }
    }
}
