import Core
import LSM
import NIOCore
import Wire

/// Checks and takes apart what the log is made of: batches that open with their position record.
enum LogBatch {
    /// One log batch inside a larger write batch.
    struct Part {
        var position: LogPosition
        /// Its records, as bytes of the batch it was found in.
        var records: Range<Int>
        var count: UInt32
    }

    /// Checks every byte of a batch that came from elsewhere, before anything of it is applied.
    ///
    /// Throws `KVError(.corrupted)` where it is no batch, does not open with exactly `position`, or holds anything
    /// but user records and, as the first batch of a term, its term start; `.diverged` where that says that another
    /// batch came before than the one at `previous`.
    static func validate(
        _ batch: UnsafeRawBufferPointer, is position: LogPosition, after previous: LogPosition
    ) throws(KVError) {
        func fail(_ what: String) -> KVError { KVError(.corrupted, "the log batch at lsn \(position.lsn) \(what)") }
        var reader = try WriteBatchReader(batch)
        guard reader.sequence == 0 else { throw fail("carries a sequence number") }
        guard let first = try reader.next(), SystemRecords.isPositionKey(first.key), let value = first.value,
            SystemRecords.decodePosition(value) == position
        else { throw fail("does not open with its position") }
        if position.term > previous.term {
            guard let record = try reader.next(), SystemRecords.termOfTermStart(record.key) == position.term,
                let start = record.value.flatMap({ SystemRecords.decodeTermStart($0) }), start.firstLsn == position.lsn
            else { throw fail("is the first of its term and does not say so") }
            guard try reader.next() == nil else { throw fail("starts a term and carries data") }
            guard start.previousVersion ?? previous.version == previous.version else {
                throw KVError(
                    .diverged,
                    "term \(position.term) began after version \(start.previousVersion ?? .zero) at lsn "
                        + "\(previous.lsn), where this replica has version \(previous.version)")
            }
            return
        }
        while let record = try reader.next() {
            guard record.key[0] == KeySpace.user, record.key.count > 1 else {
                throw fail("writes to a reserved key")
            }
            guard let value = record.value else { continue }
            guard let stored = StoredValue(decoding: value) else { throw fail("holds a value of unknown format") }
            guard stored.version <= position.version else { throw fail("holds a version above its own") }
        }
    }

    /// Takes a batch of the write-ahead log apart at its position records: a follower writes several log batches
    /// as one.
    static func parts(of batch: UnsafeRawBufferPointer) throws(KVError) -> [Part] {
        var reader = try WriteBatchReader(batch)
        var parts: [Part] = []
        while let record = try reader.next() {
            if SystemRecords.isPositionKey(record.key) {
                guard let value = record.value, let position = SystemRecords.decodePosition(value) else {
                    throw KVError(.corrupted, "the write-ahead log holds a damaged position record")
                }
                parts.append(Part(position: position, records: record.offset..<reader.offset, count: 1))
            } else {
                guard !parts.isEmpty else {
                    throw KVError(.corrupted, "the write-ahead log holds a batch without a position")
                }
                let last = parts.count - 1
                parts[last].records = parts[last].records.lowerBound..<reader.offset
                parts[last].count += 1
            }
        }
        return parts
    }

    /// The sealed frame of one part of `batch`: byte for byte what the leader made of it.
    static func frame(of part: Part, in batch: UnsafeRawBufferPointer) -> ByteBuffer {
        var builder = WriteBatchBuilder(reservedBytes: LogFrame.headerBytes, capacity: part.records.count)
        builder.append(records: UnsafeRawBufferPointer(rebasing: batch[part.records]), count: part.count)
        var frame = builder.finish()
        LogFrame.seal(&frame, position: part.position)
        return frame
    }
}
