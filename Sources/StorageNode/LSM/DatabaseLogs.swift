import CRocksDB
public import Core

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The write-ahead logs as files: those that hold what no table holds yet, and older ones that are kept for followers in
/// the folder `archive`.
extension Database {
    private var archive: String { path + "/archive" }
    private static let unreadableSuffix = ".unreadable"

    /// Of all logs, oldest first. Blocks shortly.
    ///
    /// Throws `KVError(.unavailable)` once closed.
    public func logPaths() throws(KVError) -> [String] {
        try enter()
        defer { leave() }
        return archivedLogs().map { "\(archive)/\($0.name)" } + LogFile.list(in: path).map { "\(path)/\($0.name)" }
    }

    /// Of all logs together. Blocks shortly.
    var logBytes: UInt64 { (archivedLogs() + LogFile.list(in: path)).reduce(0) { $0 + $1.bytes } }

    private func archivedLogs() -> [LogFile] { LogFile.list(in: archive) }

    /// Deletes the oldest logs that no memtable needs until those that are left hold at most `bytes`; returns how
    /// many it deleted. Blocks.
    ///
    /// RocksDB keeps to `WAL_size_limit_MB` by itself but looks only every ten minutes, time enough for a busy
    /// shard to fill a disk.
    @discardableResult
    public func trimArchivedLogs(keepingBytes bytes: Int) throws(KVError) -> Int {
        try enter()
        defer { leave() }
        let logs = archivedLogs()
        var kept = logs.reduce(0) { $0 + $1.bytes }
        var deleted = 0
        for log in logs where kept > UInt64(max(0, bytes)) {
            rocksdb_delete_file(handle.pointer, "/archive/\(log.name)")
            kept -= log.bytes
            deleted += 1
        }
        if deleted > 0 { removeUnreadableLogs(before: logs[deleted - 1].number) }
        return deleted
    }

    /// Reads the kept logs; those up to the newest that is damaged or cannot be read get other names, so that the log begins
    /// behind them. No data is in danger: what they hold is in tables. Blocks, for long.
    /// - Returns: how many there were.
    ///
    /// Throws `KVError(.storageFailed)` if a file cannot be renamed.
    public func setUnreadableLogsAside() throws(KVError) -> Int {
        try enter()
        defer { leave() }
        let logs = archivedLogs()
        guard let newest = logs.lastIndex(where: { !isReadable("\(archive)/\($0.name)") }) else { return 0 }
        for log in logs[...newest] {
            let old = "\(archive)/\(log.name)"
            guard rename(old, old + Database.unreadableSuffix) == 0 || errno == ENOENT else {
                throw KVError(.storageFailed, "cannot rename \(old): \(String(cString: strerror(errno)))")
            }
        }
        return newest + 1
    }

    /// Also for one that is gone.
    private func isReadable(_ path: String) -> Bool {
        do throws(KVError) {
            return try LogFileCheck.run(path: path) { _ in true }.ending == .clean
        } catch {
            return access(path, F_OK) != 0
        }
    }

    /// Those that were set aside are not needed any more once what followed them is gone.
    private func removeUnreadableLogs(before number: UInt64) {
        for name in FolderNames.list(archive) where name.hasSuffix(Database.unreadableSuffix) {
            let log = String(name.dropLast(Database.unreadableSuffix.count))
            if LogFile.number(ofName: log).map({ $0 < number }) ?? false { unlink("\(archive)/\(name)") }
        }
    }
}
