import Core
import Wire

/// How the loop reaches the nodes. Calls return when the task is cancelled, with a failure.
protocol ReplicationTransport: Sendable {
    func position(of node: NodeAddress, shard: String) async -> PositionOutcome

    /// The frames after a position, waiting for one as long as `limits.longPollWait`: for the feed of a shard.
    func tail(
        of leader: NodeAddress, shard: String, after position: LogPosition, limits: ReplicationLimits
    ) async -> ReadOutcome

    /// The frames after a position, if there are any: for a follower behind the window.
    /// - Parameter isDoubtful: the follower did not take what it was sent last, and shall not hold up others.
    func catchUp(
        from leader: NodeAddress, shard: String, after position: LogPosition, isDoubtful: Bool,
        limits: ReplicationLimits
    ) async -> ReadOutcome

    /// - Parameter limits: what is larger than their answers is postponed while the follower's node has enough of it.
    func push(_ push: LogPush, to follower: NodeAddress, shard: String, limits: ReplicationLimits) async -> PushOutcome

    /// Of everything that was read and is not let go yet.
    var budget: ReplicationBudget { get }

    /// Tells a leader where its followers are.
    func report(_ report: AckReport, to leader: NodeAddress, shard: String) async -> ReportOutcome

    // MARK: snapshots, by the steps of ``SnapshotTransfer``

    /// Waits until one more transfer may run in this process; it may as long as the turn is held. Nil where the task
    /// was cancelled.
    func snapshotTurn() async -> Turn?

    func openSnapshot(of leader: NodeAddress, shard: String, atLeast lsn: UInt64) async -> SnapshotOpening

    /// Begins, or goes on with what is there.
    func offer(_ manifest: SnapshotManifest, to follower: NodeAddress, shard: String) async -> SnapshotOffering

    /// Reads a range and checks it, at the pace that all transfers share.
    func fetch(_ range: SnapshotRange, from leader: NodeAddress, shard: String) async -> SnapshotFetching

    func send(_ chunk: SnapshotChunk, to follower: NodeAddress, shard: String) async -> SnapshotSending

    /// Lets the follower verify what it has and put it in place: takes long.
    /// - Parameter isDiverged: the leader does not have the batch at which the follower ends.
    func install(
        _ manifest: SnapshotManifest, isDiverged: Bool, at follower: NodeAddress, shard: String
    ) async -> SnapshotInstalling

    /// The leader may remove its checkpoint, as far as this replicator is concerned. A failure costs space for a minute.
    func releaseSnapshot(id: String, at leader: NodeAddress, shard: String) async

    /// The follower may remove what it received of a snapshot. A failure costs space for an hour.
    func discardSnapshot(id: String, at follower: NodeAddress, shard: String) async
}
