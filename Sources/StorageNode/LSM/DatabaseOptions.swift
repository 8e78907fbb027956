import CRocksDB

/// How one ``Database`` is opened.
public struct DatabaseOptions: Sendable {
    /// Memtables a database fills or flushes at once before writes wait.
    public static let memtablesMax = 3

    /// Write-ahead log that is kept after its memtable was flushed, for followers. At least 1 MiB.
    public var logRetentionBytes = 1 << 30
    /// Overrides the even part of ``SharedResources/Options/memtableBytes``.
    public var memtableBytesEach: Int?
    /// Overrides the 64 MiB after which a compaction begins another table.
    package var tableBytesMax: Int?
    /// Refuse to open where there is no database yet.
    public var mustExist = false
    /// Opens without a lock and writes nothing, not even what the log is replayed into: for checkpoints. Writing to it
    /// throws.
    public var isReadOnly = false
    /// Where write-ahead logs are looked for, if not beside the tables.
    package var logDirectory: String?
    /// Compactions drop what has expired by this clock; nil drops nothing.
    public var expiries: ExpiryClock?
    /// A table that no compaction has rewritten for so long is rewritten, so that what expires in data that nobody
    /// touches goes as well. With ``expiries``; see ``Database/rewriteOldTables()``.
    public var rewriteSeconds = 7 * 86_400

    public init() {}

    private static let blockBytes = 8 << 10
    private static let bloomBitsPerKey = 10.0
    /// Of a memtable that has its fair share; allocated with it, so no more where it may grow beyond that.
    private static let memtableFilterShare = 0.05
    /// What a memtable takes at a time, as RocksDB has it by default.
    private static let arenaBlockBytesMax = 1 << 20
    /// `rocksdb::InfoLogLevel::FATAL_LEVEL`.
    private static let fatalInfoLogLevel: Int32 = 4
    private static let manifestBytesMax = 16 << 20

    /// New RocksDB options; the caller destroys them.
    func makeRocksDBOptions(
        shared: SharedResources, compression: Compression, infoLog: InfoLogDirectory?, filter: ExpiryFilter?
    ) -> OpaquePointer {
        let options: OpaquePointer = rocksdb_options_create()
        rocksdb_options_set_create_if_missing(options, mustExist ? 0 : 1)
        rocksdb_options_set_paranoid_checks(options, 1)
        rocksdb_options_set_env(options, shared.env.pointer)
        rocksdb_options_set_max_background_jobs(options, Int32(shared.options.compactionThreads + 1))
        rocksdb_options_set_max_open_files(options, Int32(shared.openFilesMaxEach))
        rocksdb_options_set_info_log_level(options, DatabaseOptions.fatalInfoLogLevel)
        if let infoLog { rocksdb_options_set_db_log_dir(options, infoLog.path) }
        rocksdb_options_set_max_manifest_file_size(options, DatabaseOptions.manifestBytesMax)

        // The log. A time limit is never set: RocksDB then may delete a log that is still needed (its age
        // computation underflows when a file's time lies in the future).
        rocksdb_options_set_WAL_ttl_seconds(options, 0)
        rocksdb_options_set_WAL_size_limit_MB(options, UInt64(max(1, (logRetentionBytes + (1 << 20) - 1) >> 20)))
        if let logDirectory { rocksdb_options_set_wal_dir(options, logDirectory) }
        // RocksDB drops nothing by itself: whoever opens has made sure that the log is whole.
        rocksdb_options_set_wal_recovery_mode(options, Int32(rocksdb_absolute_consistency_recovery))

        // Memtables. One thread writes, so nothing is gained by concurrent inserts.
        let memtableBytes = memtableBytesEach ?? shared.memtableBytesEach
        let fairBytes = min(memtableBytes, shared.memtableBytesFair)
        rocksdb_options_set_write_buffer_size(options, memtableBytes)
        rocksdb_options_set_arena_block_size(options, min(DatabaseOptions.arenaBlockBytesMax, fairBytes / 8))
        rocksdb_options_set_max_write_buffer_number(options, Int32(DatabaseOptions.memtablesMax))
        rocksdb_options_set_allow_concurrent_memtable_write(options, 0)
        // Most keys that are read are not in a memtable; a filter says so without walking the skip list.
        rocksdb_options_set_memtable_whole_key_filtering(options, 1)
        rocksdb_options_set_memtable_prefix_bloom_size_ratio(
            options, DatabaseOptions.memtableFilterShare * Double(fairBytes) / Double(memtableBytes))
        rocksdb_options_set_enable_write_thread_adaptive_yield(options, 0)

        // Tables.
        if let tableBytesMax { rocksdb_options_set_target_file_size_base(options, UInt64(tableBytesMax)) }
        rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1)
        rocksdb_options_set_bytes_per_sync(options, 1 << 20)
        rocksdb_options_set_compression(options, compression.upper)
        rocksdb_options_set_bottommost_compression(options, compression.bottommost)
        let table: OpaquePointer = rocksdb_block_based_options_create()
        defer { rocksdb_block_based_options_destroy(table) }
        rocksdb_block_based_options_set_block_size(table, DatabaseOptions.blockBytes)
        rocksdb_block_based_options_set_format_version(table, 5)
        rocksdb_block_based_options_set_block_cache(table, shared.cache.pointer)
        rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1)
        rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1)
        rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1)
        rocksdb_block_based_options_set_whole_key_filtering(table, 1)
        // The table options own the policy from here on.
        rocksdb_block_based_options_set_filter_policy(
            table, rocksdb_filterpolicy_create_bloom_full(DatabaseOptions.bloomBitsPerKey))
        rocksdb_block_based_options_set_data_block_index_type(
            table, Int32(rocksdb_block_based_table_data_block_index_type_binary_search_and_hash))
        rocksdb_options_set_block_based_table_factory(options, table)
        // Index and filter blocks of open tables stay pinned: still counted in the block cache, but found without a
        // look-up there, which saves about a tenth of a read.
        let pinned = DatabaseOptions.adding(
            "block_based_table_factory={metadata_cache_options={top_level_index_pinning=kAll;"
                + "partition_pinning=kAll;unpartitioned_pinning=kAll;}}", to: options)
        guard let filter else { return pinned }
        rocksdb_options_set_compaction_filter(pinned, filter.handle.pointer)
        return DatabaseOptions.adding("\(DatabaseOptions.rewriteSetting)=\(rewriteSeconds)", to: pinned)
    }

    static let rewriteSetting = "periodic_compaction_seconds"

    /// For settings that the C API has only as text; where the library does not know one, the options stay as they are.
    private static func adding(_ text: String, to options: OpaquePointer) -> OpaquePointer {
        let more: OpaquePointer = rocksdb_options_create()
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_get_options_from_string(options, text, more, &failure)
        if RocksDBStatus(taking: failure) != nil {
            rocksdb_options_destroy(more)
            return options
        }
        rocksdb_options_destroy(options)
        return more
    }
}

/// Which compression the linked RocksDB has; found out by opening, since the C API cannot list it.
struct Compression {
    var upper: Int32
    var bottommost: Int32

    /// From the best to what always works.
    static let candidates = [
        Compression(upper: Int32(rocksdb_lz4_compression), bottommost: Int32(rocksdb_zstd_compression)),
        Compression(upper: Int32(rocksdb_lz4_compression), bottommost: Int32(rocksdb_lz4_compression)),
        Compression(upper: Int32(rocksdb_zstd_compression), bottommost: Int32(rocksdb_zstd_compression)),
        Compression(upper: Int32(rocksdb_no_compression), bottommost: Int32(rocksdb_no_compression)),
    ]
}
