import Configuration
public import Core
import DistribKVClient
import HTTPServer
import LSM
import Logging
import NIOCore
import NIOPosix
public import ServiceLifecycle
import ServiceSupport
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
        let group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.eventLoopThreads)
        do {
            try await run(blocking, group)
        } catch {
            try? await group.shutdownGracefully()  // The first error is the one to show.
            throw error
        }
        try await group.shutdownGracefully()
        configuration.logger.info("stopped")
    }

    private func run(_ blocking: NIOThreadPool, _ group: MultiThreadedEventLoopGroup) async throws {
        let directory = try await blocking.runIfActive { [configuration] in
            try DataDirectory(path: configuration.dataDirectory)
        }
        defer { withExtendedLifetime(directory) {} }
        let connections = NodeConnections(group: group, configuration: .peers)
        let batches = NodeConnections(
            group: group, configuration: .batches(valueBytesMax: configuration.storage.valueBytesMax))
        let scans = NodeConnections(
            group: group, configuration: .scans(recordBytesMax: configuration.scanRecordBytesMax))
        let result: Result<Void, any Error>
        do {
            result = .success(try await run(blocking, group, connections, batches: batches, scans: scans))
        } catch {
            result = .failure(error)
        }
        for connections in [connections, batches, scans] { await connections.shutdown() }
        try result.get()
    }

    private func run(
        _ blocking: NIOThreadPool, _ group: MultiThreadedEventLoopGroup, _ connections: NodeConnections,
        batches: NodeConnections, scans: NodeConnections
    ) async throws {
        let start = NodeStart(configuration: configuration, connections: connections, blocking: blocking)
        let plan: NodeStart.Plan
        do {
            plan = try await cancelWhenGracefulShutdown { try await start.plan() }
        } catch is CancellationError {
            return  // Asked to stop while it waited for the cluster.
        }
        let peers = Peers(transport: connections)
        let keeper = try await StorageNode.open(plan.topology, configuration, peers, blocking)
        let node = Node(
            configuration: configuration, keeper: keeper, peers: peers, batchConnections: batches,
            scanConnections: scans,
            readers: ReaderPool(
                threads: configuration.storage.readerThreads, waitingMax: configuration.storage.readerQueueMax))
        do {
            try await StorageNode.serve(node, plan.join, connections, group, blocking, onStart: onStart)
        } catch {
            try? await node.stopThreads()  // The first error is the one to show.
            try? await keeper.close()
            throw error
        }
        try await node.stopThreads()
        try await keeper.close()
    }

    // MARK: Starting

    /// Opens every replica that the topology gives to this node.
    /// - Parameter blocking: threads that may block, for as long as the node runs.
    private static func open(
        _ topology: Topology, _ configuration: StorageNodeConfiguration, _ peers: Peers, _ blocking: NIOThreadPool
    ) async throws -> TopologyKeeper {
        let hosted = topology.shards.filter { $0.replicas.contains(configuration.address) }
        let opener = ReplicaOpener(configuration: configuration, databases: hosted.count, threads: blocking)
        let opened = try await opener.openAtStart(hosted, cluster: topology.cluster, peers: peers)
        let view = try NodeView(
            generation: 1, topology: topology, address: configuration.address, replicas: opened.replicas,
            absences: opened.absences)
        return TopologyKeeper(configuration: configuration, view: view, opener: opener, threads: blocking)
    }

    // MARK: Serving

    /// Table files, files of snapshots and logs, peers, and connections that are being refused.
    private static let reservedDescriptors = SharedResources.Options().openFilesMax + 1_024

    private static func serve(
        _ node: Node, _ join: ClusterJoin?, _ connections: NodeConnections, _ group: MultiThreadedEventLoopGroup,
        _ blocking: NIOThreadPool, onStart: @Sendable (NodeAddress) -> Void
    ) async throws {
        let configuration = node.configuration
        let admin = ShardAdmin(node: node)
        let question = try await admin.spreading.holdUntilAsked()
        var limits = HTTPServerConfiguration(host: configuration.listen.host, port: configuration.listen.port)
        let room = ConnectionRoom(wanted: limits.connectionsMax, reserved: reservedDescriptors)
        limits.connectionsMax = room.connectionsMax
        if let warning = room.warning { configuration.logger.warning("\(warning)") }
        let server: HTTPServer
        do {
            server = try await HTTPServer.start(configuration: limits, group: group) {
                NodeHandler.make(node: node, admin: admin, eventLoop: $0)
            }
        } catch {
            throw KVError(
                .unavailable, "cannot listen on \(configuration.listen); is another process using it?", cause: error)
        }
        do {
            // The replicator comes as soon as the cluster has taken the node in, so that it has to serve before.
            if let join {
                try await cancelWhenGracefulShutdown { try await NodeStart.finish(join, keeper: node.keeper) }
            }
            try await blocking.runIfActive { try NodeStart.saveRecord(configuration) }
        } catch {
            await server.shutdown(grace: .zero)
            if error is CancellationError { return }  // Asked to stop while it waited for the cluster.
            throw error
        }
        let address = NodeAddress(
            host: configuration.listen.host, port: server.localAddress.port ?? configuration.listen.port)
        configuration.logger.info(
            "serving",
            metadata: [
                "listen": "\(address)", "node": "\(configuration.address)", "epoch": "\(node.view.topology.epoch)",
                "shards": "\(node.view.replicas.compactMap { $0?.configuration.name }.joined(separator: ","))",
                "durability": "\(configuration.storage.durability.rawValue)",
            ])
        let upkeep = [
            node.scheduleTidying(on: group.next()), node.scheduleRewriting(on: group.next()),
            node.scheduleLooking(on: group.next()),
        ]
        onStart(address)
        await withDiscardingTaskGroup { tasks in
            tasks.addTask {
                await admin.spreading.ask(question)
                await admin.spreading.run()
            }
            let renewal = TermRenewal(admin: admin, limits: configuration.termRenewal, eventLoop: group.next())
            tasks.addTask { await renewal.run() }
            let damaged = DamagedLeaders(
                admin: admin, limits: configuration.damagedLeaders, eventLoop: group.next())
            tasks.addTask { await damaged.run() }
            tasks.addTask { await ScrubSchedule(node: node, limits: configuration.scrub).run() }
            try? await gracefulShutdown()  // Cancellation ends the wait as well: what follows is the same.
            tasks.cancelAll()
            await connections.shutdown()
        }
        configuration.logger.info("stopping", metadata: ["connections": "\(server.connectionCount)"])
        for task in upkeep { task.cancel() }
        node.stopWaiting()
        await server.shutdown(grace: StorageNode.shutdownGrace)
    }
}
