import CRocksDB
public import Core

extension Database {
    public struct Sizes: Sendable, Hashable {
        /// RocksDB's estimate; overwritten and deleted keys count until compaction.
        public var keysEstimate: UInt64
        public var tableBytes: UInt64
        /// Write-ahead logs: live and kept for followers.
        public var logBytes: UInt64
        public var memtableBytes: UInt64
    }

    /// Blocks: lists the log files.
    public func sizes() throws(KVError) -> Sizes {
        try enter()
        defer { leave() }
        return Sizes(
            keysEstimate: property("rocksdb.estimate-num-keys"),
            tableBytes: property("rocksdb.total-sst-files-size"),
            logBytes: logBytes,
            memtableBytes: property("rocksdb.cur-size-all-mem-tables"))
    }

    /// Of the tables that hold the data now; without those that only an open iterator still needs.
    public func tableBytes() throws(KVError) -> UInt64 {
        try enter()
        defer { leave() }
        return property("rocksdb.live-sst-files-size")
    }

    /// A table that holds part of the data.
    public struct Table: Sendable, Hashable {
        /// In the database's folder.
        public var name: String
        /// Rises from table to table.
        public var number: UInt64
        public var bytes: UInt64
    }

    /// The tables that hold the data now, oldest first; none that a compaction is still writing.
    public func liveTables() throws(KVError) -> [Table] {
        try enter()
        defer { leave() }
        let files = rocksdb_livefiles(handle.pointer)
        defer { rocksdb_livefiles_destroy(files) }
        return (0..<rocksdb_livefiles_count(files)).compactMap { index in
            // "/000123.sst"
            let name = String(cString: rocksdb_livefiles_name(files, index)).drop { $0 == "/" }
            return UInt64(name.prefix { $0 != "." }).map {
                Table(name: String(name), number: $0, bytes: UInt64(rocksdb_livefiles_size(files, index)))
            }
        }.sorted { $0.number < $1.number }
    }

    /// The sequence number of the newest record.
    public func latestSequence() throws(KVError) -> UInt64 {
        try enter()
        defer { leave() }
        return rocksdb_get_latest_sequence_number(handle.pointer)
    }

    /// Writes the memtables out as tables and begins a new log. Blocks.
    public func flush() throws(KVError) {
        try enter()
        defer { leave() }
        let options = rocksdb_flushoptions_create()
        defer { rocksdb_flushoptions_destroy(options) }
        rocksdb_flushoptions_set_wait(options, 1)
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_flush(handle.pointer, options, &failure)
        if let status = RocksDBStatus(taking: failure) { throw status.error("cannot flush \(path)") }
    }

    /// Rewrites everything: what was overwritten, removed or has expired goes. Blocks, possibly for long; reads, writes
    /// and other compactions go on. What it rewrites it reads and writes in pieces, so that it takes little memory.
    ///
    /// Throws `KVError`: `.unavailable` where the database is closed meanwhile, `.storageFailed` where background work
    /// failed.
    public func compact() throws(KVError) {
        try enter()
        defer { leave() }
        let errors = property("rocksdb.background-errors")
        let options = rocksdb_compactoptions_create()
        defer { rocksdb_compactoptions_destroy(options) }
        rocksdb_compactoptions_set_exclusive_manual_compaction(options, 0)
        rocksdb_compactoptions_set_bottommost_level_compaction(options, Database.forceOptimized)
        rocksdb_compact_range_opt(handle.pointer, options, nil, 0, nil, 0)
        // RocksDB reports no outcome here.
        if isClosing { throw KVError(.unavailable, "the database \(path) was closed before it was compacted") }
        guard property("rocksdb.background-errors") == errors else {
            throw KVError(.storageFailed, "compacting \(path) failed: see that its disk is well and has free space")
        }
    }

    /// `rocksdb::BottommostLevelCompaction::kForceOptimized`: the last level too, but no table that was just written.
    private static let forceOptimized: UInt8 = 3

    /// Has RocksDB look for tables that are older than ``DatabaseOptions/rewriteSeconds``, and rewrites them in the
    /// background. By itself it looks only when tables come or go, so that in a shard that nobody writes to what has
    /// expired would stay. Blocks shortly.
    public func rewriteOldTables() throws(KVError) {
        try enter()
        defer { leave() }
        var failure: UnsafeMutablePointer<CChar>?
        // Setting an option, also to what it is, has every table looked at anew.
        DatabaseOptions.rewriteSetting.withCString { name in
            String(rewriteSeconds).withCString { value in
                rocksdb_set_options(handle.pointer, 1, [name], [value], &failure)
            }
        }
        if let status = RocksDBStatus(taking: failure) { throw status.error("cannot look for old tables in \(path)") }
    }

    /// Calls `body` for every user record in key order with bytes that are lent, until it returns false; from one
    /// snapshot; also those that have expired. For verification, not for serving. Blocks.
    public func forEachUserRecord(
        _ body: (_ key: UnsafeRawBufferPointer, _ value: StoredValue) -> Bool
    ) throws(KVError) {
        var isDamaged = false
        try forEachRecord(from: [KeySpace.user]) { key, record in
            guard key.first == KeySpace.user else { return false }
            guard let value = StoredValue(decoding: record) else {
                isDamaged = true
                return false
            }
            return body(UnsafeRawBufferPointer(rebasing: key[1...]), value)
        }
        if isDamaged { throw KVError(.corrupted, "a record in \(path) is no stored value of this version") }
    }

    /// Calls `body` for every record from a whole RocksDB key on, in key order with bytes that are lent, until it
    /// returns false; all of one moment. Leaves the block cache as it is. Blocks.
    public func forEachRecord(
        from start: [UInt8], _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool
    ) throws(KVError) {
        try forEachRecord(from: start, of: nil, body)
    }

    /// - Parameter snapshot: nil for this moment.
    func forEachRecord(
        from start: [UInt8], of snapshot: ForeignHandle?,
        _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool
    ) throws(KVError) {
        try enter()
        defer { leave() }
        let options = Database.iterationOptions()
        defer { rocksdb_readoptions_destroy(options) }
        if let snapshot { rocksdb_readoptions_set_snapshot(options, snapshot.pointer) }
        let iterator = rocksdb_create_iterator(handle.pointer, options)
        defer { rocksdb_iter_destroy(iterator) }
        start.withUnsafeBytes { start in
            rocksdb_iter_seek(iterator, start.baseAddress?.assumingMemoryBound(to: CChar.self), start.count)
        }
        while rocksdb_iter_valid(iterator) != 0 {
            var keyBytes = 0
            var valueBytes = 0
            let key = UnsafeRawBufferPointer(start: rocksdb_iter_key(iterator, &keyBytes), count: keyBytes)
            let value = UnsafeRawBufferPointer(start: rocksdb_iter_value(iterator, &valueBytes), count: valueBytes)
            guard body(key, value) else { return }
            rocksdb_iter_next(iterator)
        }
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_iter_get_error(iterator, &failure)
        if let status = RocksDBStatus(taking: failure) { throw status.error("cannot read from \(path)") }
    }

    /// Options for every iterator: it leaves the block cache as it is. The caller destroys them.
    ///
    /// Nobody deletes ranges here, and RocksDB 7.8 must not look for such deletions: at the end of a table of a sorted run it
    /// would take a table behind it that cannot be read for the end of the data, and report no error
    /// ([#11782](https://github.com/facebook/rocksdb/pull/11782)).
    static func iterationOptions() -> OpaquePointer {
        let options: OpaquePointer = rocksdb_readoptions_create()
        rocksdb_readoptions_set_fill_cache(options, 0)
        rocksdb_readoptions_set_ignore_range_deletions(options, 1)
        return options
    }

    private func property(_ name: String) -> UInt64 {
        var value: UInt64 = 0
        return rocksdb_property_int(handle.pointer, name, &value) == 0 ? value : 0
    }
}
