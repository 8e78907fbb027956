import Core
import LSM

/// Makes a replica's write-ahead log whole before RocksDB replays it, or refuses to.
///
/// Every record of every log that will be replayed is read, and every batch in it must follow the one before. What may be
/// missing is what was never acknowledged: with `always` the one record that was being written, with `interval` and `os`
/// what had not been synced when the machine lost power. Anything else is damage: nothing is changed then.
struct LogRecovery {
    /// What was cut off.
    struct Dropped: Sendable, Hashable {
        /// The file and where it ends now.
        var log: String
        var soundBytes: UInt64
        var bytes: UInt64
        /// The newest batch before it, of those in the log.
        var end: LogPosition?
        /// Where the bytes are kept; nil for the rest of one write that never ended.
        var keptIn: String?
    }

    /// The database's folder.
    let database: String
    let shard: String
    /// Nil if nothing is known of this database.
    let mark: SyncedMark?
    let isMarkUnreadable: Bool
    /// How the log was written.
    let durability: Durability
    /// Whether the machine may have lost power since.
    let hasRebooted: Bool
    /// Whether damage is cut off as well.
    let dropsDamage: Bool
    /// Takes what is cut off.
    let droppedDirectory: String

    /// Files of what was cut off that are kept.
    static let droppedFilesMax = 8

    /// Blocks: reads all of it. Durable on return.
    /// - Parameter tablesEnd: the newest batch that tables hold, whatever is in the logs. Asked only if it matters.
    /// - Returns: nil if the log was whole.
    ///
    /// Throws `KVError`: `.corrupted`, and then nothing has changed; `.storageFull`, `.storageFailed`.
    func run(tablesEnd: () throws(KVError) -> LogPosition) throws(KVError) -> Dropped? {
        let logs = try LogFile.live(in: database)
        var read = Read()
        for (index, log) in logs.enumerated() {
            let check = try verify(log, &read)
            guard check.ending != .clean else { continue }
            let later = logs[(index + 1)...]
            try require(mayDrop(check, before: later, read.end), log, check, read.end)
            try requireTables(before: read, tablesEnd)
            return try cut(log, check, later, read.end)
        }
        try requireLogs(logs)
        if let mark, let end = read.end, end.lsn < mark.position.lsn, !dropsDamage {
            throw damaged("it ends at lsn \(end.lsn), and was on the disk up to lsn \(mark.position.lsn)")
        }
        try requireTables(before: read, tablesEnd)
        return nil
    }

    /// The batches in the logs so far, without a gap.
    private struct Read {
        var firstLsn: UInt64?
        var end: LogPosition?
    }

    /// The logs begin right behind what tables hold, or before. A manifest that has lost its end knows fewer tables than
    /// there are, and RocksDB does not notice.
    private func requireTables(
        before read: Read, _ tablesEnd: () throws(KVError) -> LogPosition
    ) throws(KVError) {
        let known = mark?.tablesLsn ?? 0
        let synced = mark?.position.lsn ?? 0
        guard !dropsDamage, read.firstLsn.map({ $0 > known + 1 }) ?? (synced > known) else { return }
        let end = try tablesEnd().lsn
        if let first = read.firstLsn, first > end + 1 {
            throw damaged("it begins at lsn \(first), and the tables end at lsn \(end)")
        }
        if read.end == nil, end < synced {
            throw damaged("it holds nothing, the tables end at lsn \(end), and lsn \(synced) was on the disk")
        }
    }

    /// What was on the disk and is missing from a database that stands at `position`, which was to be opened all the same.
    func missing(at position: LogPosition) -> ClosedRange<UInt64>? {
        guard dropsDamage, let mark, position.lsn < mark.position.lsn else { return nil }
        return position.lsn + 1...mark.position.lsn
    }

    /// A database that is open must be where its mark says, at least.
    ///
    /// Throws `KVError(.corrupted)`.
    func require(_ position: LogPosition) throws(KVError) {
        guard let mark, position.lsn < mark.position.lsn, !dropsDamage else { return }
        throw damaged("the database ends at lsn \(position.lsn), and was on the disk up to lsn \(mark.position.lsn)")
    }

    // MARK: Verifying

    private func verify(_ log: LogFile, _ read: inout Read) throws(KVError) -> LogFileCheck {
        var found = read
        let check = try LogFileCheck.run(path: "\(database)/\(log.name)") { record throws(KVError) in
            guard let parts = LogRecovery.parts(of: record) else { return false }
            for part in parts {
                if let last = found.end, part.lsn != last.lsn + 1 || part.term < last.term { return false }
                found.firstLsn = found.firstLsn ?? part.lsn
                found.end = part
            }
            return true
        }
        read = found
        return check
    }

    /// The positions in a record; nil if it is no record of a shard's log.
    private static func parts(of record: UnsafeRawBufferPointer) -> [LogPosition]? {
        do throws(KVError) {
            return try LogBatch.parts(of: record).map(\.position)
        } catch {
            return nil
        }
    }

    private func mayDrop(_ check: LogFileCheck, before later: ArraySlice<LogFile>, _ end: LogPosition?) -> Bool {
        if dropsDamage { return true }
        if let mark, let end, end.lsn < mark.position.lsn { return false }
        guard durability == .always else { return true }
        guard later.allSatisfy({ $0.bytes == 0 }) else { return false }
        return check.ending == .cutOff || (check.ending == .unwritten && hasRebooted)
    }

    private func require(
        _ mayDrop: Bool, _ log: LogFile, _ check: LogFileCheck, _ end: LogPosition?
    ) throws(KVError) {
        guard !mayDrop else { return }
        let last = end.map { ", where lsn \($0.lsn) ends" } ?? ""
        throw damaged("\(log.name) cannot be read behind byte \(check.soundBytes)\(last)")
    }

    /// A log that was there must be there as long as it is needed.
    private func requireLogs(_ logs: [LogFile]) throws(KVError) {
        guard let mark, !dropsDamage, let oldest = try LogFile.oldestNeeded(in: database) else { return }
        let names = Set(logs.map(\.name))
        let missing = mark.logs.first { name in
            (LogFile.number(ofName: name) ?? 0) >= oldest && !names.contains(name)
        }
        if let missing { throw damaged("\(missing) is missing") }
    }

    private func damaged(_ what: String) -> KVError {
        KVError(
            .corrupted,
            "the write-ahead log of \(shard) is damaged, and acknowledged writes may be missing: \(what) (\(database)); have "
                + "another replica lead with kv failover \(shard), and this one is rebuilt; if there is none, start the "
                + "node with --drop-damaged-log \(shard)")
    }

    // MARK: Cutting off

    private func cut(
        _ log: LogFile, _ check: LogFileCheck, _ later: ArraySlice<LogFile>, _ end: LogPosition?
    ) throws(KVError) -> Dropped {
        let path = "\(database)/\(log.name)"
        let bytes = check.fileBytes - check.soundBytes
        // The rest of a write that was cut off is of no use to anybody.
        let isKept = check.ending != .cutOff || later.contains { $0.bytes > 0 }
        // The newest first: what is left at any moment is a log that ends too early, and is cut off anew.
        for file in later.reversed() where file.bytes > 0 {
            try Files.makeDirectory(droppedDirectory)
            try Files.move("\(database)/\(file.name)", to: "\(droppedDirectory)/\(file.name)-0")
        }
        if isKept {
            try Files.makeDirectory(droppedDirectory)
            try Files.copy(
                path, from: check.soundBytes, to: "\(droppedDirectory)/\(log.name)-\(check.soundBytes)")
        }
        try Files.truncate(path, to: check.soundBytes)
        try Files.sync(database)
        if isKept { try tidyDropped() }
        return Dropped(
            log: log.name, soundBytes: check.soundBytes, bytes: later.reduce(bytes) { $0 + $1.bytes }, end: end,
            keptIn: isKept ? droppedDirectory : nil)
    }

    private func tidyDropped() throws(KVError) {
        // By number and place, so by age.
        let names = try Files.names(in: droppedDirectory) ?? []
        for name in names.dropLast(LogRecovery.droppedFilesMax) { try Files.removeTree("\(droppedDirectory)/\(name)") }
        try Files.sync(droppedDirectory)
        try Files.sync(Files.parent(of: droppedDirectory))
    }
}

extension LogRecovery {
    /// Of a replica's own database, by what its ``SyncedMark`` says. Blocks.
    ///
    /// Throws `KVError`: `.corrupted` also if the replica had a database and has none; `.storageFailed`.
    init(_ configuration: ShardConfiguration) throws(KVError) {
        let database = configuration.directory + "/db"
        let kept = try SyncedMark.load(from: configuration.directory)
        // Whoever has a mark, or has promised something, has had a database.
        let isNew = kept == .nothing && !Files.exists("\(configuration.directory)/\(PromiseFile.fileName)")
        if !isNew, try LogFile.oldestNeeded(in: database) == nil {
            throw KVError(
                .corrupted,
                "\(database) is gone, which held the data of \(configuration.name): put it back, or have another replica lead "
                    + "with kv failover \(configuration.name), and this one is rebuilt; to begin with an empty replica, "
                    + "remove \(configuration.directory)")
        }
        var mark: SyncedMark?
        // A snapshot that has replaced the database brings no mark.
        if case .mark(let found) = kept, found.database == (try SyncedMark.database(in: database)) { mark = found }
        let boot = try SyncedMark.currentBoot()
        self.init(
            database: database, shard: configuration.name, mark: mark, isMarkUnreadable: kept == .unreadable,
            durability: mark?.durability ?? configuration.durability, hasRebooted: mark?.boot != boot || boot.isEmpty,
            dropsDamage: configuration.dropsDamagedLog, droppedDirectory: configuration.directory + "/dropped")
    }

    /// Of a checkpoint, the newest log of which may have been copied while a record was being written. Blocks.
    ///
    /// Throws `KVError`: `.corrupted`, `.storageFailed`.
    static func settle(
        checkpoint path: String, _ configuration: ShardConfiguration, _ shared: SharedResources
    ) throws(KVError) {
        _ = try LogRecovery(
            database: path, shard: configuration.name, mark: nil, isMarkUnreadable: false, durability: .always,
            hasRebooted: false, dropsDamage: false, droppedDirectory: path + "/dropped"
        ).run { () throws(KVError) in try tablesEnd(of: path, configuration, shared) }
    }

    /// The newest batch that the tables of a database hold. Blocks.
    ///
    /// Throws `KVError`: `.corrupted`, `.storageFailed`.
    static func tablesEnd(
        of database: String, _ configuration: ShardConfiguration, _ shared: SharedResources
    ) throws(KVError) -> LogPosition {
        var options = configuration.databaseOptions
        options.isReadOnly = true
        options.mustExist = true
        // There are no logs in the folder that the database is in.
        options.logDirectory = Files.parent(of: database)
        let tables = try Database(path: database, shared: shared, options: options)
        let record = Result { () throws(KVError) in try tables.record(at: SystemRecords.positionKey) }
        try tables.close()
        guard let bytes = try record.get() else { return .start }
        guard let position = bytes.withUnsafeBytes({ SystemRecords.decodePosition($0) }) else {
            throw KVError(.corrupted, "the log position of \(configuration.name) is damaged")
        }
        return position
    }
}
