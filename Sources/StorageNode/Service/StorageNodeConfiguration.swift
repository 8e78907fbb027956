public import Configuration
public import Core
public import Logging
import Shard
public import Sharding
import Wire

/// Everything a storage node needs to know to start.
public struct StorageNodeConfiguration: Sendable {
    /// Of sharding.toml; nil where the node has none and starts from what its data directory has saved, or from
    /// ``join``.
    public var topology: Topology?
    /// Asks a running cluster to be taken in; nil for a node that is in it, by sharding.toml or from before.
    public var join: JoinSettings?
    /// Saved once the node has started, for the next start; nil saves nothing.
    public var record: NodeRecord?
    /// This node's identity in the topology: it hosts every shard replica with this address.
    public var address: NodeAddress
    /// Where it listens; differs from `address` behind an address translation.
    public var listen: NodeAddress
    /// Made where it is missing. Holds `topology.json`, `node.json` and a folder for each hosted shard.
    public var dataDirectory: String
    public var storage: StorageSettings
    public var replication: ReplicationSettings
    /// Shards whose replica here is opened without what is damaged in its write-ahead log.
    public var dropsDamagedLogOf: Set<String> = []
    /// Writes of one shard that may wait for followers at once; one more is answered 503, and not made.
    public var ackWaitersMax = 16_384
    /// The largest record that a scan hands out, in bytes.
    var scanRecordBytesMax: Int { ScanFrame.bytes(key: Limits.keyBytesMax, value: storage.valueBytesMax) }
    /// When a leader begins a new term by itself.
    var termRenewal = TermRenewal.Limits()
    /// When a damaged leader hands over.
    var damagedLeaders = DamagedLeaders.Limits()
    /// When replicas are scrubbed.
    var scrub = ScrubSchedule.Limits()
    /// What the replicas take the time from.
    var clock = ShardClock.system
    /// Event loops that serve connections.
    public var eventLoopThreads: Int
    public var logger: Logger

    public init(
        topology: Topology?, address: NodeAddress, listen: NodeAddress, dataDirectory: String,
        storage: StorageSettings = StorageSettings(), replication: ReplicationSettings = ReplicationSettings(),
        eventLoopThreads: Int, logger: Logger
    ) {
        self.topology = topology
        self.address = address
        self.listen = listen
        self.dataDirectory = dataDirectory
        self.storage = storage
        self.replication = replication
        self.eventLoopThreads = eventLoopThreads
        self.logger = logger
    }
}
