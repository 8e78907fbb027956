import CRocksDB
public import Core
import Synchronization

/// What a database held at one moment; later writes do not change it.
///
/// Keeps its database from closing until it is released, so ask ``Database/isClosing`` while working with it for
/// long. Thread-safe.
public final class DatabaseSnapshot: Sendable {
    private let database: Database
    private let snapshot: ForeignHandle
    private let isReleased = Atomic<Bool>(false)

    /// Of this moment. Throws `KVError(.unavailable)` once the database is closed.
    public init(of database: Database) throws(KVError) {
        try database.enter()
        self.database = database
        snapshot = ForeignHandle(pointer: rocksdb_create_snapshot(database.handle.pointer))
    }

    deinit { release() }

    /// Gives it up; harmless twice. Nobody may be reading from it.
    public func release() {
        guard !isReleased.exchange(true, ordering: .sequentiallyConsistent) else { return }
        rocksdb_release_snapshot(database.handle.pointer, snapshot.pointer)
        database.leave()
    }

    /// As ``Database/forEachRecord(from:_:)``.
    public func forEachRecord(
        from start: [UInt8], _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool
    ) throws(KVError) {
        precondition(!isReleased.load(ordering: .sequentiallyConsistent), "the snapshot is released")
        try database.forEachRecord(from: start, of: snapshot, body)
    }
}
