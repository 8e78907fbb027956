import CRocksDB

/// What all databases of a process share: the block cache, the memtable budget, the background threads.
///
/// Create one per process and hand it to every ``Database``; each database keeps it alive.
public final class SharedResources: Sendable {
    public struct Options: Sendable {
        /// The LRU cache of data, index and filter blocks of all databases.
        public var blockCacheBytes = 256 << 20
        /// Memtables of all databases together. RocksDB's C API has no write buffer manager to share (7.8), so
        /// every database gets an equal part: see `databases`.
        public var memtableBytes = 128 << 20
        /// How many databases will share the memtable budget.
        public var databases = 1
        /// Threads for compaction; flushes have one of their own.
        public var compactionThreads = 2
        /// Table files that all databases together keep open.
        public var openFilesMax = 1_024

        public init() {}
    }

    public let options: Options
    let cache: ForeignHandle
    let env: ForeignHandle

    public init(_ options: Options = Options()) {
        self.options = options
        cache = ForeignHandle(pointer: rocksdb_cache_create_lru(options.blockCacheBytes))
        env = ForeignHandle(pointer: rocksdb_create_default_env())
        rocksdb_env_set_background_threads(env.pointer, Int32(options.compactionThreads))
        rocksdb_env_set_high_priority_background_threads(env.pointer, 1)
    }

    deinit {
        rocksdb_cache_destroy(cache.pointer)
        rocksdb_env_destroy(env.pointer)
    }

    /// Bytes in the block cache now.
    public var blockCacheUsedBytes: Int { rocksdb_cache_get_usage(cache.pointer) }

    /// One of ``DatabaseOptions/memtablesMax`` memtables of one database.
    var memtableBytesEach: Int {
        max(64 << 10, options.memtableBytes / max(1, options.databases) / DatabaseOptions.memtablesMax)
    }

    var openFilesMaxEach: Int { max(16, options.openFilesMax / max(1, options.databases)) }
}
