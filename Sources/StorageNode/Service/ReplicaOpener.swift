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
        try await threads.runIfActive { try openBlocking(shard, cluster: cluster, joins: joins, mayLead: true) }
    }

    /// Opens the replica when the node starts. One that is to lead and is empty, or never had everything, leads only
    /// where no follower has anything: else its data is lost, and with it leading everybody's would be.
    ///
    /// Throws as ``open(_:cluster:joins:)``.
    func openAtStart(_ shard: ShardTopology, cluster: String, peers: Peers) async throws -> ShardReplica {
        let leads = shard.leader == configuration.address && !shard.followers.isEmpty
        let isNew = try await threads.runIfActive { ShardReplica.isNew(directory: directory(of: shard)) }
        guard leads, isNew, let holder = await peers.firstWithData(ofShard: shard.name, among: shard.followers) else {
            return try await open(shard, cluster: cluster)
        }
        configuration.logger.warning(
            """
            this node is to lead the shard and has no data of it, but a follower has: it does not lead; have a follower \
            lead with kv failover, and this node is rebuilt
            """,
            metadata: ["shard": "\(shard.name)", "follower": "\(holder.node)", "lsn": "\(holder.lsn)"])
        return try await threads.runIfActive {
            try openBlocking(shard, cluster: cluster, joins: true, mayLead: false)
        }
    }

    private func directory(of shard: ShardTopology) -> String {
        "\(configuration.dataDirectory)/shards/\(shard.name)"
    }

    private func openBlocking(
        _ shard: ShardTopology, cluster: String, joins: Bool, mayLead: Bool
    ) throws(KVError) -> ShardReplica {
        var options = ShardConfiguration(name: shard.name, cluster: cluster, directory: directory(of: shard))
        options.node = configuration.address
        options.joins = joins
        options.durability = configuration.storage.durability
        options.ackWaitersMax = configuration.ackWaitersMax
        options.logRetentionBytes = configuration.replication.logRetentionBytes
        let leads = mayLead && shard.leader == configuration.address
        let role: ShardRole = leads ? .leader(term: shard.term) : .follower(term: shard.term)
        let replica = try ShardReplica.open(
            options, role: role, shared: shared, clock: configuration.clock, logger: configuration.logger)
        configuration.logger.info(
            "shard open",
            metadata: [
                "shard": "\(shard.name)", "role": role.isLeader ? "leader" : "follower",
                "term": "\(replica.position.term)", "lsn": "\(replica.position.lsn)",
            ])
        return replica
    }
}
