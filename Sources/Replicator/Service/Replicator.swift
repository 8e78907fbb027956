public import Core
import HTTPServer
public import Logging
import NIOCore
import NIOPosix
import Observability
public import ServiceLifecycle
import ServiceSupport
public import Sharding
import Synchronization
import UnixSignals

/// What a replicator needs to run.
public struct ReplicatorConfiguration: Sendable {
    /// From sharding.toml; a higher epoch is fetched from the nodes.
    public var topology: Topology
    /// Port 0 lets the system choose one.
    public var listen: NodeAddress
    /// The program's, for `/status`.
    public var version: String
    public var limits = ReplicationLimits()
    public var logger: Logger

    public init(topology: Topology, listen: NodeAddress, version: String, logger: Logger) {
        self.topology = topology
        self.listen = listen
        self.version = version
        self.logger = logger
    }
}

/// The replicator as a service: tails the log of every leader, feeds the followers, answers its own endpoints.
///
/// It keeps nothing on disk: what a follower has, the follower says. A second replicator is harmless.
public final class Replicator: Service {
    private let configuration: ReplicatorConfiguration
    private let engine: ReplicationEngine
    private let metrics = MetricsRegistry()
    private let boundPort = Mutex<Int?>(nil)

    /// - Throws: `CurlError` where libcurl cannot be started.
    public init(configuration: ReplicatorConfiguration) throws {
        self.configuration = configuration
        metrics.registerProcessMetrics(role: "replicator", version: configuration.version)
        self.engine = try ReplicationEngine(
            topology: configuration.topology, limits: configuration.limits, metrics: metrics,
            logger: configuration.logger)
    }

    /// Runs a replicator until SIGTERM or SIGINT.
    ///
    /// Throws what ``init(configuration:)`` and ``run()`` throw.
    public static func serve(_ configuration: ReplicatorConfiguration) async throws {
        let replicator = try Replicator(configuration: configuration)
        let group = ServiceGroup(
            services: [replicator], gracefulShutdownSignals: [.sigterm, .sigint], logger: configuration.logger)
        try await group.run()
    }

    /// Where it listens; nil before it does.
    public var port: Int? { boundPort.withLock { $0 } }

    /// Runs until graceful shutdown or cancellation, once.
    ///
    /// Throws `KVError(.unavailable)` where the address cannot be bound.
    public func run() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        do {
            try await serve(on: group)
        } catch {
            try await group.shutdownGracefully()
            throw error
        }
        try await group.shutdownGracefully()
    }

    /// Who asks a replicator asks for its status.
    private static let connectionsMax = 1_024
    /// Connections to nodes, and those of clients that are being refused.
    private static let reservedDescriptors = 2_048

    private func serve(on group: MultiThreadedEventLoopGroup) async throws {
        let handler = ReplicatorHandler(engine: engine, version: configuration.version, metrics: metrics)
        var limits = HTTPServerConfiguration(host: configuration.listen.host, port: configuration.listen.port)
        let room = ConnectionRoom(wanted: Replicator.connectionsMax, reserved: Replicator.reservedDescriptors)
        limits.connectionsMax = room.connectionsMax
        if let warning = room.warning { configuration.logger.warning("\(warning)") }
        let server: HTTPServer
        do {
            server = try await HTTPServer.start(configuration: limits, group: group, makeHandler: { _ in handler })
        } catch {
            throw KVError(
                .unavailable, "cannot listen on \(configuration.listen): choose another --listen address", cause: error)
        }
        let port = server.localAddress.port ?? configuration.listen.port
        boundPort.withLock { $0 = port }
        configuration.logger.info(
            "replicator started",
            metadata: [
                "listen": "\(NodeAddress(host: configuration.listen.host, port: port))",
                "epoch": "\(configuration.topology.epoch)",
                "shards": "\(configuration.topology.shards.count)",
            ])
        await withTaskCancellationOrGracefulShutdownHandler {
            await engine.run()
        } onCancelOrGracefulShutdown: {
            self.engine.stop()
        }
        await server.shutdown(grace: Replicator.shutdownGrace)
        configuration.logger.info("replicator stopped")
    }

    /// For requests to its own endpoints.
    private static let shutdownGrace = TimeAmount.seconds(2)
}
