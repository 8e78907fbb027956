import Core
import LSM
import Logging
import NIOCore
import Wire

/// Saves what a replica has and its shard's history has not, before the replica is rebuilt. Blocks.
struct SurplusExport {
    let database: Database
    let files: DivergedFiles
    let shard: String
    /// Now; what has expired by then is saved as a removal.
    let wallMilliseconds: UInt64
    let logger: Logger

    /// Saves the batches at `lsns`, the end of the replica's history, to a file that is durable on return.
    /// - Parameter common: the last batch that is not surplus.
    ///
    /// Throws `KVError` where not everything that is here could be saved: then nothing may be removed.
    /// - Returns: also whether some of it could not be read, as it lies in damaged blocks.
    func save(
        _ lsns: ClosedRange<UInt64>, after common: TermHistory.Common
    ) throws(KVError) -> (DivergedWrites, metDamage: Bool) {
        do throws(KVError) {
            var file = try files.begin(shard: shard, lsns: lsns, wallMilliseconds: wallMilliseconds)
            let (isComplete, metDamage) = try copy(lsns, after: common, to: &file)
            return (try file.finish(isComplete: isComplete), metDamage)
        } catch {
            guard error.code == .corrupted || error.code == .logMismatch else { throw error }
            // What cannot be read in the log is in the tables still, where it was not overwritten.
            logger.error("cannot read the log, saving what the tables hold: \(error)", metadata: ["shard": "\(shard)"])
            var file = try files.begin(shard: shard, lsns: lsns, wallMilliseconds: wallMilliseconds)
            let metDamage = try scan(above: common.version, below: nil, to: &file)
            return (try file.finish(isComplete: false), metDamage)
        }
    }

    /// The log from the first surplus batch on; where it begins later, first what the tables still hold of the batches
    /// it lost. Returns whether it had all of them, and whether tables met damage.
    private func copy(
        _ lsns: ClosedRange<UInt64>, after common: TermHistory.Common, to file: inout DivergedFile
    ) throws(KVError) -> (isComplete: Bool, metDamage: Bool) {
        let cursor = LogCursor(database, sequence: 1)
        while let record = try cursor.load(framesFrom: lsns.lowerBound), record.last < lsns.lowerBound {}
        guard let first = try cursor.peek() else {
            return (false, try scan(above: common.version, below: nil, to: &file))
        }
        let isComplete = first.position.lsn == lsns.lowerBound
        var metDamage = false
        if !isComplete {
            let operations = try LoggedOperation.all(in: first.frame, at: first.position)
            metDamage = try scan(
                above: common.version, below: operations.first?.version ?? first.position.version, to: &file)
        }
        var expected = first.position.lsn
        while let batch = try cursor.peek(), batch.position.lsn <= lsns.upperBound {
            guard batch.position.lsn == expected else {
                throw KVError(.logMismatch, "lsn \(batch.position.lsn) follows lsn \(expected - 1) in the log")
            }
            for operation in try LoggedOperation.all(in: batch.frame, at: batch.position) {
                try file.add(operation, now: wallMilliseconds)
            }
            expected += 1
            cursor.advance()
        }
        guard expected == lsns.upperBound + 1 else {
            throw KVError(.logMismatch, "the log ends at lsn \(expected - 1), the database at lsn \(lsns.upperBound)")
        }
        return (isComplete, metDamage)
    }

    /// The records of a range of versions that can be read: of every key its newest write, and nothing of those that were
    /// removed. It never has everything, and what lies in a damaged block is missing too.
    /// - Parameter end: the first version that is left out; nil for none.
    /// - Returns: whether there is such a block.
    private func scan(
        above start: Version, below end: Version?, to file: inout DivergedFile
    ) throws(KVError) -> Bool {
        var failure: KVError?
        let damage = try database.forEachReadableUserRecord { key, value in
            guard value.version > start, end.map({ value.version < $0 }) ?? true else { return true }
            do throws(KVError) {
                try file.put(key: key, value, now: wallMilliseconds)
                return true
            } catch {
                failure = error
                return false
            }
        }
        if let failure { throw failure }
        if let damage {
            logger.error(
                "what lies in damaged blocks cannot be saved: \(damage)", metadata: ["shard": "\(shard)"])
        }
        return damage != nil
    }
}

/// One write of a client, as the log holds it.
struct LoggedOperation {
    var key: ByteBuffer
    /// Nil for a removal.
    var value: ByteBuffer?
    var version: Version
    /// Of a value that expires: when, in milliseconds since the Unix epoch.
    var expiresMilliseconds: UInt64?

    /// The writes of a log batch, in their order. Versions rise by one from record to record and end with the batch's own, which
    /// is how a removal, that has no record to keep it in, gets its version.
    ///
    /// In batches of before 2026-12, refused operations took versions too: where a stored version tells so, a removal gets the
    /// one after that of the write before it, which its own was not below, or the one before that of the write behind it.
    static func all(in frame: ByteBuffer, at position: LogPosition) throws(KVError) -> [LoggedOperation] {
        let read = frame.withUnsafeReadableBytes { bytes in
            Result { () throws(KVError) -> [LoggedOperation] in
                try LoggedOperation.read(UnsafeRawBufferPointer(rebasing: bytes[LogFrame.headerBytes...]))
            }
        }
        var writes = try read.get()
        let last = position.version.rawValue
        func fromEnd(_ index: Int) -> UInt64 { last - min(UInt64(writes.count - 1 - index), last) }
        let hasGaps = writes.indices.contains { writes[$0].value != nil && writes[$0].version.rawValue != fromEnd($0) }
        for index in writes.indices where writes[index].value == nil {
            writes[index].version = Version(rawValue: fromEnd(index))
        }
        if hasGaps { closeUp(&writes) }
        return writes
    }

    private static func closeUp(_ writes: inout [LoggedOperation]) {
        var isKnown = writes.map { $0.value != nil }
        for index in writes.indices.dropFirst() where !isKnown[index] && isKnown[index - 1] {
            writes[index].version = Version(rawValue: writes[index - 1].version.rawValue + 1)
            isKnown[index] = true
        }
        for index in writes.indices.dropLast().reversed() where !isKnown[index] {
            writes[index].version = Version(rawValue: writes[index + 1].version.rawValue - 1)
        }
    }

    private static func read(_ batch: UnsafeRawBufferPointer) throws(KVError) -> [LoggedOperation] {
        var reader = try WriteBatchReader(batch)
        var operations: [LoggedOperation] = []
        while let record = try reader.next() {
            guard record.key[0] == KeySpace.user else { continue }
            let key = ByteBuffer(bytes: record.key.dropFirst())
            guard let bytes = record.value else {
                operations.append(LoggedOperation(key: key, value: nil, version: .zero))
                continue
            }
            guard let stored = StoredValue(decoding: bytes) else {
                throw KVError(.corrupted, "the log holds a record that is no stored value of this version")
            }
            operations.append(
                LoggedOperation(
                    key: key, value: ByteBuffer(bytes: stored.bytes), version: stored.version,
                    expiresMilliseconds: stored.expiresMilliseconds))
        }
        return operations
    }
}

extension DivergedFile {
    mutating func add(_ operation: LoggedOperation, now: UInt64) throws(KVError) {
        let result = operation.key.withUnsafeReadableBytes { key in
            Result { () throws(KVError) in
                guard let value = operation.value else { return try delete(key: key, version: operation.version) }
                let result = value.withUnsafeReadableBytes { value in
                    Result { () throws(KVError) in
                        let stored = StoredValue(
                            version: operation.version, expiresMilliseconds: operation.expiresMilliseconds, bytes: value
                        )
                        try put(key: key, stored, now: now)
                    }
                }
                try result.get()
            }
        }
        try result.get()
    }
}
