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
    /// Bytes of request bodies held in memory at once, over all connections; a body that does not fit is answered 503.
    public var bufferedBodyBytesMax = 256 << 20
    /// A body that has not arrived whole this long after its head, plus a second for each 64 KiB, is answered 408.
    public var requestTimeout = TimeAmount.seconds(30)
    /// A connection that has not sent a whole head for this long, or does not read its answers, is closed.
    public var idleTimeout = TimeAmount.seconds(75)

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
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .childChannelOption(.allowRemoteHalfClosure, value: true)
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
    let count = Atomic<Int>(0)

    func adopt(_ channel: any Channel, loop: HTTPLoop) throws {
        let number = count.add(1, ordering: .relaxed).newValue
        channel.closeFuture.whenComplete { _ in self.count.subtract(1, ordering: .relaxed) }
        let pipeline = channel.pipeline.syncOperations
        guard number <= loop.configuration.connectionsMax else {
            return try pipeline.addHandler(RefusingHandler(loop: loop))
        }
        try pipeline.addHandler(ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes)))
        try pipeline.addHandler(HTTPConnectionHandler(loop: loop))
    }
}

/// Answers a connection over the limit 503 and closes it, whatever it asks.
private final class RefusingHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private let loop: HTTPLoop

    init(loop: HTTPLoop) { self.loop = loop }

    func channelActive(context: ChannelHandlerContext) {
        let response = loop.handler.response(to: .overloaded)
        var buffer = ByteBuffer()
        buffer.writeStatusLine(response.status)
        buffer.writeString("content-length: \(response.body.readableBytes)\r\nconnection: close\r\n")
        buffer.writeFields(response.headers)
        loop.handler.writeCommonFields(into: &buffer)
        buffer.writeStaticString("\r\n")
        buffer.writeImmutableBuffer(response.body)
        let boundContext = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(buffer)).whenComplete { _ in
            boundContext.value.close(promise: nil)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {}
}
