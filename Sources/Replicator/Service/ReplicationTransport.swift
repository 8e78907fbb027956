import Core

/// How the loop reaches the nodes. Calls return when the task is cancelled, with a failure.
protocol ReplicationTransport: Sendable {
    func position(of node: NodeAddress, shard: String) async -> PositionOutcome

    /// The frames after a position, waiting for one as long as `limits.longPollWait`: for the feed of a shard.
    func tail(of leader: NodeAddress, shard: String, after position: LogPosition) async -> ReadOutcome

    /// The frames after a position, if there are any: for a follower behind the window. What it returns holds
    /// bytes of the catch-up budget; where none are free the call waits for some.
    func catchUp(from leader: NodeAddress, shard: String, after position: LogPosition) async -> ReadOutcome

    func push(_ segment: LogSegment, to follower: NodeAddress, shard: String) async -> PushOutcome
}
