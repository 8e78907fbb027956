public import Core
import LSM

/// The part a replica plays, with the topology's term for its shard.
public enum ShardRole: Sendable, Hashable {
    case leader(term: UInt64)
    case follower(term: UInt64)

    public var term: UInt64 {
        switch self {
        case .leader(let term), .follower(let term): term
        }
    }

    public var isLeader: Bool {
        if case .leader = self { true } else { false }
    }

    /// No term is above this; whoever claims one is refused.
    public static let termMax: UInt64 = 1 << 62
}

/// How one replica of a shard is kept. Every bound of the write path and the log is here.
public struct ShardConfiguration: Sendable {
    public var name: String
    public var cluster: String
    /// This node, to tell a promise to itself from one to another candidate; nil takes every candidate for itself.
    public var node: NodeAddress?
    /// The replica's own directory; created where it is missing.
    public var directory: String
    public var durability = Durability.always
    public var syncIntervalMilliseconds: UInt64 = 100

    /// One write batch; a single larger write goes alone.
    public var batchBytesMax = 1 << 20
    public var batchOperationsMax = 4_096
    /// Values that the reads of one submission may find, together.
    public var readBytesMax = 16 << 20
    /// Writes accepted and not yet answered. Beyond this ``ShardReplica/submit(_:completion:)`` throws
    /// `KVError(.overloaded)`.
    public var inboxBytesMax = 64 << 20
    public var inboxOperationsMax = 65_536

    /// The newest part of the log, in memory, so that followers that keep up never make the leader read its disk.
    public var ringBytesMax = 16 << 20
    /// The write-ahead log that is kept for followers.
    public var logRetentionBytes = 1 << 30
    /// Overrides the even part of the process's memtable budget.
    public var memtableBytesEach: Int?
    /// Readers that wait for the next commit.
    public var waitersMax = 1_024
    /// Writes that wait for acknowledgements of followers.
    public var ackWaitersMax = 16_384
    /// Open positions in the write-ahead log, kept for readers that come back.
    public var logCursorsMax = 8

    /// Log batches of one push that a follower joins into one RocksDB write.
    public var applyBatchesMax = 256
    public var applyBytesMax = 4 << 20

    /// Damage in the write-ahead log is cut off when the replica is opened, and what is behind it with it: for the only
    /// replica of a shard, which would not open otherwise.
    public var dropsDamagedLog = false

    /// A follower serves no reads before it has caught up with its leader, also where the directory holds data: that
    /// may be from long ago.
    public var joins = false

    /// The longest time that ``ShardReplica/hold(milliseconds:)`` holds writes back.
    public var holdMillisecondsMax: UInt64 = 5_000
    /// How long ``ShardReplica/digest(boundaries:at:)`` waits for its position, and how many may.
    public var digestWaitMilliseconds: UInt64 = 1_000
    public var positionStopsMax = 16

    /// Where writes are saved that a rebuilt replica had and its shard's history has not; created where needed.
    public var divergedDirectory: String

    /// - Parameter directory: `DATA/shards/NAME`; diverged writes then go to `DATA/diverged`.
    public init(name: String, cluster: String, directory: String) {
        self.name = name
        self.cluster = cluster
        self.directory = directory
        divergedDirectory = Files.parent(of: Files.parent(of: directory)) + "/diverged"
    }

    var databaseOptions: DatabaseOptions {
        var options = DatabaseOptions()
        options.logRetentionBytes = logRetentionBytes
        options.memtableBytesEach = memtableBytesEach
        return options
    }
}

/// The clocks a shard reads, passed in so that tests can bend them.
public struct ShardClock: Sendable {
    /// Milliseconds since the Unix epoch; may jump either way.
    public var wallMilliseconds: @Sendable () -> UInt64
    /// Never goes back.
    public var monotonicMilliseconds: @Sendable () -> UInt64

    public init(
        wallMilliseconds: @escaping @Sendable () -> UInt64, monotonicMilliseconds: @escaping @Sendable () -> UInt64
    ) {
        self.wallMilliseconds = wallMilliseconds
        self.monotonicMilliseconds = monotonicMilliseconds
    }
}

extension ExpiryClock {
    package convenience init(_ clock: ShardClock) {
        self.init(wallMilliseconds: clock.wallMilliseconds, monotonicMilliseconds: clock.monotonicMilliseconds)
    }
}
