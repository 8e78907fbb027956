public import Core
import Dispatch
import LSM
import Logging
import Synchronization
public import Wire

/// Puts a verified snapshot in the place of a database that nobody has open. Blocks.
struct SnapshotInstall {
    let configuration: ShardConfiguration
    let shared: SharedResources
    let clock: ShardClock
    let logger: Logger

    /// Saves what the replica has and the snapshot's history has not, then lets the snapshot take the database's
    /// place. After the snapshot is marked complete there is no way back, and no need for one: the next opening
    /// goes on from wherever this ended.
    ///
    /// Throws `KVError`, and the old database is still the one: `.snapshotMismatch` where that has more of the same
    /// history, or what kept its surplus from being saved.
    /// - Parameters:
    ///   - isDiverged: the leader does not have the batch at which the replica ends.
    ///   - damaged: nil for a replica that is whole. What cannot be saved of a damaged one is kept as it is.
    func run(
        _ manifest: SnapshotManifest, isDiverged: Bool, damaged: Damaged? = nil
    ) throws(KVError) -> (diverged: DivergedWrites?, setAside: String?) {
        let folder = SnapshotFolder(directory: configuration.directory)
        // Before anything is saved, or each attempt would save it once more.
        if let damaged, !damaged.isContained { try requireRoom(folder) }
        let (saved, isComplete) = try saveSurplus(over: manifest, folder, isDiverged, damaged)
        if !isComplete { try requireRoom(folder) }
        try folder.markComplete(keepsDatabase: !isComplete)
        try folder.settle()
        return (saved, isComplete ? nil : folder.setAside)
    }

    /// Throws `KVError(.storageFailed)` if a damaged database was kept before.
    private func requireRoom(_ folder: SnapshotFolder) throws(KVError) {
        guard Files.exists(folder.setAside) else { return }
        throw KVError(
            .storageFailed,
            "the damaged database of \(configuration.name) may hold writes that are nowhere else, and there is a "
                + "\(folder.setAside) already: look at that and remove it")
    }

    /// What is known of a damaged replica.
    struct Damaged {
        /// The snapshot's history holds everything that it had.
        var isContained: Bool
        /// Where it ended, at least; nil if that is not known.
        var end: LogPosition?
    }

    /// What a database had that the snapshot's history has not.
    private struct Surplus {
        var saved: DivergedWrites?
        /// Where the database ended.
        var end: LogPosition
        /// Not everything could be read.
        var metDamage = false
    }

    /// Returns also whether nothing is left that could be in the database alone.
    private func saveSurplus(
        over manifest: SnapshotManifest, _ folder: SnapshotFolder, _ isDiverged: Bool, _ damaged: Damaged?
    ) throws(KVError) -> (DivergedWrites?, isComplete: Bool) {
        guard let damaged else {
            let found = try saveSurplus(over: manifest, folder, isDiverged)
            return (found.saved, !found.metDamage)
        }
        if damaged.isContained { return (nil, true) }
        do throws(KVError) {
            guard Files.exists(folder.database + "/CURRENT") else { return (nil, false) }
            let found = try saveSurplus(over: manifest, folder, isDiverged)
            return (found.saved, found.end >= damaged.end ?? .start && found.saved?.isComplete ?? true)
        } catch  where error.code == .corrupted {
            logger.error(
                "cannot read what only this replica may have: \(error)", metadata: ["shard": "\(configuration.name)"])
            return (nil, false)
        }
    }

    private func saveSurplus(
        over manifest: SnapshotManifest, _ folder: SnapshotFolder, _ isDiverged: Bool
    ) throws(KVError) -> Surplus {
        guard Files.exists(folder.database + "/CURRENT") else { return Surplus(end: .start) }
        let database = try Database(
            path: folder.database, shared: shared, options: configuration.databaseOptions)
        let saved: Result<Surplus, KVError> = Result { () throws(KVError) in
            let own = try TermHistory(of: database, shard: configuration.name)
            try SnapshotReception.check(manifest, against: .init(history: own, newestTerm: own.end.term))
            let theirs = try SnapshotChecks.history(of: manifest)
            let common =
                isDiverged
                ? try fork(of: database, own, from: theirs, in: folder.staging) : own.common(with: theirs)
            guard common.lsn < own.end.lsn else { return Surplus(end: own.end) }
            let (saved, metDamage) = try SurplusExport(
                database: database, files: DivergedFiles(directory: configuration.divergedDirectory),
                shard: configuration.name, wallMilliseconds: clock.bounded.read().now(), logger: logger
            ).save(common.lsn + 1...own.end.lsn, after: common)
            return Surplus(saved: saved, end: own.end, metDamage: metDamage)
        }
        try database.close()
        return try saved.get()
    }

    private func fork(
        of database: Database, _ own: TermHistory, from theirs: TermHistory, in staging: String
    ) throws(KVError) -> TermHistory.Common {
        var options = configuration.databaseOptions
        options.isReadOnly = true
        options.mustExist = true
        let checkpoint = try Database(path: staging, shared: shared, options: options)
        let common: Result<TermHistory.Common, KVError> = Result { () throws(KVError) in
            try ForkSearch(own: database, theirs: checkpoint, ownHistory: own, theirHistory: theirs).common()
        }
        try checkpoint.close()
        return try common.get()
    }
}

/// What the installation of a snapshot came to.
public struct SnapshotInstallation: Sendable {
    public var manifest: SnapshotManifest
    /// Where the replica stood before.
    public var replaced: LogPosition
    /// What it had that the shard's history has not; nil where there was nothing.
    public var diverged: DivergedWrites?
    /// Where its damaged database is kept, as that may hold more; nil if it is gone.
    public var setAside: String?
}

extension ShardReplica {
    // MARK: Giving snapshots

    /// Takes a checkpoint, or shares one that the log still reaches back to. Blocks, for long: reads all of it.
    ///
    /// Throws `KVError`: `.notLeader`, `.overloaded` while another is being made, `.corrupted` if this replica is damaged,
    /// `.storageFull`, `.storageFailed`, `.unavailable` once closed.
    /// - Parameter lsn: where the follower stands that is to be rebuilt; the checkpoint ends no earlier, if the log does not.
    public func openSnapshot(atLeast lsn: UInt64 = 0) throws(KVError) -> SnapshotManifest {
        try requireLeader()
        // What is damaged here must not take the place of what is whole elsewhere.
        if let damage { throw damage }
        return try damaged.noting(.snapshot) { () throws(KVError) in
            try snapshots.open(leaderTerm: role.term, atLeast: lsn)
        }
    }

    /// Reads part of a checkpoint's file: `length` bytes from `offset` on, less where the file ends before. Blocks.
    ///
    /// Throws `KVError`: `.notLeader`, `.unknownSnapshot`, also for a file it has not, `.invalidArgument` for a range
    /// that is none, `.storageFailed`.
    public func readSnapshot(id: String, file: String, offset: UInt64, length: Int) throws(KVError) -> SnapshotPart {
        try requireLeader()
        return try snapshots.read(id: id, file: file, offset: offset, length: length)
    }

    /// Says that a checkpoint is not needed any more; it goes with its last user. Blocks.
    ///
    /// Throws `KVError(.unknownSnapshot)`.
    public func releaseSnapshot(id: String) throws(KVError) { try snapshots.release(id: id) }

    /// Removes checkpoints that nobody used for a minute, all of them where this replica does not lead, and what was
    /// received of a snapshot where that is of no use any more. Blocks; to be called every few seconds.
    public func tidySnapshots() {
        do throws(KVError) {
            if role.isLeader {
                snapshots.expire()
                if received.receipt != nil { _ = try received.discard() }
            } else {
                snapshots.removeAll()
                try received.giveUpAbandoned()
            }
        } catch {
            guard error.code != .snapshotBusy else { return }
            // It costs space and nothing else; the next round tries again.
            logger.warning("cannot remove a snapshot: \(error)", metadata: ["shard": "\(configuration.name)"])
        }
    }

    private func requireLeader() throws(KVError) {
        guard role.isLeader else {
            snapshots.removeAll()
            throw KVError(.notLeader, "this node does not lead \(configuration.name): ask its leader for a snapshot")
        }
    }

    // MARK: Taking a snapshot

    /// Begins to receive a snapshot, or goes on with the one that is here. Blocks.
    ///
    /// Throws `KVError`: `.staleTerm` for an old leader's and on a leader, `.snapshotMismatch` where the replica has
    /// more of the same history, `.snapshotBusy` while another transfer is active, `.invalidArgument` for a manifest
    /// that is none, `.storageFull` where there is no room for it, `.storageFailed`.
    public func beginSnapshot(
        _ manifest: SnapshotManifest
    ) throws(KVError) -> (receipt: SnapshotReceipt, isNew: Bool) {
        try received.begin(manifest) { () throws(KVError) in
            try promise(manifest.leaderTerm)
            return try own()
        }
    }

    /// How long the writer may take to note a leader's term: longer than writes are ever held back.
    private static let promiseMilliseconds = 10_000

    /// Takes nothing of older leaders from here on, as batches of that leader would have it. Blocks.
    private func promise(_ leaderTerm: UInt64) throws(KVError) {
        let answer = AwaitedOutcome()
        let request = ApplyRequest(frames: [], leaderTerm: leaderTerm, isTermOnly: true) { answer.put($0) }
        if try inbox.add(.apply(request), WriterInbox.Load(bytes: 0, operations: 1), evenIfStopped: true) {
            writer.wake()
        }
        guard let outcome = answer.wait(milliseconds: ShardReplica.promiseMilliseconds) else {
            throw KVError(.overloaded, "the writer of \(configuration.name) is busy; try again in a moment")
        }
        if let failure = outcome.failure { throw failure }
    }

    private func own() throws(KVError) -> SnapshotReception.Own {
        guard !role.isLeader else {
            throw KVError(.staleTerm, "this node leads \(configuration.name) and takes no snapshot of it")
        }
        do throws(KVError) {
            return SnapshotReception.Own(history: try history(), newestTerm: newestTerm, position: position)
        } catch  where error.code == .corrupted {
            return SnapshotReception.Own(history: nil, newestTerm: newestTerm, position: position)
        }
    }

    /// Verifies what was received, all of it; reads go on meanwhile. Blocks, for long. ``installSnapshot(_:)`` or
    /// ``cancelInstall()`` must follow.
    ///
    /// Throws `KVError`: `.unknownSnapshot`; `.snapshotMismatch` where something is missing or damaged, what is damaged
    /// is then removed to be received again; `.staleTerm`, `.snapshotBusy`, `.storageFailed`.
    public func verifySnapshot(id: String) throws(KVError) -> SnapshotManifest {
        try received.prepareInstall(id: id) { manifest throws(KVError) in
            try promise(manifest.leaderTerm)
            return try own()
        }
    }

    public func cancelInstall() { received.cancelInstall() }

    /// Closes this replica and puts a verified snapshot in its place, after saving the writes that the snapshot's
    /// history has not. Whether it succeeds or throws: open the replica anew afterwards, and it is the new one or the
    /// old one.
    /// - Parameter isDiverged: the leader does not have the batch at which this replica ends, so it has writes to save
    ///   whatever the lists of terms say.
    public func installSnapshot(
        _ manifest: SnapshotManifest, isDiverged: Bool = false
    ) async throws(KVError) -> SnapshotInstallation {
        let install = SnapshotInstall(
            configuration: configuration, shared: shared, clock: clock, logger: logger)
        let (outcome, replaced) = try await close { [published, configuration, log, damage] () throws(KVError) in
            // Nothing is promised any more from here on, so this is the last word.
            guard !published.role.isLeader, published.newestTerm <= manifest.leaderTerm else {
                throw KVError(
                    .staleTerm,
                    "\(configuration.name) has promised term \(published.newestTerm) meanwhile, the snapshot comes from "
                        + "term \(manifest.leaderTerm)")
            }
            // Nothing is written any more, so this is where it ends, whatever can be read of it.
            let end = log.committed
            let theirs = try SnapshotChecks.history(of: manifest)
            let damaged = damage.map { _ in
                SnapshotInstall.Damaged(isContained: !isDiverged && theirs.contains(end), end: end)
            }
            return (try install.run(manifest, isDiverged: isDiverged, damaged: damaged), end)
        }
        return SnapshotInstallation(
            manifest: manifest, replaced: replaced, diverged: outcome.diverged, setAside: outcome.setAside)
    }

    /// The saved writes of this shard that its history has not, newest last. Blocks.
    public func divergedWrites() throws(KVError) -> [DivergedWrites] {
        try DivergedFiles(directory: configuration.divergedDirectory).list(shard: configuration.name)
    }
}

/// An answer of the writer that a thread which may block waits for.
private final class AwaitedOutcome: Sendable {
    private let outcome = Mutex<ApplyOutcome?>(nil)
    private let isThere = DispatchSemaphore(value: 0)

    func put(_ outcome: ApplyOutcome) {
        self.outcome.withLock { $0 = outcome }
        isThere.signal()
    }

    func wait(milliseconds: Int) -> ApplyOutcome? {
        _ = isThere.wait(timeout: .now() + .milliseconds(milliseconds))
        return outcome.withLock { $0 }
    }
}

extension RebuildableReplica {
    /// The damaged database that was kept when this replica was rebuilt; nil if there is none. Blocks.
    public var setAside: String? {
        let folder = SnapshotFolder(directory: configuration.directory).setAside
        return Files.exists(folder) ? folder : nil
    }
}
