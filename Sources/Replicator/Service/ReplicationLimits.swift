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
    /// Frames larger than a share that are on their way to one node, of all shards; a single larger one still passes.
    public var largePushesBytesMax = 40 << 20
    /// All frames in memory. From half of this on no window keeps a frame that is larger than its share.
    public var framesBytesMax = 96 << 20
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
    /// One node after the other is asked this often for the epoch it knows.
    public var epochInterval = Duration.milliseconds(500)
    public var connectTimeout = Duration.seconds(1)
    /// For an answer, beyond what the leader may hold it.
    public var answerTimeout = Duration.seconds(5)
    /// For a push, which the follower answers when it has stored the batches.
    public var pushTimeout = Duration.seconds(15)
    public var backoffMin = Duration.milliseconds(20)
    public var backoffMax = Duration.seconds(1)
    /// Snapshots on their way at once, to all followers of all shards; the others wait their turn.
    public var snapshotTransfersMax = 4
    /// One part of a snapshot's file. A transfer holds one being sent and ``snapshotRangesAhead`` more.
    public var snapshotRangeBytesMax = 1 << 20
    /// Ranges that are fetched while one is being sent.
    public var snapshotRangesAhead = 2
    /// Of all snapshots together; nil for no limit.
    public var snapshotBytesPerSecondMax: Int?
    /// A leader keeps a checkpoint for 60 s after it was read last: where nothing else is read, something is that often.
    public var snapshotTouchInterval = Duration.seconds(20)
    /// Where somebody else brings a follower its snapshot, it is looked at this often.
    public var snapshotWatchInterval = Duration.seconds(1)
    /// A transfer that has not moved for so long is given up, so that the leader's disk is free of its checkpoint.
    public var snapshotPatience = Duration.seconds(300)
    /// After a snapshot that was of no use the next one is asked for no sooner than this, doubling up to the maximum:
    /// a checkpoint makes the leader read its whole database.
    public var snapshotBackoffMin = Duration.seconds(1)
    public var snapshotBackoffMax = Duration.seconds(30)
    /// For a leader to make a checkpoint, and for a follower to read one back and put it in place, at least.
    public var snapshotWorkTimeout = Duration.seconds(60)
    /// At what pace such work gets on at least: the timeout grows with the snapshot.
    public var snapshotWorkBytesPerSecondMin = 10 << 20

    public init() {}

    /// An answer larger than this, which only a single large frame can be, is given up and asked for again in turn:
    /// one at a time for the feeds, one for the followers that are behind.
    var answerBytesMax: Int { 2 * batchBytesMax }

    /// Under a limit of speed ranges take half a second each, so that what waits for its turn does not run into a
    /// timeout: of the leader's checkpoint for one.
    var snapshotRangeBytes: Int {
        guard let bytesPerSecond = snapshotBytesPerSecondMax else { return snapshotRangeBytesMax }
        return max(1, min(snapshotRangeBytesMax, bytesPerSecond / 2))
    }

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
