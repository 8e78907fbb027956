/// The bounds of replication; together they keep the process small whatever the backlog.
public struct ReplicationLimits: Sendable, Hashable {
    /// What one read asks of a leader, and what one push sends at most; a single larger frame still passes.
    public var batchBytesMax = 1 << 20
    /// Read from a leader for one follower and not yet confirmed by it; a single larger frame still passes.
    public var inFlightBytesMax = 4 << 20
    /// The same for all followers together: each has its share, so that none has to wait for another.
    public var followersBytesMax = 16 << 20
    /// Recent frames kept for one shard.
    public var windowBytesMax = 8 << 20
    /// The same for all shards together: each has its share.
    public var windowsBytesMax = 24 << 20
    /// No share makes a batch smaller than this.
    public var batchBytesMin = 64 << 10
    /// A feed does not read on while its fastest follower has this much of the window before it.
    public var readAheadBytesMax = 2 << 20
    /// A feed starts no two reads closer than this, so that a leader under load is asked for many batches at once.
    public var readInterval = Duration.milliseconds(1)
    /// How long a leader may hold a read that has nothing to answer. So often a quiet shard's followers hear of it.
    public var longPollWait = Duration.milliseconds(250)
    /// A leader is told of its followers' positions no more often than this.
    public var reportInterval = Duration.milliseconds(1)
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

    /// An answer larger than this, which only a single large frame can be, is given up and asked for again in turn:
    /// one at a time for the feeds, one for the followers that are behind.
    var answerBytesMax: Int { 2 * batchBytesMax }

    /// The limits of each where there are so many: a follower holds one batch being pushed and one read ahead.
    func shared(shards: Int, followers: Int) -> ReplicationLimits {
        var limits = self
        let share = max(batchBytesMin, followersBytesMax / (2 * max(followers, 1)))
        limits.batchBytesMax = min(batchBytesMax, share)
        limits.windowBytesMax = max(2 * limits.batchBytesMax, min(windowBytesMax, windowsBytesMax / max(shards, 1)))
        limits.readAheadBytesMax = min(readAheadBytesMax, limits.windowBytesMax / 2)
        return limits
    }
}
