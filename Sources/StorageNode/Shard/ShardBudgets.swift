/// What the shards of a process share of its memory, beside ``LSM/SharedResources``. One for a process.
public final class ShardBudgets: Sendable {
    /// The newest batches of all logs, for followers that keep up.
    public static let framesBytesMax = 64 << 20
    /// What waits for the writers of all shards.
    public static let writesBytesMax = 256 << 20

    let frames: FrameBudget
    let writes: InboxBudget

    public init() {
        frames = FrameBudget(bytesMax: ShardBudgets.framesBytesMax)
        writes = InboxBudget(bytesMax: ShardBudgets.writesBytesMax)
    }

    init(framesBytesMax: Int, writesBytesMax: Int) {
        frames = FrameBudget(bytesMax: framesBytesMax)
        writes = InboxBudget(bytesMax: writesBytesMax)
    }

    public var framesUsedBytes: Int { frames.usedBytes }
    public var writesUsedBytes: Int { writes.usedBytes }
}
