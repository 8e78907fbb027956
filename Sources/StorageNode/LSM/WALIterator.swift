import CRocksDB
public import Core

/// Reads the write-ahead log forward, one record (a write batch as it was written) at a time.
///
/// It begins at the record that holds the asked sequence number, or later where older log is gone: check the
/// sequence of every batch. At the end of the log it stays usable: ``next()`` goes on when more has been written,
/// which costs far less than a new iterator (that reads the log file from its start).
///
/// Not thread-safe; one owner at a time. Keeps its database from closing: let it go before `Database.close()`.
public final class WALIterator {
    public enum Step: Sendable {
        /// ``takeBatch(_:)`` has it.
        case batch
        /// Nothing more is written yet; call ``next()`` again later.
        case caughtUp
        /// The log was rotated or nothing was there at all: open a new iterator at the sequence wanted next.
        case reopen
    }

    private let database: Database
    private let iterator: OpaquePointer
    /// RocksDB aborts the process when an iterator that never was valid is advanced.
    private var wasValid: Bool
    /// ``takeBatch(_:)`` has something to take: RocksDB gives each batch out once and crashes when asked again.
    public private(set) var hasBatch: Bool

    /// Blocks. Nil where `sequence` is beyond the end of the log.
    public init?(_ database: Database, since sequence: UInt64) throws(KVError) {
        try database.enter()
        var failure: UnsafeMutablePointer<CChar>?
        let iterator = rocksdb_get_updates_since(database.handle.pointer, sequence, nil, &failure)
        let status = RocksDBStatus(taking: failure)
        guard let iterator, status == nil else {
            if let iterator { rocksdb_wal_iter_destroy(iterator) }
            database.leave()
            guard let status, !status.isNotFound else { return nil }
            throw status.error("cannot read the log of \(database.path)")
        }
        self.database = database
        self.iterator = iterator
        wasValid = rocksdb_wal_iter_valid(iterator) != 0
        hasBatch = wasValid
    }

    deinit {
        rocksdb_wal_iter_destroy(iterator)
        database.leave()
    }

    /// Lends the current batch, whose header carries its sequence number, once; nil where there is none.
    public func takeBatch<Result>(
        _ body: (UnsafeRawBufferPointer) throws(KVError) -> Result
    ) throws(KVError) -> Result? {
        guard hasBatch else { return nil }
        hasBatch = false
        var sequence: UInt64 = 0
        let batch = rocksdb_wal_iter_get_batch(iterator, &sequence)
        defer { rocksdb_writebatch_destroy(batch) }
        var length = 0
        let bytes = rocksdb_writebatch_data(batch, &length)
        return try body(UnsafeRawBufferPointer(start: bytes, count: length))
    }

    /// Moves on. Blocks. Throws `KVError(.corrupted)` for damaged log, `.storageFailed`.
    public func next() throws(KVError) -> Step {
        guard wasValid else { return .reopen }
        rocksdb_wal_iter_next(iterator)
        hasBatch = rocksdb_wal_iter_valid(iterator) != 0
        if hasBatch { return .batch }
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_wal_iter_status(iterator, &failure)
        guard let status = RocksDBStatus(taking: failure) else { return .caughtUp }
        // "Gap in sequence numbers" is a NotFound: log was deleted under the iterator.
        if status.isTryAgain || status.isNotFound { return .reopen }
        throw status.error("cannot read the log of \(database.path)")
    }
}
