public import NIOCore
import NIOHTTP1
public import NIOPosix
import Synchronization

/// Limits of a server; each has a name and a default.
public struct HTTPServerConfiguration: Sendable {
    public var host: String
    /// 0 lets the system choose one.
    public var port: Int
    /// Connections over this are answered 503 and closed.
    public var connectionsMax = 12_000
    /// Requests of one connection that may wait for their answers; beyond it the connection is not read.
    public var pipelinedRequestsMax = 128
    public var targetBytesMax = 16_384
    public var headerBytesMax = 32_768
    public var headerFieldsMax = 256
    /// Bytes of request bodies held in memory at once, over all connections; a body that does not fit is answered 503.
    public var bufferedBodyBytesMax = 256 << 20
    /// Bytes of answers held in memory at once, over all connections: those that wait for their turn, and from 32 KiB
    /// on those that their peer has not taken yet. An answer to a GET that does not fit is given as 503 instead.
    public var bufferedAnswerBytesMax = 256 << 20
    /// What the answers of one connection may come to, reckoned by its largest ones, before its next request waits.
    public var connectionAnswerBytesMax = 32 << 20
    /// A body that has not arrived whole this long after its head, plus a second for each 64 KiB, is answered 408.
    public var requestTimeout = TimeAmount.seconds(30)
    /// A connection that has not sent a whole head for this long, or takes its answers more
    /// slowly than 64 KiB a second for as long in all, is closed.
    public var idleTimeout = TimeAmount.seconds(75)
    /// How long a connection is still read after its last answer, for a peer that has not done sending.
    var lingerTime = TimeAmount.seconds(2)
    /// How often the clock is read and deadlines are looked at.
    var tickInterval = TimeAmount.seconds(1)

    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }
}

/// A lean HTTP/1.1 server on SwiftNIO: keep-alive, pipelining, limits enforced while reading.
///
/// One channel handler behind NIO's request decoder puts requests together and writes answers as byte buffers.
public final class HTTPServer: Sendable {
    /// Where the server listens; the real port also where 0 was asked for.
    public let localAddress: SocketAddress
    private let channel: any Channel
    private let loops: [NIOLoopBound<HTTPLoop>]
    private let openConnections: OpenConnections

    private init(
        localAddress: SocketAddress, channel: any Channel, loops: [NIOLoopBound<HTTPLoop>],
        openConnections: OpenConnections
    ) {
        self.localAddress = localAddress
        self.channel = channel
        self.loops = loops
        self.openConnections = openConnections
    }

    /// Connections open now.
    public var connectionCount: Int { openConnections.count.load(ordering: .relaxed) }

    /// Binds and serves.
    /// - Parameter makeHandler: called once for every event loop of `group`, on that loop.
    /// - Throws: an `IOError` or `SocketAddressError` where the address cannot be bound.
    public static func start(
        configuration: HTTPServerConfiguration, group: MultiThreadedEventLoopGroup,
        makeHandler: @escaping @Sendable (any EventLoop) -> any HTTPHandler
    ) async throws -> HTTPServer {
        let eventLoops = Array(group.makeIterator())
        var loops: [NIOLoopBound<HTTPLoop>] = []
        for eventLoop in eventLoops {
            let loop = try await eventLoop.submit {
                let loop = HTTPLoop(
                    eventLoop: eventLoop, loops: eventLoops.count, configuration: configuration,
                    handler: makeHandler(eventLoop))
                loop.start()
                return NIOLoopBound(loop, eventLoop: eventLoop)
            }.get()
            loops.append(loop)
        }
        let loopOf = Dictionary(uniqueKeysWithValues: zip(eventLoops.map { ObjectIdentifier($0) }, loops))
        let openConnections = OpenConnections()
        do {
            let channel = try await ServerBootstrap(group: group)
                .serverChannelOption(.backlog, value: 1_024)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .serverChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        // Out of file descriptors, accepting pauses instead of failing over and over.
                        try channel.pipeline.syncOperations.addHandler(AcceptBackoffHandler())
                    }
                }
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .childChannelOption(.allowRemoteHalfClosure, value: true)
                // One read a turn: what a connection hands in beyond the limit on pipelining is one read at most.
                .childChannelOption(.maxMessagesPerRead, value: 1)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        guard let loop = loopOf[ObjectIdentifier(channel.eventLoop)]?.value else {
                            preconditionFailure("a connection came up on an event loop outside its group")
                        }
                        try openConnections.adopt(channel, loop: loop)
                    }
                }
                .bind(host: configuration.host, port: configuration.port).get()
            guard let address = channel.localAddress else { throw ChannelError.ioOnClosedChannel }
            return HTTPServer(localAddress: address, channel: channel, loops: loops, openConnections: openConnections)
        } catch {
            for loop in loops { loop.eventLoop.execute { loop.value.stop() } }
            throw error
        }
    }

    /// Stops accepting, answers what has arrived, closes idle connections, and after `grace` the rest.
    public func shutdown(grace: TimeAmount) async {
        channel.close(promise: nil)
        await channel.closeFuture.completed()
        var open: [EventLoopFuture<Void>] = []
        for loop in loops {
            let drained = loop.eventLoop.submit { loop.value.drain() }
            open += (try? await drained.get()) ?? []  // Only a loop that is gone fails, and it has no connections.
        }
        let eventLoop = channel.eventLoop
        let allClosed = EventLoopFuture.andAllComplete(open, on: eventLoop)
        let timeout = eventLoop.scheduleTask(in: grace) { [loops] in
            for loop in loops { loop.eventLoop.execute { loop.value.closeAll() } }
        }
        await allClosed.completed()
        timeout.cancel()
        for loop in loops { loop.eventLoop.execute { loop.value.stop() } }
    }
}

extension EventLoopFuture<Void> {
    /// Waits for the future, whichever way it ends.
    fileprivate func completed() async {
        await withCheckedContinuation { continuation in
            whenComplete { _ in continuation.resume() }
        }
    }
}

/// Counts connections and refuses those over the limit.
private final class OpenConnections: Sendable {
    /// Refused connections stay open for a moment so that they get their answer; beyond this many they do not.
    private static let refusedConnectionsMax = 512

    let count = Atomic<Int>(0)

    func adopt(_ channel: any Channel, loop: HTTPLoop) throws {
        let number = count.add(1, ordering: .relaxed).newValue
        channel.closeFuture.whenComplete { _ in self.count.subtract(1, ordering: .relaxed) }
        let configuration = loop.configuration
        guard !loop.draining, number - OpenConnections.refusedConnectionsMax <= configuration.connectionsMax else {
            throw ChannelError.ioOnClosedChannel  // Closes it.
        }
        try loop.serve(channel, isRefused: number > configuration.connectionsMax)
    }
}
