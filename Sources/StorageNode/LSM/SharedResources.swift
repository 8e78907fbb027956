import CRocksDB

/// What all databases of a process share: the block cache, the memtable budget, the background threads.
///
/// Create one per process and hand it to every ``Database``; each database keeps it alive.
public final class SharedResources: Sendable {
    public struct Options: Sendable {
        /// The LRU cache of data, index and filter blocks of all databases.
        public var blockCacheBytes = 256 << 20
        /// Memtables of all databases together: see ``MemtableBudget``.
        public var memtableBytes = 128 << 20
        /// How many databases share it, and the files; further ones may be opened.
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
    public let memtables: MemtableBudget

    /// A freed block of so many bytes goes back to the system. Left to itself glibc begins to keep such blocks, for each of
    /// many threads: 64 shards that had taken values of 16 MiB then held 500 MiB that nobody used.
    private static let returnedBlockBytesMin: Int32 = 4 << 20

    public init(_ options: Options = Options()) {
        self.options = options
        distribkv_return_large_blocks(SharedResources.returnedBlockBytesMin)
        let fairBytes = SharedResources.memtableBytes(options, sharedBy: options.databases)
        memtables = MemtableBudget(bytesMax: options.memtableBytes, worthBytesMin: fairBytes / 2)
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

    /// Databases that can fill their memtables at the same time without exceeding the budget. Where there are more, the
    /// largest memtables are written out earlier, so that a busy one may use what idle ones leave.
    private static let fullDatabasesMax = 8

    /// One of ``DatabaseOptions/memtablesMax`` memtables of one database, at most.
    var memtableBytesEach: Int {
        SharedResources.memtableBytes(options, sharedBy: min(options.databases, SharedResources.fullDatabasesMax))
    }

    /// What a memtable takes before anything is in it goes by this: idle ones are many.
    var memtableBytesFair: Int {
        min(memtableBytesEach, SharedResources.memtableBytes(options, sharedBy: options.databases))
    }

    private static func memtableBytes(_ options: Options, sharedBy databases: Int) -> Int {
        max(64 << 10, options.memtableBytes / max(1, databases) / DatabaseOptions.memtablesMax)
    }

    var openFilesMaxEach: Int { max(16, options.openFilesMax / max(1, options.databases)) }
}
