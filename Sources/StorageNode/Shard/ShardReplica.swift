public import Core
public import LSM
public import Logging
import NIOCore
import Synchronization
public import Wire

/// One replica of a shard: its database, its log, its writer.
///
/// Thread-safe. Reads go straight to the database; writes go through ``submit(_:completion:)`` (as leader) or
/// ``apply(_:leaderTerm:)`` (as follower) to one writer that makes them batches of the log.
public final class ShardReplica: Sendable {
    public let configuration: ShardConfiguration
    /// The part it plays now, with the newest term it knows; see ``become(_:during:)``. Lock-free.
    public var role: ShardRole { published.role }
    public let database: Database
    public let log: ShardLog
    /// As leader: the acknowledgements of the followers.
    public let acks: ShardAcks
    /// As follower: how old this replica is.
    public let freshness: ShardFreshness
    /// What this replica gives to others while it leads.
    let snapshots: SnapshotSource
    /// The snapshot that this replica is receiving to be rebuilt from.
    public let received: SnapshotReceiver
    let shared: SharedResources
    let clock: ShardClock
    /// What time it is for values that expire.
    public let expiries: ExpiryClock
    let logger: Logger
    private let commits: CommitLog
    let inbox: WriterInbox
    let writer: ShardWriter
    let published: PublishedRole
    let marks: MarkKeeper
    let isComputingDigest = Atomic<Bool>(false)
    let compaction: ShardCompaction
    let damaged: ReplicaDamage
    let scrub: ShardScrub
    /// Whether its database writes its tables.
    public let background = BackgroundHealth()

    /// Opens or creates the replica's directory, recovers its log and starts the writer. A leader of a new term
    /// writes the term's first batch; where log or promise know a newer term, or this one with another leader, the
    /// replica opens as a follower of it instead. Blocks: call it on a thread that may.
    ///
    /// Throws `KVError`: `.invalidConfiguration` for a directory of another shard, `.locked`, `.corrupted` also for a log
    /// that lacks something which was on the disk, `.storageFull`, `.storageFailed`.
    /// - Parameter others: what other replicas have. If one has all of this history and more, this replica has lost the
    ///   end of its log, or its data, and does not lead.
    public static func open(
        _ configuration: ShardConfiguration, role: ShardRole, others: [TermHistory] = [], shared: SharedResources,
        clock: ShardClock = .system, logger: Logger
    ) throws(KVError) -> ShardReplica {
        try open(configuration, role: role, others: others, shared: shared, clock: clock, logger: logger) { $0 }
    }

    /// - Parameter sink: puts a twin between writer and database.
    package static func open(
        _ configuration: ShardConfiguration, role: ShardRole, others: [TermHistory] = [], shared: SharedResources,
        clock: ShardClock = .system, logger: Logger, sink: (Database) -> any WriteSink
    ) throws(KVError) -> ShardReplica {
        try ShardIdentity.claim(
            directory: configuration.directory, shard: configuration.name, cluster: configuration.cluster)
        try SnapshotFolder(directory: configuration.directory).settle()
        let expiries = ExpiryClock(clock)
        var options = configuration.databaseOptions
        options.expiries = expiries
        let recovery = try LogRecovery(configuration)
        if recovery.isMarkUnreadable {
            logger.warning(
                "SYNCED cannot be read: if the end of the log is missing, this start does not find it out",
                metadata: ["shard": "\(configuration.name)"])
        }
        let dropped = try recovery.run { () throws(KVError) in
            try LogRecovery.tablesEnd(of: recovery.database, configuration, shared)
        }
        let database = try Database(path: recovery.database, shared: shared, options: options)
        let missing = recovery.missing(at: try position(in: database, shard: configuration.name))
        // RocksDB makes the folder, and syncs what is in it but not its name.
        try Files.sync(configuration.directory)
        var (configuration, role) = (configuration, role)
        if role.isLeader, try isBehind(others, database, shard: configuration.name) {
            role = .follower(term: role.term)
            configuration.joins = true
        }
        let replica = try ShardReplica(
            configuration, role: role, database: database, sink: sink(database), shared: shared, clock: clock,
            expiries: expiries, logger: logger, recovery: recovery)
        if let dropped { replica.tell(dropped) }
        if let missing { replica.tell(missing: missing) }
        return replica
    }

    private init(
        _ configuration: ShardConfiguration, role: ShardRole, database: Database, sink: any WriteSink,
        shared: SharedResources, clock: ShardClock, expiries: ExpiryClock, logger: Logger, recovery: LogRecovery
    ) throws(KVError) {
        let position = try ShardReplica.position(in: database, shard: configuration.name)
        try recovery.require(position)
        let promises = PromiseFile(directory: configuration.directory)
        self.configuration = configuration
        self.database = database
        commits = CommitLog(
            position: position, ringBytesMax: configuration.ringBytesMax, waitersMax: configuration.waitersMax,
            budget: configuration.budgets.frames)
        log = ShardLog(commits: commits, database: database, cursorsMax: configuration.logCursorsMax)
        acks = ShardAcks(waitersMax: configuration.ackWaitersMax, clock: clock)
        freshness = ShardFreshness(clock: clock)
        self.shared = shared
        self.clock = clock
        self.expiries = expiries
        self.logger = logger
        damaged = ReplicaDamage(shard: configuration.name, logger: logger)
        compaction = ShardCompaction(
            shard: configuration.name, database: database, damage: damaged, clock: clock, logger: logger)
        scrub = ShardScrub(configuration, database: database, clock: clock, logger: logger)
        snapshots = try SnapshotSource(
            configuration, database: database, log: log, shared: shared, clock: clock, logger: logger)
        received = try SnapshotReceiver(configuration, shared: shared, clock: clock)
        inbox = WriterInbox(
            shard: configuration.name, bytesMax: configuration.inboxBytesMax,
            operationsMax: configuration.inboxOperationsMax, budget: configuration.budgets.writes)
        var core = WriterCore(
            configuration: configuration, role: role, position: position,
            latestSequence: try database.latestSequence(), promise: try promises.load(), sink: sink,
            values: WatchedValues(database: database, damage: damaged), promises: promises, log: commits, inbox: inbox,
            clock: clock,
            expiries: expiries, logger: logger)
        core.damage = damaged
        published = core.published
        let joining = try JoiningMark.open(
            configuration, isLeader: core.role.isLeader, isEmpty: position == .start, logger: logger)
        core.joining = joining
        if role.isLeader, !core.role.isLeader {
            logger.warning(
                "the shard takes no writes here until this node learns the newest topology",
                metadata: [
                    "shard": "\(configuration.name)", "term": "\(core.newestTerm)",
                    "topology_term": "\(role.term)",
                ])
        }
        try core.startLeading()
        writer = ShardWriter(core: core)
        // Whatever is written from here on is written to a database that is known to exist.
        marks = try MarkKeeper(configuration, openedAt: position)
        if let joining {
            freshness.beginJoining { [writer] in
                joining.end()
                writer.wake()
            }
        }
        freshness.knows(of: published.newestTerm, position: commits.committed)
        freshness.applied(commits.committed)
        writer.start()
    }

    /// Whether one of the others has all that is here, and more.
    private static func isBehind(
        _ others: [TermHistory], _ database: Database, shard: String
    ) throws(KVError) -> Bool {
        guard !others.isEmpty else { return false }
        let own = try TermHistory(of: database, shard: shard)
        return others.contains { $0.surplus(over: own) != nil && own.surplus(over: $0) == nil }
    }

    private static func position(in database: Database, shard: String) throws(KVError) -> LogPosition {
        guard let record = try database.record(at: SystemRecords.positionKey) else {
            guard try database.latestSequence() == 0 else {
                throw KVError(.corrupted, "the database of \(shard) holds data but no log position")
            }
            return .start
        }
        guard let position = record.withUnsafeBytes({ SystemRecords.decodePosition($0) }) else {
            throw KVError(.corrupted, "the log position of \(shard) is damaged")
        }
        return position
    }

    // MARK: Reading

    /// Looks a key up and lends what it found to `body`, which is called exactly once unless this throws. A value that has
    /// expired is missing.
    ///
    /// Throws as ``LSM/Database/read(key:tier:_:)-(UnsafeRawBufferPointer,_,_)``.
    public func read(key: UnsafeRawBufferPointer, tier: ReadTier, _ body: (Lookup) -> Void) throws(KVError) {
        do throws(KVError) {
            try database.read(key: key, tier: tier) { lookup in
                // The clock is read for values that expire, and for no others.
                if case .value(let value) = lookup, value.expiresMilliseconds != nil,
                    value.isExpired(at: expiries.now())
                {
                    body(.missing)
                } else {
                    body(lookup)
                }
            }
        } catch {
            damaged.note(error, foundBy: .read)
            throw error
        }
    }

    /// How long a value that was read has to live, in milliseconds, 1 at least; nil for one that does not expire.
    public func millisecondsLeft(of value: StoredValue) -> UInt64? {
        guard let expires = value.expiresMilliseconds else { return nil }
        let now = expiries.now()
        return expires > now ? expires - now : 1
    }

    /// The newest committed batch.
    public var position: LogPosition { commits.committed }

    /// Whether this replica leads and has promised no newer term. Unlike ``role`` it changes at once, also while writes are
    /// held. Lock-free.
    public var isLeading: Bool { role == .leader(term: newestTerm) }

    /// The newest version of the history that the leader of the newest term known goes on with. Zero before there is a
    /// batch of that term here: what is here may be more than that history holds, or other.
    public var newestVersion: Version {
        let position = position
        return position.term == newestTerm ? position.version : .zero
    }

    /// Whether this replica follows and has never had everything its leader had, so that it serves no reads yet. Across
    /// restarts. Lock-free.
    public var isJoining: Bool { freshness.isJoining && !role.isLeader }

    /// Why no writes are taken any more; nil while they are.
    public var failure: KVError? { inbox.refusal }

    // MARK: Writing

    /// Hands the writes of one event-loop tick to the writer. Any thread; never blocks.
    ///
    /// They are committed in this order, after everything submitted before, together with what else is waiting. An atomic
    /// submission is in one batch of the log, as large as it is, and in none where one of its operations is refused:
    /// the others are then refused with ``WriteRefusal/otherRefused``.
    /// `completion` is called once, on the writer's thread: hand the receipt to your event loop and return.
    ///
    /// Throws `KVError`, and then `completion` is not called: `.overloaded`, `.notLeader`, `.invalidArgument` for no
    /// operations or one too large for a batch, `.unavailable` once closed, or the failure that stopped the writer.
    public func submit(
        _ operations: [WriteOperation], isAtomic: Bool = false, completion: @escaping @Sendable (WriteReceipt) -> Void
    ) throws(KVError) {
        guard role.isLeader else { throw KVError(.notLeader, "this node does not lead \(configuration.name)") }
        var load = WriterInbox.Load(bytes: 0, operations: operations.count)
        for operation in operations {
            let bytes = operation.bytes
            guard bytes <= ShardReplica.operationBytesMax else {
                throw KVError(.invalidArgument, "a write of \(bytes) bytes is too large for a log batch")
            }
            load.bytes += bytes
        }
        guard !operations.isEmpty else { throw KVError(.invalidArgument, "no operations") }
        guard !isAtomic || load.bytes <= ShardReplica.operationBytesMax else {
            throw KVError(.invalidArgument, "an atomic batch of \(load.bytes) bytes is too large for a log batch")
        }
        let submission = Submission(operations: operations, isAtomic: isAtomic, completion: completion)
        if try inbox.add(.write(submission), load) { writer.wake() }
    }

    private static let operationBytesMax = LogFrame.batchBytesMax - 4_096

    /// Applies frames that a leader of `leaderTerm` committed. All are checked before any is written; those already
    /// applied are skipped.
    ///
    /// `completion` is called once, on the writer's thread. Throws `KVError`, and then `completion` is not called:
    /// `.overloaded`, `.unavailable` once closed, or the failure that stopped the writer.
    public func apply(
        _ frames: [LogFrame], leaderTerm: UInt64, completion: @escaping @Sendable (ApplyOutcome) -> Void
    ) throws(KVError) {
        let load = WriterInbox.Load(
            bytes: frames.reduce(0) { $0 + $1.encodedBytes }, operations: max(1, frames.count))
        let request = ApplyRequest(frames: frames, leaderTerm: leaderTerm, completion: completion)
        if try inbox.add(.apply(request), load) { writer.wake() }
    }

    /// As ``apply(_:leaderTerm:completion:)``, with every failure in the outcome.
    public func apply(_ frames: [LogFrame], leaderTerm: UInt64) async -> ApplyOutcome {
        await withCheckedContinuation { continuation in
            do throws(KVError) {
                try apply(frames, leaderTerm: leaderTerm) { continuation.resume(returning: $0) }
            } catch {
                continuation.resume(returning: ApplyOutcome(position: position, failure: error))
            }
        }
    }

    // MARK: Operating

    public struct Status: Sendable {
        public var role: ShardRole
        public var position: LogPosition
        public var failure: KVError?
        public var sizes: Database.Sizes
        /// The oldest lsn a follower can still be fed; nil where not known.
        public var logFirstLsn: UInt64?
    }

    /// Blocks: looks at files.
    public func status() throws(KVError) -> Status {
        let firstLsn = if let known = log.firstLsn { known } else { try log.lookUpFirstLsn() }
        return Status(
            role: role, position: position, failure: failure, sizes: try database.sizes(), logFirstLsn: firstLsn)
    }

    /// Ends the waits for followers, and calls the readers that wait for the log back with `.unavailable`, now and
    /// from now on, so that a shutdown need not wait for them.
    public func stopWaiting() {
        log.close()
        acks.stopLeading()
    }

    /// Answers what was accepted, fsyncs and closes the database. Readers that wait are called back with
    /// `.unavailable`; what is asked afterwards throws it. Call once.
    ///
    /// Throws `KVError` where the last fsync or the close failed.
    public func close() async throws(KVError) {
        try await close { () throws(KVError) in }
    }

    /// As ``close()``, and then runs `last` on the writer's thread, which may block.
    func close<Value: Sendable>(
        then last: @escaping @Sendable () throws(KVError) -> Value
    ) async throws(KVError) -> Value {
        inbox.close(KVError(.unavailable, "the shard \(configuration.name) is closed"))
        return try await writer.finish { [self] () throws(KVError) in
            scrub.close()
            log.close()
            snapshots.close()
            keepSyncedMark()
            marks.close()
            try database.close()
            return try last()
        }
    }
}
