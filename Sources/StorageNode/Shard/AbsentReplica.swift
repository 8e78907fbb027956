public import Core
public import LSM
public import Logging
import Synchronization
public import Wire

/// What can take a snapshot in the place of its database: an open replica, or what is left of one that does not open.
public protocol RebuildableReplica: AnyObject, Sendable {
    var configuration: ShardConfiguration { get }
    /// Where it stands, at least.
    var position: LogPosition { get }
    var received: SnapshotReceiver { get }
    /// As of ``ShardReplica``.
    func beginSnapshot(_ manifest: SnapshotManifest) throws(KVError) -> (receipt: SnapshotReceipt, isNew: Bool)
    func verifySnapshot(id: String) throws(KVError) -> SnapshotManifest
    func cancelInstall()
    func installSnapshot(_ manifest: SnapshotManifest, isDiverged: Bool) async throws(KVError) -> SnapshotInstallation
}

extension ShardReplica: RebuildableReplica {}

/// What is left of a damaged replica that does not open: it follows, takes no batches, and is rebuilt from a snapshot.
///
/// Thread-safe; what can block says so.
public final class AbsentReplica: RebuildableReplica {
    public let configuration: ShardConfiguration
    /// Why it does not open.
    public let reason: KVError
    public let received: SnapshotReceiver
    /// Nil if the database cannot be read.
    private let history: TermHistory?
    /// How far the log was on disk, at least; nil if that is not known.
    private let mark: SyncedMark?
    private let promise: TermPromise?
    private let terms: Mutex<TermState>
    /// What was promised is known, or every other replica has said which terms there are.
    private let isPromiseKnown: Atomic<Bool>
    private let isPromising = Atomic<Bool>(false)
    private let shared: SharedResources
    private let clock: ShardClock
    private let logger: Logger

    /// Looks at what is there. Blocks.
    /// - Parameter term: of the shard, as the topology says.
    ///
    /// Throws `KVError`: `.storageFailed`.
    public init(
        _ configuration: ShardConfiguration, term: UInt64, because reason: KVError, shared: SharedResources,
        clock: ShardClock = .system, logger: Logger
    ) throws(KVError) {
        self.configuration = configuration
        self.reason = reason
        self.shared = shared
        self.clock = clock
        self.logger = logger
        if case .mark(let mark) = try SyncedMark.load(from: configuration.directory) {
            self.mark = mark
        } else {
            mark = nil
        }
        do throws(KVError) {
            promise = try PromiseFile(directory: configuration.directory).load()
            isPromiseKnown = Atomic(true)
            // With its promise known, it is the database that does not open.
            history = nil
        } catch  where error.code == .corrupted {
            promise = nil
            isPromiseKnown = Atomic(false)
            history = AbsentReplica.history(configuration, shared)
        }
        terms = Mutex(
            TermState(
                shard: configuration.name, node: configuration.node, role: .follower(term: term),
                logTerm: max(history?.end.term ?? 0, mark?.position.term ?? 0), promise: promise))
        received = try SnapshotReceiver(configuration, shared: shared, clock: clock)
    }

    /// Nil if it cannot be read.
    private static func history(_ configuration: ShardConfiguration, _ shared: SharedResources) -> TermHistory? {
        var options = configuration.databaseOptions
        options.mustExist = true
        do throws(KVError) {
            let database = try Database(path: configuration.directory + "/db", shared: shared, options: options)
            let history = Result { () throws(KVError) in try TermHistory(of: database, shard: configuration.name) }
            try database.close()
            return try history.get()
        } catch {
            return nil
        }
    }

    public var position: LogPosition { history?.end ?? mark?.position ?? .start }

    /// The damaged database that an earlier rebuilding kept is in the way of this one. Blocks.
    public var isBlocked: Bool {
        history == nil && mark.map { !isMarkCertain($0) } ?? true && hasRemains
            && Files.exists(SnapshotFolder(directory: configuration.directory).setAside)
    }

    // MARK: Promises

    /// False if `FENCE` is damaged, until ``learn(newestTerm:)``.
    public var knowsPromise: Bool { isPromiseKnown.load(ordering: .acquiring) }

    /// What was promised is not known, but every other replica of the shard was asked: none knows a newer term than this.
    public func learn(newestTerm: UInt64) {
        terms.withLock { $0.hear(of: newestTerm) }
        isPromiseKnown.store(true, ordering: .releasing)
    }

    /// Takes nothing of older leaders from here on. Blocks; durable on return.
    private func promise(_ leaderTerm: UInt64) throws(KVError) {
        guard knowsPromise else {
            throw KVError(
                .unavailable,
                "what \(configuration.name) has promised here is not known, as FENCE is damaged: it waits for every other "
                    + "replica to say which terms there are")
        }
        guard !isPromising.exchange(true, ordering: .acquiringAndReleasing) else {
            throw KVError(.snapshotBusy, "another snapshot of \(configuration.name) is being begun; try again")
        }
        defer { isPromising.store(false, ordering: .releasing) }
        let promise = try terms.withLock { terms throws(KVError) in try terms.promiseToTake(batchesOf: leaderTerm) }
        guard let promise else { return }
        try PromiseFile(directory: configuration.directory).save(promise)
        terms.withLock { $0.keep(promise) }
    }

    private var own: SnapshotReception.Own {
        SnapshotReception.Own(
            history: history, newestTerm: terms.withLock { $0.newestTerm }, position: mark?.position)
    }

    // MARK: Taking a snapshot

    public func beginSnapshot(
        _ manifest: SnapshotManifest
    ) throws(KVError) -> (receipt: SnapshotReceipt, isNew: Bool) {
        try received.begin(manifest) { () throws(KVError) in
            try promise(manifest.leaderTerm)
            return own
        }
    }

    public func verifySnapshot(id: String) throws(KVError) -> SnapshotManifest {
        try received.prepareInstall(id: id) { manifest throws(KVError) in
            try promise(manifest.leaderTerm)
            return own
        }
    }

    public func cancelInstall() { received.cancelInstall() }

    /// Gives up a snapshot that nobody goes on with. Blocks; to be called every few seconds.
    public func tidySnapshots() {
        do throws(KVError) {
            try received.giveUpAbandoned()
        } catch {
            // It costs space and nothing else; the next round tries again.
            logger.warning("cannot remove a snapshot: \(error)", metadata: ["shard": "\(configuration.name)"])
        }
    }

    /// As ``ShardReplica/installSnapshot(_:isDiverged:)``. Nobody may open the replica meanwhile.
    public func installSnapshot(
        _ manifest: SnapshotManifest, isDiverged: Bool
    ) async throws(KVError) -> SnapshotInstallation {
        let result: Result<SnapshotInstallation, KVError> = await withCheckedContinuation { continuation in
            DedicatedThread.start {
                continuation.resume(
                    returning: Result { () throws(KVError) in try self.install(manifest, isDiverged: isDiverged) })
            }
        }
        return try result.get()
    }

    private func install(_ manifest: SnapshotManifest, isDiverged: Bool) throws(KVError) -> SnapshotInstallation {
        let newestTerm = terms.withLock { $0.newestTerm }
        guard newestTerm <= manifest.leaderTerm else {
            throw KVError(
                .staleTerm,
                "\(configuration.name) has promised term \(newestTerm) meanwhile, the snapshot comes from term "
                    + "\(manifest.leaderTerm)")
        }
        let install = SnapshotInstall(configuration: configuration, shared: shared, clock: clock, logger: logger)
        // It may have acknowledged more than the snapshot holds: until it has caught up it counts as new.
        try JoiningMark.put(in: configuration)
        let isContained = isDiverged ? false : try isContained(in: manifest)
        let outcome = try install.run(
            manifest, isDiverged: isDiverged,
            damaged: SnapshotInstall.Damaged(isContained: isContained, end: mark?.position))
        return SnapshotInstallation(
            manifest: manifest, replaced: position, diverged: outcome.diverged, setAside: outcome.setAside)
    }

    /// Whether the snapshot's history is known to hold everything that this replica had.
    private func isContained(in manifest: SnapshotManifest) throws(KVError) -> Bool {
        guard hasRemains else { return true }
        let theirs = try SnapshotChecks.history(of: manifest)
        if let history { return theirs.contains(history.end) }
        guard let mark else { return false }
        return isMarkCertain(mark) && mark.position.term == manifest.leaderTerm && theirs.contains(mark.position)
    }

    /// Whether everything that the replica had came from the leader of the mark's term, who still has it: it had not heard
    /// of a newer term, and with `always` no leader loses what it has sent.
    private func isMarkCertain(_ mark: SyncedMark) -> Bool {
        promise?.term == mark.position.term
            && promise?.candidate.map { $0 != configuration.node } ?? true
            && mark.durability == .always && configuration.durability == .always
    }

    /// Whether there is a table or a log that could be the only place of some writes.
    private var hasRemains: Bool {
        do throws(KVError) {
            let names = try Files.names(in: configuration.directory + "/db") ?? []
            return names.contains { $0.hasSuffix(".sst") || $0.hasSuffix(".log") }
        } catch {
            return true
        }
    }
}
