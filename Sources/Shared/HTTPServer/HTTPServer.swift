public import NIOCore
public import NIOPosix

/// Limits of a server; each has a name and a default.
public struct HTTPServerConfiguration: Sendable {
    public var host: String
    /// 0 lets the system choose one.
    public var port: Int
    /// Connections over this are answered 503 and closed.
    public var connectionsMax = 10_000
    /// Requests of one connection that may wait for their answers; beyond it the connection is not read.
    public var pipelinedRequestsMax = 128
    public var targetBytesMax = 16_384
    public var headerBytesMax = 32_768
    /// Bytes of request bodies held in memory at once, over all connections; a body that does not fit is answered 503.
    public var bufferedBodyBytesMax = 256 << 20
    /// A head, or a body, that has not arrived whole this long after its first byte closes the connection.
    public var requestTimeout = TimeAmount.seconds(30)
    /// A connection without a request is closed after this.
    public var idleTimeout = TimeAmount.seconds(120)

    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }
}

/// A lean HTTP/1.1 server on SwiftNIO: keep-alive, pipelining, limits enforced while reading.
public final class HTTPServer: Sendable {
    /// Where the server listens; the real port also where 0 was asked for.
    public let localAddress: SocketAddress

    init(localAddress: SocketAddress) { self.localAddress = localAddress }

    /// Binds and serves.
    /// - Parameter makeHandler: called once for every connection, on its event loop.
    /// - Throws: an `IOError` or `SocketAddressError` where the address cannot be bound.
    public static func start(
        configuration: HTTPServerConfiguration, group: MultiThreadedEventLoopGroup,
        makeHandler: @escaping @Sendable (any EventLoop) -> any HTTPHandler
    ) async throws -> HTTPServer {
        fatalError()
    }

    /// Stops accepting, answers what has arrived, closes idle connections, and after `grace` the rest.
    public func shutdown(grace: TimeAmount) async {}
}
