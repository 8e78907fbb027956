/// How far a scrub of a replica is: a pass over everything it has on the disk, to find damage.
public struct ScrubDocument: Codable, Sendable, Hashable {
    /// The most files that ``damage`` names.
    public static let damageMax = 16

    public var shard: String
    /// Counted from 1 for as long as the replica has its directory; 0 before the first one.
    public var number: UInt64
    public var isRunning: Bool
    /// Of ``bytesTotal``, also where less was read because a compaction had removed a table.
    public var bytesDone: UInt64
    public var bytesTotal: UInt64
    /// It has run for that long.
    public var milliseconds: UInt64
    /// One line for each damaged file, with its name.
    public var damage: [String]
    /// Why it ended early; nil if it did not.
    public var failure: String?
    /// When the last one that read everything ended, milliseconds since the Unix epoch; nil before that.
    public var lastWholeMilliseconds: UInt64?
    /// Of a leader: that a follower at the same position has another content. Which of the two is right is not known.
    public var difference: String?

    public init(shard: String, number: UInt64 = 0, isRunning: Bool = false) {
        self.shard = shard
        self.number = number
        self.isRunning = isRunning
        bytesDone = 0
        bytesTotal = 0
        milliseconds = 0
        damage = []
    }
}
