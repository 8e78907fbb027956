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
    /// - Parameter isDiverged: the leader does not have the batch at which the replica ends.
    func run(_ manifest: SnapshotManifest, isDiverged: Bool) throws(KVError) -> DivergedWrites? {
        let folder = SnapshotFolder(directory: configuration.directory)
        let saved = try saveSurplus(over: manifest, folder, isDiverged)
        try folder.markComplete()
        try folder.settle()
        return saved
    }

    private func saveSurplus(
        over manifest: SnapshotManifest, _ folder: SnapshotFolder, _ isDiverged: Bool
    ) throws(KVError) -> DivergedWrites? {
        guard Files.exists(folder.database + "/CURRENT") else { return nil }
        let database = try Database(
            path: folder.database, shared: shared, options: configuration.databaseOptions)
        let saved: Result<DivergedWrites?, KVError> = Result { () throws(KVError) in
            let own = try TermHistory(of: database, shard: configuration.name)
            try SnapshotReception.check(manifest, against: .init(history: own, newestTerm: own.end.term))
            let theirs = try SnapshotChecks.history(of: manifest)
            let common =
                isDiverged
                ? try fork(of: database, own, from: theirs, in: folder.staging) : own.common(with: theirs)
            guard common.lsn < own.end.lsn else { return nil }
            return try SurplusExport(
                database: database, files: DivergedFiles(directory: configuration.divergedDirectory),
                shard: configuration.name, wallMilliseconds: clock.bounded.read().now(), logger: logger
            ).save(common.lsn + 1...own.end.lsn, after: common)
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
}

extension ShardReplica {
    // MARK: Giving snapshots

    /// Takes a checkpoint, or shares one that the log still reaches back to. Blocks, for long: reads all of it.
    ///
    /// Throws `KVError`: `.notLeader`, `.overloaded` while another is being made, `.corrupted` if a file of it is damaged,
    /// which is noted as this replica's damage, `.storageFull`, `.storageFailed`, `.unavailable` once closed.
    public func openSnapshot() throws(KVError) -> SnapshotManifest {
        try requireLeader()
        do throws(KVError) {
            return try snapshots.open(leaderTerm: role.term)
        } catch {
            if error.code == .corrupted { note(damage: error) }
            throw error
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
        try apply([], leaderTerm: leaderTerm) { answer.put($0) }
        guard let outcome = answer.wait(milliseconds: ShardReplica.promiseMilliseconds) else {
            throw KVError(.overloaded, "the writer of \(configuration.name) is busy; try again in a moment")
        }
        if let failure = outcome.failure { throw failure }
    }

    private func own() throws(KVError) -> SnapshotReception.Own {
        guard !role.isLeader else {
            throw KVError(.staleTerm, "this node leads \(configuration.name) and takes no snapshot of it")
        }
        return SnapshotReception.Own(history: try history(), newestTerm: newestTerm)
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
        let replaced = position
        let diverged = try await close { [published, configuration] () throws(KVError) in
            // Nothing is promised any more from here on, so this is the last word.
            guard !published.role.isLeader, published.newestTerm <= manifest.leaderTerm else {
                throw KVError(
                    .staleTerm,
                    "\(configuration.name) has promised term \(published.newestTerm) meanwhile, the snapshot comes from "
                        + "term \(manifest.leaderTerm)")
            }
            return try install.run(manifest, isDiverged: isDiverged)
        }
        return SnapshotInstallation(manifest: manifest, replaced: replaced, diverged: diverged)
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
