public import Core
public import Sharding

/// What a router does with a request for a key.
public enum RouterMode: String, Sendable, Hashable, CaseIterable {
    /// Sends the client to the node.
    case redirect
    /// Asks the node and passes its answer on.
    case proxy
}

/// `[storage]`: what a storage node uses and takes. One budget for all shard replicas of the node.
public struct StorageSettings: Sendable, Hashable {
    public var durability = Durability.always
    /// Uncompressed blocks of SST files in memory.
    public var blockCacheBytes = 256 << 20
    /// Memtables, before they are written to SST files.
    public var writeBufferBytes = 64 << 20
    /// A larger value is answered 413.
    public var valueBytesMax = Limits.valueBytesMaxDefault
    /// Threads for reads that may touch the disk.
    public var readerThreads = 4
    /// Reads that may wait for such a thread; more are answered 503.
    public var readerQueueMax = 1_024
    /// At which the scrub reads what all replicas have on the disk; 0 for no scrub, nil for what reads it in a week.
    public var scrubBytesPerSecond: Int?

    public init() {}
}

/// `[replication]`: the log a leader keeps and what the replicator carries.
public struct ReplicationSettings: Sendable, Hashable {
    /// Log a leader keeps for followers that are behind, per shard, on disk.
    public var logRetentionBytes = 1 << 30
    /// Batches in one request to a follower; a single larger batch is sent alone.
    public var batchBytesMax = 1 << 20
    /// Batches read from a leader and not yet confirmed, per follower.
    public var inFlightBytesMax = 4 << 20
    /// Of all snapshots together that one replicator carries; nil for no limit.
    public var snapshotBytesPerSecondMax: Int?
    /// Of writes that do not say.
    public var defaultAck = AckLevel.leader

    public init() {}
}

/// `[router]`: how a router answers.
public struct RouterSettings: Sendable, Hashable {
    public var mode = RouterMode.redirect
    /// Milliseconds between two health checks of a node.
    public var healthIntervalMilliseconds = 1_000

    public init() {}
}

/// The contents of `sharding.toml`, checked.
///
/// Invariants: at least one shard; shards stand by rising index, which run from 0 without a gap; names are unique;
/// no address stands twice in one shard.
public struct ShardingFile: Sendable, Hashable {
    /// The path it was read from, as error messages show it.
    public var file: String
    /// `[cluster] name`
    public var cluster: String
    /// `[cluster] epoch`: of the topology that the file describes. To be raised with every change of `[[shards]]`
    /// on a cluster that has run.
    public var epoch: UInt64
    public var shards: [ShardPlacement]
    public var storage: StorageSettings
    public var replication: ReplicationSettings
    public var router: RouterSettings

    public static let nameCharactersMax = 64

    /// The topology that the file describes: slots by consistent hashing, every term the epoch.
    ///
    /// A pure function of names, indexes, addresses, cluster name and epoch.
    public func topology() throws -> Topology {
        try Topology.placing(cluster: cluster, epoch: epoch, shards: shards)
    }
}
