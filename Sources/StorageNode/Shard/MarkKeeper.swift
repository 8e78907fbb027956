import Core
import LSM
import Logging
import Synchronization

/// Keeps a replica's ``SyncedMark`` up to date.
final class MarkKeeper: Sendable {
    private struct State {
        var kept: SyncedMark?
        var isClosed = false
    }

    private let directory: String
    private let database: String
    private let durability: Durability
    private let boot: String
    private let tablesLsn: UInt64
    /// Held while the file is written, so that what an upkeep thread had begun does not come after a close: only threads
    /// that may block take it.
    private let state = Mutex(State())

    /// Of a database that has just been opened, which puts everything that it replays into tables.
    /// - Parameter position: where it stands. Kept at once.
    ///
    /// Throws `KVError`: `.storageFull`, `.storageFailed`.
    init(_ configuration: ShardConfiguration, openedAt position: LogPosition) throws(KVError) {
        tablesLsn = position.lsn
        directory = configuration.directory
        durability = configuration.durability
        database = try SyncedMark.database(in: directory + "/db")
        boot = try SyncedMark.currentBoot()
        try keep(position)
    }

    /// Notes that everything up to `position` is on disk. Blocks if there is something new; durable on return.
    ///
    /// Throws `KVError`: `.storageFull`, `.storageFailed`.
    func keep(_ position: LogPosition) throws(KVError) {
        try state.withLock { state throws(KVError) in
            guard !state.isClosed, state.kept?.position != position else { return }
            let mark = SyncedMark(
                database: database, position: position, tablesLsn: tablesLsn, durability: durability, boot: boot,
                logs: LogFile.list(in: directory + "/db").map(\.name))
            try mark.save(to: directory)
            state.kept = mark
        }
    }

    /// The last word: nothing is written afterwards.
    func close() { state.withLock { $0.isClosed = true } }
}

extension ShardReplica {
    /// What is certainly on disk.
    private var synced: LogPosition { configuration.durability == .always ? position : log.synced }

    /// Notes how far the log is on disk, for the next opening to find out if some of it is missing. Blocks; to be called
    /// every second or so.
    public func keepSyncedMark() {
        do throws(KVError) {
            try marks.keep(synced)
        } catch {
            // The mark stays behind, which makes it say less and nothing wrong. The next round tries again.
            logger.warning("cannot note how far the log is: \(error)", metadata: ["shard": "\(configuration.name)"])
        }
    }

    /// Says what was acknowledged and is not here any more, as an operator has wanted.
    func tell(missing lsns: ClosedRange<UInt64>) {
        logger.error(
            "opened without the damaged part of its log: these batches were on the disk and are lost here",
            metadata: ["shard": "\(configuration.name)", "lsns": "\(lsns.lowerBound)-\(lsns.upperBound)"])
    }

    /// Says what the end of the log has lost.
    func tell(_ dropped: LogRecovery.Dropped) {
        var metadata: Logger.Metadata = [
            "shard": "\(configuration.name)", "log": "\(dropped.log)", "bytes": "\(dropped.bytes)",
            "lsn": "\(position.lsn)",
        ]
        guard let folder = dropped.keptIn else {
            return logger.notice("the log ended in a write that was never completed; it is cut off", metadata: metadata)
        }
        metadata["kept_in"] = "\(folder)"
        logger.warning(
            "the end of the log is not whole and was cut off: writes after this lsn are lost here", metadata: metadata)
    }
}
