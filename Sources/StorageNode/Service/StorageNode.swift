import Configuration
public import Core
import Foundation
import HTTPServer
import LSM
import Logging
import NIOCore
import NIOPosix
public import ServiceLifecycle
import Shard
import Sharding

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

    public func run() async throws {
        let configuration = self.configuration
        let replicas = try await openReplicas()
        do {
            try await serve(replicas)
        } catch {
            try? await close(replicas)  // The first error is the one to show.
            throw error
        }
        try await close(replicas)
        configuration.logger.info("stopped")
    }

    private func serve(_ replicas: [ShardReplica?]) async throws {
        let configuration = self.configuration
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
                "shards": "\(replicas.compactMap { $0?.name }.joined(separator: ","))",
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
