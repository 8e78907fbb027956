import Configuration
public import Core
import DistribKVClient
import HTTPServer
import Logging
import NIOCore
import NIOPosix
import Observability
public import ServiceLifecycle
import ServiceSupport
import Sharding
import UnixSignals
import Wire

/// A router: tells each client which node serves a key, or asks that node itself.
///
/// Holds nothing that cannot be learnt again; any number may run side by side.
public final class Router: Service {
    /// Where it listens; the real port also where 0 was asked for.
    public let localAddress: NodeAddress
    private let configuration: RouterConfiguration
    private let group: MultiThreadedEventLoopGroup
    private let server: HTTPServer
    private let cluster: ClusterView
    private let poller: NIOLoopBound<HealthPoller>
    private let resources: RouterResources
    /// For requests of clients, and apart from them for looks at nodes, which may not wait behind any.
    private let connections: [NodeConnections]

    private init(
        localAddress: NodeAddress, configuration: RouterConfiguration, group: MultiThreadedEventLoopGroup,
        server: HTTPServer, cluster: ClusterView, poller: NIOLoopBound<HealthPoller>, resources: RouterResources,
        connections: [NodeConnections]
    ) {
        self.localAddress = localAddress
        self.configuration = configuration
        self.group = group
        self.server = server
        self.cluster = cluster
        self.poller = poller
        self.resources = resources
        self.connections = connections
    }

    /// Serves until the process is sent SIGTERM or SIGINT, then answers what is in flight and returns.
    /// - Throws: as ``start(_:)`` does.
    public static func serve(_ configuration: RouterConfiguration) async throws {
        let router = try await start(configuration)
        let services = ServiceGroup(
            services: [router], gracefulShutdownSignals: [.sigterm, .sigint], logger: configuration.logger)
        try await services.run()
    }

    /// Binds and serves. Ends with ``shutdown()``, which ``run()`` calls.
    /// - Throws: `KVError(.unavailable)` where the address cannot be bound.
    public static func start(_ configuration: RouterConfiguration) async throws -> Router {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.threads)
        do {
            return try await start(configuration, group: group)
        } catch {
            await stop(group, logger: configuration.logger)
            throw error
        }
    }

    /// Values in the answers of batches, together.
    private static let batchAnswerBytesMax = 256 << 20

    /// Connections to nodes, and those of clients that are being refused.
    private static let reservedDescriptors = 2_048

    private static func start(
        _ configuration: RouterConfiguration, group: MultiThreadedEventLoopGroup
    ) async throws -> Router {
        let control = NodeConnections(group: group, configuration: .control)
        let proxyConnections = NodeConnections(group: group, configuration: .proxy(configuration))
        let batchConnections = NodeConnections(group: group, configuration: .batches(configuration))
        let scanConnections = NodeConnections(group: group, configuration: .scans(configuration))
        let cluster = try ClusterView(
            topology: configuration.topology, transport: control, logger: configuration.logger)
        let metrics = RouterMetrics(registry: MetricsRegistry())
        metrics.register(cluster)
        let resources = RouterResources(
            cluster: cluster, registry: metrics.registry, mode: configuration.mode.rawValue)
        let loops = Array(group.makeIterator())
        let budget = AnswerBudget(bytesMax: batchAnswerBytesMax)
        let makeHandler: @Sendable (any EventLoop) -> any HTTPHandler = { eventLoop in
            let proxy = Proxy(
                transport: proxyConnections, cluster: cluster, metrics: metrics,
                inFlightMax: max(1, configuration.proxiedRequestsMax / loops.count),
                timeout: configuration.proxyTimeout)
            let scans = RouterScans(
                transport: scanConnections, cluster: cluster, metrics: metrics,
                inFlightMax: max(1, RouterScans.inFlightMax / loops.count), timeout: configuration.proxyTimeout,
                recordBytesMax: configuration.scanRecordBytesMax)
            let number = loops.firstIndex { $0 === eventLoop } ?? 0
            let handler = RouterHandler(
                table: cluster.table, configuration: configuration, proxy: proxy, scans: scans,
                batches: BatchHandler(
                    transport: batchConnections, cluster: cluster, metrics: metrics, budget: budget,
                    configuration: configuration, eventLoop: eventLoop),
                resources: resources, metrics: metrics, redirects: metrics.redirects(loop: number))
            let bound = NIOLoopBound(handler, eventLoop: eventLoop)
            cluster.subscribe(on: eventLoop) { bound.value.use($0) }
            return handler
        }
        var limits = HTTPServerConfiguration(configuration)
        let room = ConnectionRoom(wanted: limits.connectionsMax, reserved: reservedDescriptors)
        limits.connectionsMax = room.connectionsMax
        if let warning = room.warning { configuration.logger.warning("\(warning)") }
        let server: HTTPServer
        do {
            server = try await HTTPServer.start(configuration: limits, group: group, makeHandler: makeHandler)
        } catch {
            cluster.close()
            throw KVError(.unavailable, "cannot listen on \(configuration.listen): \(error)", cause: nil)
        }
        let port = server.localAddress.port ?? configuration.listen.port
        let address = NodeAddress(host: configuration.listen.host, port: port)
        let pollingLoop = group.next()
        let poller = try await pollingLoop.submit {
            let poller = HealthPoller(
                eventLoop: pollingLoop, cluster: cluster, transport: control,
                interval: configuration.healthInterval, timeout: configuration.healthTimeout,
                random: SystemRandomNumberGenerator())
            let bound = NIOLoopBound(poller, eventLoop: pollingLoop)
            cluster.subscribe(on: pollingLoop) { bound.value.watch($0) }
            poller.watch(cluster.table)
            return bound
        }.get()
        configuration.logger.info(
            "serving",
            metadata: [
                "address": "\(address)", "mode": "\(configuration.mode.rawValue)",
                "epoch": "\(cluster.table.topology.epoch)", "shards": "\(cluster.table.shards.count)",
                "nodes": "\(cluster.table.nodes.count)",
            ])
        return Router(
            localAddress: address, configuration: configuration, group: group, server: server, cluster: cluster,
            poller: poller, resources: resources,
            connections: [proxyConnections, batchConnections, scanConnections, control])
    }

    /// Serves until a graceful shutdown is asked for or the task is cancelled, then shuts down.
    public func run() async throws {
        // A cancellation ends the wait just as a graceful shutdown does: what follows is the same.
        try? await gracefulShutdown()
        await shutdown()
    }

    /// Answers what is in flight, for at most the configured grace, and stops. Once.
    public func shutdown() async {
        resources.stop()
        await server.shutdown(grace: configuration.shutdownGrace)
        let poller = poller
        // Fails only where the event loop has stopped, and the poller with it.
        _ = try? await poller.eventLoop.submit { poller.value.stop() }.get()
        cluster.close()
        for connections in connections { await connections.shutdown() }
        await Router.stop(group, logger: configuration.logger)
        configuration.logger.info("stopped")
    }

    private static func stop(_ group: MultiThreadedEventLoopGroup, logger: Logger) async {
        do {
            try await group.shutdownGracefully()
        } catch {
            logger.warning("event loops did not stop cleanly", metadata: ["reason": "\(error)"])
        }
    }
}

extension HTTPServerConfiguration {
    fileprivate init(_ configuration: RouterConfiguration) {
        self.init(host: configuration.listen.host, port: configuration.listen.port)
        connectionsMax = configuration.connectionsMax
        bufferedBodyBytesMax = configuration.bufferedBodyBytesMax
    }
}

extension NodeConnectionsConfiguration {
    /// One request at a time to a node and one topology; a topology of a thousand shards has a few MiB.
    fileprivate static var control: NodeConnectionsConfiguration {
        var control = NodeConnectionsConfiguration()
        control.connectionsPerNodeMax = 2
        control.waitersPerNodeMax = 16
        control.responseBodyBytesMax = 32 << 20
        return control
    }

    /// Parts of batches, and their answers.
    fileprivate static func batches(_ configuration: RouterConfiguration) -> NodeConnectionsConfiguration {
        var batches = NodeConnectionsConfiguration()
        batches.connectionsPerNodeMax = 8
        batches.waitersPerNodeMax = 256
        // The values, escaped at the worst, and the rest of each line.
        batches.responseBodyBytesMax =
            2 * Limits.batchBytesMax(valueBytesMax: configuration.valueBytesMax) + Limits.batchOperationsMax * 512
        return batches
    }

    /// Pages of scans: a few at a time.
    fileprivate static func scans(_ configuration: RouterConfiguration) -> NodeConnectionsConfiguration {
        var scans = NodeConnectionsConfiguration()
        scans.connectionsPerNodeMax = 8
        scans.waitersPerNodeMax = 64
        scans.responseBodyBytesMax = max(configuration.scanRecordBytesMax, 2 * ScanPaging.bytesMaxDefault)
        return scans
    }

    fileprivate static func proxy(_ configuration: RouterConfiguration) -> NodeConnectionsConfiguration {
        var proxy = NodeConnectionsConfiguration()
        // So many small answers fit into one read of the connection.
        proxy.briefRequestsAtOnceMax = 32
        proxy.responseBodyBytesMax = configuration.valueBytesMax
        proxy.responseBodiesBytesMax = configuration.bufferedBodyBytesMax / max(1, configuration.threads)
        return proxy
    }
}
