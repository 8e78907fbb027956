import Configuration
import Core
import LSM
import Logging
import NIOPosix
import Shard
import Sharding

/// Opens this node's replicas, on a thread that may block.
struct ReplicaOpener: Sendable {
    private let configuration: StorageNodeConfiguration
    private let shared: SharedResources
    private let threads: NIOThreadPool

    /// - Parameters:
    ///   - databases: how many replicas share the memory; further ones may be opened and get a share of that size.
    ///   - threads: outlive every replica.
    init(configuration: StorageNodeConfiguration, databases: Int, threads: NIOThreadPool) {
        self.configuration = configuration
        self.threads = threads
        var options = SharedResources.Options()
        options.blockCacheBytes = configuration.storage.blockCacheBytes
        options.memtableBytes = configuration.storage.writeBufferBytes
        options.databases = max(1, databases)
        shared = SharedResources(options)
    }

    /// Opens the replica of `shard` in the role that the topology gives to this node.
    ///
    /// - Parameter joins: this node had no replica of the shard so far; what its directory may hold is old.
    ///
    /// Throws `KVError` as ``ShardReplica`` does.
    func open(_ shard: ShardTopology, cluster: String, joins: Bool = false) async throws -> ShardReplica {
        try await threads.runIfActive { try openBlocking(shard, cluster: cluster, joins: joins) }
    }

    private func openBlocking(
        _ shard: ShardTopology, cluster: String, joins: Bool
    ) throws(KVError) -> ShardReplica {
        var options = ShardConfiguration(
            name: shard.name, cluster: cluster, directory: "\(configuration.dataDirectory)/shards/\(shard.name)")
        options.node = configuration.address
        options.joins = joins
        options.durability = configuration.storage.durability
        options.ackWaitersMax = configuration.ackWaitersMax
        options.logRetentionBytes = configuration.replication.logRetentionBytes
        let role: ShardRole =
            shard.leader == configuration.address ? .leader(term: shard.term) : .follower(term: shard.term)
        let replica = try ShardReplica.open(options, role: role, shared: shared, logger: configuration.logger)
        configuration.logger.info(
            "shard open",
            metadata: [
                "shard": "\(shard.name)", "role": role.isLeader ? "leader" : "follower",
                "term": "\(replica.position.term)", "lsn": "\(replica.position.lsn)",
            ])
        return replica
    }
}
