package import Core
import LSM

/// The file `SYNCED` beside `IDENTITY`: how far the log is known to be on disk, at least.
///
/// A log whose end is missing looks like one that ended there. What tells them apart is this mark, which follows the log at
/// a distance of about a second and is exact after a clean stop. It also says that the replica has a database.
///
/// Beside the database and not in it, so that it is still there if the database is gone; ``database`` tells whether it is
/// about the one that is there now, or about one that a snapshot has replaced.
package struct SyncedMark: Sendable, Hashable {
    static let fileName = "SYNCED"
    private static let title = "distribKV synced log, format 1"

    /// RocksDB's name for the database.
    package var database: String
    /// The newest batch that is certainly on disk.
    package var position: LogPosition
    /// The lsn up to which tables hold everything: where the log ended when the database was opened, at least.
    package var tablesLsn: UInt64
    /// How the log is written.
    package var durability: Durability
    /// The machine's start during which the log was written.
    package var boot: String
    /// The logs that were there. Those that the manifest does not need any more may go.
    package var logs: [String]

    package init(
        database: String, position: LogPosition, tablesLsn: UInt64, durability: Durability, boot: String,
        logs: [String]
    ) {
        self.database = database
        self.position = position
        self.tablesLsn = tablesLsn
        self.durability = durability
        self.boot = boot
        self.logs = logs
    }

    /// What is known of a replica's log.
    enum Kept: Sendable, Hashable {
        /// No database was ever opened here, or by a version that kept no mark.
        case nothing
        case unreadable
        case mark(SyncedMark)
    }

    // MARK: The file

    /// Blocks. Throws `KVError(.storageFailed)`.
    static func load(from directory: String) throws(KVError) -> Kept {
        guard let text = try DurableFile.read("\(directory)/\(fileName)") else { return .nothing }
        return SyncedMark(text: text).map { .mark($0) } ?? .unreadable
    }

    /// Blocks; durable on return. Throws `KVError`: `.storageFull`, `.storageFailed`.
    package func save(to directory: String) throws(KVError) {
        try DurableFile.replace("\(directory)/\(SyncedMark.fileName)", with: text, in: directory)
    }

    package var text: String {
        let body = """
            \(SyncedMark.title)
            database = \(database)
            term = \(position.term)
            lsn = \(position.lsn)
            version = \(position.version.hexDigits)
            tables_lsn = \(tablesLsn)
            durability = \(durability.rawValue)
            boot = \(boot)
            logs = \(logs.joined(separator: " "))

            """
        return "\(body)crc32c = \(SnapshotChecks.checksum(ofText: body))\n"
    }

    /// Nil for anything but a ``text``.
    package init?(text: String) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard lines.count == 11, lines[0] == SyncedMark.title, lines[10].isEmpty,
            lines[9] == "crc32c = \(SnapshotChecks.checksum(ofText: lines[..<9].joined(separator: "\n") + "\n"))"
        else { return nil }
        func value(_ index: Int, _ name: String) -> Substring? {
            lines[index].hasPrefix("\(name) = ") ? lines[index].dropFirst(name.utf8.count + 3) : nil
        }
        guard let database = value(1, "database"), let term = value(2, "term").flatMap({ UInt64($0) }),
            let lsn = value(3, "lsn").flatMap({ UInt64($0) }),
            let version = value(4, "version").flatMap({ Version(hexDigits: $0) }),
            let tablesLsn = value(5, "tables_lsn").flatMap({ UInt64($0) }),
            let durability = value(6, "durability").flatMap({ Durability(rawValue: String($0)) }),
            let boot = value(7, "boot"), let logs = value(8, "logs")
        else { return nil }
        self.init(
            database: String(database), position: LogPosition(term: term, lsn: lsn, version: version),
            tablesLsn: tablesLsn, durability: durability, boot: String(boot),
            logs: logs.split(separator: " ").map(String.init))
    }

    // MARK: What it is compared with

    /// RocksDB's name for the database in a folder; empty if there is none.
    static func database(in folder: String) throws(KVError) -> String {
        let name = try DurableFile.read("\(folder)/IDENTITY") ?? ""
        return name.split(separator: "\n").first.map(String.init) ?? ""
    }

    /// Another for every start of the machine; empty if the system does not say.
    static func currentBoot() throws(KVError) -> String {
        let boot = try DurableFile.read("/proc/sys/kernel/random/boot_id") ?? ""
        return boot.split(separator: "\n").first.map(String.init) ?? ""
    }
}
