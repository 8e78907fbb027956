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
    /// What all replicas share.
    let shared: SharedResources
    let budgets = ShardBudgets()
    private var threads: NIOThreadPool

    /// Replicas that are opened at once when the node starts. They wait for the disk most of the time.
    static let openingThreadsMax = 8

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

    /// What this node has of the replicas that the topology gives to it, by the names of their shards.
    struct Opened: Sendable {
        var replicas: [String: ShardReplica] = [:]
        var absences: [String: ReplicaAbsence] = [:]
    }

    /// Opens replicas side by side when the node starts. One that does not open is absent, and the others serve.
    ///
    /// Throws `KVError`: `.invalidConfiguration` and `.locked`, which are for the operator to mend and not of one replica;
    /// what is open by then is closed again.
    func openAtStart(_ shards: [ShardTopology], cluster: String, peers: Peers) async throws -> Opened {
        try checkDroppedLogs(shards)
        guard !shards.isEmpty else { return Opened() }
        let pool = NIOThreadPool(numberOfThreads: min(ReplicaOpener.openingThreadsMax, shards.count))
        pool.start()
        var opener = self
        opener.threads = pool
        let outcomes = await opener.outcomes(shards, cluster: cluster, peers: peers)
        try await pool.shutdownGracefully()
        return try await opened(shards, outcomes)
    }

    /// Throws `KVError(.invalidConfiguration)` for a shard that is not hosted here.
    private func checkDroppedLogs(_ shards: [ShardTopology]) throws(KVError) {
        let names = shards.map(\.name)
        for name in configuration.dropsDamagedLogOf.sorted() {
            guard names.contains(name) else {
                throw KVError(
                    .invalidConfiguration,
                    "--drop-damaged-log \(name): this node holds no replica of \(name), but of \(names.joined(separator: ", "))"
                )
            }
            configuration.logger.notice(
                "starts with --drop-damaged-log: leave it away next time", metadata: ["shard": "\(name)"])
        }
    }

    private typealias Outcome = Result<ShardReplica, any Error>

    private func outcomes(_ shards: [ShardTopology], cluster: String, peers: Peers) async -> [String: Outcome] {
        await withTaskGroup(of: (String, Outcome).self) { group in
            for shard in shards {
                group.addTask {
                    do {
                        let replica = try await openAtStart(shard, cluster: cluster, peers: peers)
                        return (shard.name, .success(replica))
                    } catch {
                        return (shard.name, .failure(error))
                    }
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }

    private func opened(_ shards: [ShardTopology], _ outcomes: [String: Outcome]) async throws -> Opened {
        var opened = Opened()
        var stop: (any Error)?
        // In the topology's order, so that the same failures are told the same way.
        for shard in shards {
            switch outcomes[shard.name] {
            case .success(let replica): opened.replicas[shard.name] = replica
            case .failure(let error as KVError) where error.code != .invalidConfiguration && error.code != .locked:
                opened.absences[shard.name] = absence(of: shard.name, because: error)
            case .failure(let error): stop = stop ?? error
            case nil: break
            }
        }
        guard let stop else { return opened }
        for replica in opened.replicas.values { try? await replica.close() }  // The reason to stop is the one to show.
        throw stop
    }

    /// Logs why a replica is not served.
    func absence(of shard: String, because error: KVError) -> ReplicaAbsence {
        configuration.logger.error("replica does not open", metadata: ["shard": "\(shard)", "reason": "\(error)"])
        return .failed(error)
    }

    /// Opens the replica when the node starts. One that is to lead and finds that a follower has all that it has and more
    /// does not lead: it has lost the end of its log, or its data, and with it leading everybody's would be lost.
    ///
    /// Throws as ``open(_:cluster:joins:)``.
    private func openAtStart(_ shard: ShardTopology, cluster: String, peers: Peers) async throws -> ShardReplica {
        guard shard.leader == configuration.address, !shard.followers.isEmpty else {
            return try await open(shard, cluster: cluster)
        }
        let others = await peers.histories(ofShard: shard.name, at: shard.followers)
        let replica = try await threads.runIfActive {
            try openBlocking(shard, cluster: cluster, joins: false, others: others.map(\.history))
        }
        if !replica.role.isLeader, let most = others.max(by: { $0.history.end < $1.history.end }),
            replica.position < most.history.end
        {
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

    /// What is left of a replica that does not open. Blocks.
    func remains(of shard: ShardTopology, cluster: String, because reason: KVError) throws(KVError) -> AbsentReplica {
        try AbsentReplica(
            options(shard, cluster: cluster, joins: true), term: shard.term, because: reason, shared: shared,
            clock: configuration.clock, logger: configuration.logger)
    }

    private func options(_ shard: ShardTopology, cluster: String, joins: Bool) -> ShardConfiguration {
        var options = ShardConfiguration(name: shard.name, cluster: cluster, directory: directory(of: shard))
        options.node = configuration.address
        options.budgets = budgets
        options.joins = joins
        options.durability = configuration.storage.durability
        options.ackWaitersMax = configuration.ackWaitersMax
        options.logRetentionBytes = configuration.replication.logRetentionBytes
        options.dropsDamagedLog = configuration.dropsDamagedLogOf.contains(shard.name)
        return options
    }

    private func openBlocking(
        _ shard: ShardTopology, cluster: String, joins: Bool, others: [TermHistory]
    ) throws(KVError) -> ShardReplica {
        let leads = shard.leader == configuration.address
        let role: ShardRole = leads ? .leader(term: shard.term) : .follower(term: shard.term)
        let replica = try ShardReplica.open(
            options(shard, cluster: cluster, joins: joins), role: role, others: others, shared: shared,
            clock: configuration.clock, logger: configuration.logger)
        configuration.logger.info(
            "shard open",
            metadata: [
                "shard": "\(shard.name)", "role": replica.role.isLeader ? "leader" : "follower",
                "term": "\(replica.position.term)", "lsn": "\(replica.position.lsn)",
            ])
        return replica
    }
}
