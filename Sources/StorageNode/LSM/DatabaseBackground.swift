import CRocksDB
public import Core

extension Database {
    /// What RocksDB says of its own work in the background: flushes and compactions.
    public struct BackgroundWork: Sendable, Hashable {
        /// How often it has failed since the database was opened.
        public var errors: UInt64
        /// Whether some is due or under way.
        public var isPending: Bool
        /// What RocksDB would answer to a write, if it takes none.
        public var stopped: String?

        /// Whether it has come upon damage.
        public var isCorrupted: Bool { stopped?.hasPrefix("Corruption") ?? false }

        public init(errors: UInt64, isPending: Bool, stopped: String?) {
            self.errors = errors
            self.isPending = isPending
            self.stopped = stopped
        }
    }

    /// Reads counters, and after a failure asks for what keeps writes from being taken. Blocks shortly.
    public func backgroundWork() throws(KVError) -> BackgroundWork {
        try enter()
        defer { leave() }
        let errors = property("rocksdb.background-errors")
        let due = ["mem-table-flush-pending", "compaction-pending", "num-running-flushes", "num-running-compactions"]
        return BackgroundWork(
            errors: errors, isPending: due.contains { property("rocksdb.\($0)") > 0 },
            stopped: errors == 0 ? nil : refusal())
    }

    /// The C API tells of no background error. A batch without records, past the log, changes nothing and is refused as any
    /// other would be. It does not wait where writes are slowed down.
    private func refusal() -> String? {
        let options = rocksdb_writeoptions_create()
        defer { rocksdb_writeoptions_destroy(options) }
        rocksdb_writeoptions_disable_WAL(options, 1)
        rocksdb_writeoptions_set_no_slowdown(options, 1)
        let batch = rocksdb_writebatch_create()
        defer { rocksdb_writebatch_destroy(batch) }
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_write(handle.pointer, options, batch, &failure)
        guard let status = RocksDBStatus(taking: failure), !status.text.hasPrefix("Result incomplete") else {
            return nil
        }
        return status.text
    }
}
