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
        try await threads.runIfActive { try openBlocking(shard, cluster: cluster, joins: joins, others: []) }
    }

    /// Opens the replica when the node starts. One that is to lead and finds that a follower has all that it has and more
    /// does not lead: it has lost the end of its log, or its data, and with it leading everybody's would be lost.
    ///
    /// Throws as ``open(_:cluster:joins:)``.
    func openAtStart(_ shard: ShardTopology, cluster: String, peers: Peers) async throws -> ShardReplica {
        guard shard.leader == configuration.address, !shard.followers.isEmpty else {
            return try await open(shard, cluster: cluster)
        }
        let others = await peers.histories(ofShard: shard.name, at: shard.followers)
        let replica = try await threads.runIfActive {
            try openBlocking(shard, cluster: cluster, joins: false, others: others.map(\.history))
        }
        if !replica.role.isLeader, let most = others.max(by: { $0.history.end < $1.history.end }) {
            configuration.logger.warning(
                """
                this node is to lead the shard and has less of it than a follower: it does not lead, and asks the follower \
                to
                """,
                metadata: [
                    "shard": "\(shard.name)", "lsn": "\(replica.position.lsn)", "follower": "\(most.node)",
                    "follower_lsn": "\(most.history.end.lsn)",
                ])
        }
        return replica
    }

    private func directory(of shard: ShardTopology) -> String {
        "\(configuration.dataDirectory)/shards/\(shard.name)"
    }

    private func openBlocking(
        _ shard: ShardTopology, cluster: String, joins: Bool, others: [TermHistory]
    ) throws(KVError) -> ShardReplica {
        var options = ShardConfiguration(name: shard.name, cluster: cluster, directory: directory(of: shard))
        options.node = configuration.address
        options.joins = joins
        options.durability = configuration.storage.durability
        options.ackWaitersMax = configuration.ackWaitersMax
        options.logRetentionBytes = configuration.replication.logRetentionBytes
        options.dropsDamagedLog = configuration.dropsDamagedLogOf.contains(shard.name)
        let leads = shard.leader == configuration.address
        let role: ShardRole = leads ? .leader(term: shard.term) : .follower(term: shard.term)
        let replica = try ShardReplica.open(
            options, role: role, others: others, shared: shared, clock: configuration.clock,
            logger: configuration.logger)
        configuration.logger.info(
            "shard open",
            metadata: [
                "shard": "\(shard.name)", "role": replica.role.isLeader ? "leader" : "follower",
                "term": "\(replica.position.term)", "lsn": "\(replica.position.lsn)",
            ])
        return replica
    }
}
