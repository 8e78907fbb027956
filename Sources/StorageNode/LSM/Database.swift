import CRocksDB
public import Core
public import NIOCore
import Synchronization

/// Where a read may look.
public enum ReadTier: Sendable {
    /// Memtables and the block cache: never touches the disk, so it may run on an event loop.
    case memory
    /// The disk too: only on a thread that may block.
    case disk
}

/// What a read found.
public enum Lookup {
    /// Its bytes are lent: valid until the closure they were given to returns.
    case value(StoredValue)
    case missing
    /// The answer is not in memory. Only with ``ReadTier/memory``.
    case wouldBlock
}

/// One RocksDB database: an owning layer that is as thread-safe as RocksDB itself.
///
/// Reads and writes may come from any thread. ``close()`` ends it; what is called afterwards throws
/// `KVError(.unavailable)`.
///
/// Invariant: RocksDB's handle is used only between `enter` and `leave`, and closed only when `users` says that
/// nobody is inside and nobody can enter any more.
public final class Database: Sendable {
    public let path: String
    private let shared: SharedResources
    private let filter: ExpiryFilter?
    let rewriteSeconds: Int
    let handle: ForeignHandle
    private let memoryReads: ForeignHandle
    private let diskReads: ForeignHandle
    private let plainWrites: ForeignHandle
    private let syncedWrites: ForeignHandle
    /// Calls and iterators inside, plus `closedBit` once closed.
    private let users = Atomic<UInt64>(0)
    private let isHandleClosed = Atomic<Bool>(false)
    /// Nil where nothing is written.
    private let memtables: MemtableMember?

    private static let closedBit: UInt64 = 1 << 63
    /// How long ``close()`` waits for calls and iterators that are still at work.
    public static let closeWaitMillisecondsMax = 10_000

    /// Opens or creates the database at `path`. Blocks: replays the write-ahead log, which must be whole to its last byte.
    ///
    /// Throws `KVError`: `.locked` where another process has it open, `.corrupted`, `.storageFull`,
    /// `.storageFailed` for what the file system refuses.
    public init(path: String, shared: SharedResources, options: DatabaseOptions = DatabaseOptions()) throws(KVError) {
        self.path = path
        self.shared = shared
        filter = options.isReadOnly ? nil : options.expiries.map { ExpiryFilter($0) }
        rewriteSeconds = options.rewriteSeconds
        handle = try Database.open(path: path, shared: shared, options: options, filter: filter)
        memtables = options.isReadOnly ? nil : shared.memtables.add(handle)
        memoryReads = ForeignHandle(pointer: rocksdb_readoptions_create())
        rocksdb_readoptions_set_read_tier(memoryReads.pointer, 1)
        diskReads = ForeignHandle(pointer: rocksdb_readoptions_create())
        plainWrites = ForeignHandle(pointer: rocksdb_writeoptions_create())
        syncedWrites = ForeignHandle(pointer: rocksdb_writeoptions_create())
        rocksdb_writeoptions_set_sync(syncedWrites.pointer, 1)
    }

    deinit {
        // Nobody else has a reference, so nobody is inside. The filter goes after this.
        closeHandle()
        rocksdb_readoptions_destroy(memoryReads.pointer)
        rocksdb_readoptions_destroy(diskReads.pointer)
        rocksdb_writeoptions_destroy(plainWrites.pointer)
        rocksdb_writeoptions_destroy(syncedWrites.pointer)
    }

    private static func open(
        path: String, shared: SharedResources, options: DatabaseOptions, filter: ExpiryFilter?
    ) throws(KVError) -> ForeignHandle {
        for name in FolderNames.list(path) where name.hasSuffix(".sst") { try TableEnd.check("\(path)/\(name)") }
        let infoLog = InfoLogDirectory()
        defer { infoLog?.remove() }
        var lastStatus: RocksDBStatus?
        for compression in Compression.candidates {
            let rocksOptions = options.makeRocksDBOptions(
                shared: shared, compression: compression, infoLog: infoLog, filter: filter)
            defer { rocksdb_options_destroy(rocksOptions) }
            var failure: UnsafeMutablePointer<CChar>?
            let database =
                options.isReadOnly
                ? rocksdb_open_for_read_only(rocksOptions, path, 0, &failure)
                : rocksdb_open(rocksOptions, path, &failure)
            let status = RocksDBStatus(taking: failure)
            if let database, status == nil { return ForeignHandle(pointer: database) }
            lastStatus = status
            guard let status, status.isMissingCompression else { break }
        }
        throw lastStatus?.openingError(path)
            ?? KVError(.storageFailed, "cannot open the database \(path)")
    }

    // MARK: Reading

    /// Looks a user key up and lends what it found to `body`, which is called exactly once unless this throws. A value
    /// that has expired is found as long as it is stored.
    ///
    /// Throws `KVError`: `.corrupted` for a damaged block or a record that is no stored value, `.storageFailed`,
    /// `.unavailable` once closed.
    public func read(
        key: UnsafeRawBufferPointer, tier: ReadTier, _ body: (Lookup) -> Void
    ) throws(KVError) {
        try enter()
        defer { leave() }
        let failure: KVError? = withUnsafeTemporaryAllocation(byteCount: key.count + 1, alignment: 1) { prefixed in
            prefixed[0] = KeySpace.user
            if !key.isEmpty { UnsafeMutableRawBufferPointer(rebasing: prefixed[1...]).copyMemory(from: key) }
            return readPrefixed(UnsafeRawBufferPointer(prefixed), tier: tier, body)
        }
        if let failure { throw failure }
    }

    /// As ``read(key:tier:_:)`` above.
    @inlinable public func read(key: ByteBuffer, tier: ReadTier, _ body: (Lookup) -> Void) throws(KVError) {
        var failure: KVError?
        key.withUnsafeReadableBytes { bytes in
            do throws(KVError) {
                try read(key: bytes, tier: tier, body)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }

    private func readPrefixed(
        _ key: UnsafeRawBufferPointer, tier: ReadTier, _ body: (Lookup) -> Void
    ) -> KVError? {
        var failure: UnsafeMutablePointer<CChar>?
        let options = tier == .memory ? memoryReads : diskReads
        let slice = rocksdb_get_pinned(
            handle.pointer, options.pointer, key.baseAddress?.assumingMemoryBound(to: CChar.self), key.count, &failure)
        if let failure {
            if tier == .memory, failure.isIncompleteStatus {
                rocksdb_free(failure)
                body(.wouldBlock)
                return nil
            }
            return RocksDBStatus(taking: failure)?.error("cannot read from \(path)")
        }
        guard let slice else {
            body(.missing)
            return nil
        }
        defer { rocksdb_pinnableslice_destroy(slice) }
        var length = 0
        let start = rocksdb_pinnableslice_value(slice, &length)
        guard let value = StoredValue(decoding: UnsafeRawBufferPointer(start: start, count: length)) else {
            return KVError(.corrupted, "a record in \(path) is no stored value of this version")
        }
        body(.value(value))
        return nil
    }

    /// The record at a whole RocksDB key, prefix included, as a copy; nil where there is none. May block.
    public func record(at key: [UInt8]) throws(KVError) -> [UInt8]? {
        try enter()
        defer { leave() }
        var failure: UnsafeMutablePointer<CChar>?
        var length = 0
        let value = key.withUnsafeBytes { key in
            rocksdb_get(
                handle.pointer, diskReads.pointer, key.baseAddress?.assumingMemoryBound(to: CChar.self), key.count,
                &length, &failure)
        }
        if let status = RocksDBStatus(taking: failure) { throw status.error("cannot read from \(path)") }
        guard let value else { return nil }
        defer { rocksdb_free(value) }
        return [UInt8](UnsafeRawBufferPointer(start: value, count: length))
    }

    // MARK: Writing

    /// Applies a write batch in RocksDB's format atomically: one append to the write-ahead log.
    ///
    /// Blocks; on return it is readable and, with `sync`, on disk. After an error the batch may or may not be in
    /// the log. Throws `KVError`: `.storageFull`, `.storageFailed`, `.corrupted` for bytes that are no batch.
    public func write(_ batch: UnsafeRawBufferPointer, sync: Bool) throws(KVError) {
        guard batch.count >= WriteBatchBuilder.headerBytes else {
            throw KVError(.corrupted, "a write batch of \(batch.count) bytes is shorter than its header")
        }
        try enter()
        defer { leave() }
        let rocksBatch = rocksdb_writebatch_create_from(
            batch.baseAddress?.assumingMemoryBound(to: CChar.self), batch.count)
        defer { rocksdb_writebatch_destroy(rocksBatch) }
        let held = shared.memtables.admit(batch.count) { isClosing }
        defer { shared.memtables.wrote(held) }
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_write(handle.pointer, (sync ? syncedWrites : plainWrites).pointer, rocksBatch, &failure)
        if let status = RocksDBStatus(taking: failure) { throw status.error("cannot write to \(path)") }
    }

    /// Makes everything written so far durable. Blocks.
    public func syncWAL() throws(KVError) {
        try enter()
        defer { leave() }
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_flush_wal(handle.pointer, 1, &failure)
        if let status = RocksDBStatus(taking: failure) { throw status.error("cannot sync the log of \(path)") }
    }

    // MARK: Closing

    /// Waits for the calls and iterators that are at work, then closes. Blocks; safe to call twice.
    ///
    /// Throws `KVError(.timedOut)` where they do not end in ``closeWaitMillisecondsMax``: the database is then
    /// closed when the last reference to it goes.
    public func close() throws(KVError) {
        let before = users.bitwiseOr(Database.closedBit, ordering: .sequentiallyConsistent).oldValue
        // A compaction that was asked for ends at its next record.
        if before & Database.closedBit == 0 { rocksdb_disable_manual_compaction(handle.pointer) }
        var waited = 0
        while users.load(ordering: .sequentiallyConsistent) != Database.closedBit {
            guard waited < Database.closeWaitMillisecondsMax else {
                throw KVError(.timedOut, "the database \(path) is still in use after \(waited) ms")
            }
            Blocking.sleep(milliseconds: 1)
            waited += 1
        }
        closeHandle()
    }

    private func closeHandle() {
        guard !isHandleClosed.exchange(true, ordering: .sequentiallyConsistent) else { return }
        memtables?.close()
        rocksdb_cancel_all_background_work(handle.pointer, 1)
        rocksdb_close(handle.pointer)
    }

    /// Whether ``close()`` was called: whoever is inside for long leaves now.
    public var isClosing: Bool { users.load(ordering: .relaxed) & Database.closedBit != 0 }

    /// Every use of the handle is between these two.
    func enter() throws(KVError) {
        let before = users.wrappingAdd(1, ordering: .acquiringAndReleasing).oldValue
        if before & Database.closedBit != 0 {
            leave()
            throw KVError(.unavailable, "the database \(path) is closed")
        }
    }

    func leave() { users.wrappingSubtract(1, ordering: .acquiringAndReleasing) }
}
