import Configuration
public import Core
import HTTPServer
import LSM
import Logging
import NIOCore
import NIOPosix
public import ServiceLifecycle
import Shard
import Sharding
import UnixSignals

/// A storage node: opens the shard replicas that the topology gives to its address, and serves them.
///
/// ``run()`` returns after a graceful shutdown: requests that have arrived are answered, logs are synced, databases
/// closed.
public final class StorageNode: Service {
    private let configuration: StorageNodeConfiguration
    private let onStart: @Sendable (NodeAddress) -> Void

    /// What a shutdown waits for requests in flight.
    private static let shutdownGrace = TimeAmount.seconds(10)

    /// - Parameter onStart: called with the address it really listens on, once it serves.
    public init(
        configuration: StorageNodeConfiguration, onStart: @escaping @Sendable (NodeAddress) -> Void = { _ in }
    ) {
        self.configuration = configuration
        self.onStart = onStart
    }

    /// Runs a storage node until SIGTERM or SIGINT.
    public static func serve(_ configuration: StorageNodeConfiguration) async throws {
        let group = ServiceGroup(
            services: [StorageNode(configuration: configuration)], gracefulShutdownSignals: [.sigterm, .sigint],
            logger: configuration.logger)
        try await group.run()
    }

    public func run() async throws {
        let blocking = NIOThreadPool(numberOfThreads: 1)
        blocking.start()
        defer { blocking.shutdownGracefully { _ in } }
        var configuration = self.configuration
        let directory = try await blocking.runIfActive { [configuration] in
            try DataDirectory(path: configuration.dataDirectory)
        }
        defer { withExtendedLifetime(directory) {} }
        configuration.topology = try await blocking.runIfActive { [configuration] in
            try StorageNode.chooseTopology(configuration)
        }
        let replicas = try await blocking.runIfActive { [configuration] in
            try StorageNode.openReplicas(configuration)
        }
        do {
            try await serve(replicas, configuration)
        } catch {
            try? await StorageNode.close(replicas)  // The first error is the one to show.
            throw error
        }
        try await StorageNode.close(replicas)
        configuration.logger.info("stopped")
    }

    // MARK: Starting

    /// The newer one of the topology in the configuration and the one this node has served with before. Blocks.
    private static func chooseTopology(_ configuration: StorageNodeConfiguration) throws -> Topology {
        let persisted = PersistedTopology(directory: configuration.dataDirectory)
        let choice = try TopologyChoice.resolve(file: configuration.topology, saved: try persisted.load())
        if let note = choice.note { configuration.logger.notice("\(note)") }
        if choice.isNew { try persisted.save(choice.topology) }
        return choice.topology
    }

    /// Opens every replica of this node, by position in the topology. Blocks.
    private static func openReplicas(_ configuration: StorageNodeConfiguration) throws -> [ShardReplica?] {
        let hosted = configuration.topology.shards.filter { $0.replicas.contains(configuration.address) }
        guard !hosted.isEmpty else {
            let nodes = configuration.topology.nodes.map(\.description).joined(separator: ", ")
            throw KVError(
                .invalidConfiguration,
                "no shard names \(configuration.address) as address or replica; use --advertise with one of \(nodes)")
        }
        var options = SharedResources.Options()
        options.blockCacheBytes = configuration.storage.blockCacheBytes
        options.memtableBytes = configuration.storage.writeBufferBytes
        options.databases = hosted.count
        let shared = SharedResources(options)
        return try configuration.topology.shards.map { shard in
            guard shard.replicas.contains(configuration.address) else { return nil }
            return try open(shard, configuration, shared)
        }
    }

    private static func open(
        _ shard: ShardTopology, _ configuration: StorageNodeConfiguration, _ shared: SharedResources
    ) throws -> ShardReplica {
        var options = ShardConfiguration(
            name: shard.name, cluster: configuration.topology.cluster,
            directory: "\(configuration.dataDirectory)/shards/\(shard.name)")
        options.durability = configuration.storage.durability
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

    /// Syncs and closes every replica; throws the first failure once all have been tried.
    private static func close(_ replicas: [ShardReplica?]) async throws {
        var failure: KVError?
        for case let replica? in replicas {
            do throws(KVError) {
                try await replica.close()
            } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }

    // MARK: Serving

    private func serve(_ replicas: [ShardReplica?], _ configuration: StorageNodeConfiguration) async throws {
        let readers = ReaderPool(
            threads: configuration.storage.readerThreads,
            waitingMax: configuration.storage.readerQueueMax)
        let node = try Node(configuration: configuration, replicas: replicas, readers: readers)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.eventLoopThreads)
        let server: HTTPServer
        do {
            server = try await HTTPServer.start(
                configuration: HTTPServerConfiguration(
                    host: configuration.listen.host, port: configuration.listen.port), group: group
            ) { NodeHandler(node: node, eventLoop: $0) }
        } catch {
            try await readers.shutdown()
            try await group.shutdownGracefully()
            throw KVError(
                .unavailable, "cannot listen on \(configuration.listen); is another process using it?", cause: error)
        }
        let address = NodeAddress(
            host: configuration.listen.host, port: server.localAddress.port ?? configuration.listen.port)
        configuration.logger.info(
            "serving",
            metadata: [
                "listen": "\(address)", "node": "\(configuration.address)", "epoch": "\(node.topology.epoch)",
                "shards": "\(replicas.compactMap { $0?.configuration.name }.joined(separator: ","))",
                "durability": "\(configuration.storage.durability.rawValue)",
            ])
        onStart(address)
        try? await gracefulShutdown()  // Cancellation ends the wait as well: what follows is the same.
        configuration.logger.info("stopping", metadata: ["connections": "\(server.connectionCount)"])
        for replica in replicas { replica?.stopWaiting() }
        await server.shutdown(grace: StorageNode.shutdownGrace)
        try await readers.shutdown()
        try await group.shutdownGracefully()
    }
}
