/// The bounds of replication; together they keep the process small whatever the backlog.
public struct ReplicationLimits: Sendable, Hashable {
    /// What one read asks of a leader, and what one push sends at most; a single larger frame still passes.
    public var batchBytesMax = 1 << 20
    /// Read from a leader for one follower and not yet confirmed by it; a single larger frame still passes.
    public var inFlightBytesMax = 4 << 20
    /// An answer larger than this, which only a single large frame can be, is given up and asked for again when no
    /// other such answer is held: one at a time for the feeds, one for the followers that are behind.
    public var answerBytesMax: Int { 2 * batchBytesMax }
    /// Recent frames kept for one shard.
    public var windowBytesMax = 8 << 20
    /// Recent frames kept for all shards together; each has its share.
    public var windowsBytesMax = 24 << 20
    /// Bytes that followers behind the window hold at once, over all shards.
    public var catchUpBytesMax = 16 << 20
    /// A feed does not read on while its fastest follower has this much of the window before it.
    public var readAheadBytesMax = 2 << 20
    /// A feed starts no two reads closer than this, so that a leader under load is asked for many batches at once.
    public var readInterval = Duration.milliseconds(1)
    /// How long a leader may hold a read that has nothing to answer.
    public var longPollWait = Duration.seconds(2)
    /// A leader whose shard has no follower to feed is asked for its position this often, for `/status`.
    public var idleInterval = Duration.seconds(1)
    public var connectTimeout = Duration.seconds(1)
    /// For an answer, beyond what the leader may hold it.
    public var answerTimeout = Duration.seconds(5)
    /// For a push, which the follower answers when it has stored the batches.
    public var pushTimeout = Duration.seconds(15)
    public var backoffMin = Duration.milliseconds(20)
    public var backoffMax = Duration.seconds(1)
    /// A follower that cannot be fed is asked again this often.
    public var snapshotCheckInterval = Duration.seconds(3)

    public init() {}

    /// The window of one of `shards` shards.
    func windowBytes(shards: Int) -> Int { min(windowBytesMax, windowsBytesMax / max(shards, 1)) }
}
