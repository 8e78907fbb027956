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

    func push(_ push: LogPush, to follower: NodeAddress, shard: String) async -> PushOutcome

    /// Tells a leader where its followers are.
    func report(_ report: AckReport, to leader: NodeAddress, shard: String) async -> ReportOutcome
}
