import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// A small HTTP server on loopback whose answers the test decides; port 0.
final class TestServer: Sendable {
    struct Request: Sendable {
        let head: HTTPRequestHead
        let body: ByteBuffer

        var path: String { String(head.uri.prefix { $0 != "?" }) }

        /// The values of the query, still percent-encoded.
        var query: [String: String] {
            guard let mark = head.uri.firstIndex(of: "?") else { return [:] }
            var values: [String: String] = [:]
            for pair in head.uri[head.uri.index(after: mark)...].split(separator: "&") {
                let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                values[String(parts[0])] = parts.count > 1 ? String(parts[1]) : ""
            }
            return values
        }
    }

    struct Response: Sendable {
        var status: Int
        var headers: [(String, String)] = []
        var body = ByteBuffer()
        /// The connection is closed after this much of the body.
        var sentBytesMax: Int?
    }

    /// Nil leaves the request without an answer.
    typealias Answer = @Sendable (Request) async -> Response?

    let port: Int
    private let channel: any Channel
    private let counters: Counters

    private struct State {
        var connections: [ObjectIdentifier: any Channel] = [:]
        var connectionsTotal = 0
        var requestsTotal = 0
    }

    private final class Counters: Sendable {
        let state = Mutex(State())
    }

    private init(channel: any Channel, port: Int, counters: Counters) {
        self.channel = channel
        self.port = port
        self.counters = counters
    }

    /// Connections ever accepted.
    var connectionsTotal: Int { counters.state.withLock { $0.connectionsTotal } }
    var requestsTotal: Int { counters.state.withLock { $0.requestsTotal } }
    var connectionsOpen: Int { counters.state.withLock { $0.connections.count } }

    static func start(port: Int = 0, answer: @escaping Answer) async throws -> TestServer {
        let counters = Counters()
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                counters.state.withLock {
                    $0.connectionsTotal += 1
                    $0.connections[ObjectIdentifier(channel)] = channel
                }
                channel.closeFuture.whenComplete { _ in
                    counters.state.withLock { _ = $0.connections.removeValue(forKey: ObjectIdentifier(channel)) }
                }
                return channel.pipeline.configureHTTPServerPipeline().flatMap {
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(
                            Handler(answer: { request in
                                counters.state.withLock { $0.requestsTotal += 1 }
                                return await answer(request)
                            }))
                    }
                }
            }
            .bind(host: "127.0.0.1", port: port).get()
        return TestServer(channel: channel, port: channel.localAddress?.port ?? 0, counters: counters)
    }

    /// Closes the listener and every connection, as a killed process would.
    func stop() async {
        try? await channel.close()
        for connection in counters.state.withLock({ Array($0.connections.values) }) { try? await connection.close() }
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        private let answer: Answer
        private var head: HTTPRequestHead?
        private var body = ByteBuffer()

        init(answer: @escaping Answer) { self.answer = answer }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head):
                self.head = head
                body = ByteBuffer()
            case .body(var part):
                body.writeBuffer(&part)
            case .end:
                guard let head else { return }
                let request = Request(head: head, body: body)
                let promise = context.eventLoop.makePromise(of: Response?.self)
                promise.completeWithTask { [answer] in await answer(request) }
                let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
                promise.futureResult.whenSuccess { response in
                    let (handler, context) = bound.value
                    if let response { handler.write(response, context) }
                }
            }
        }

        private func write(_ response: Response, _ context: ChannelHandlerContext) {
            var headers = HTTPHeaders(response.headers)
            if response.status != 204 { headers.add(name: "content-length", value: "\(response.body.readableBytes)") }
            let head = HTTPResponseHead(
                version: .http1_1, status: HTTPResponseStatus(statusCode: response.status), headers: headers)
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            if let sentBytesMax = response.sentBytesMax {
                let part = response.body.getSlice(at: response.body.readerIndex, length: sentBytesMax) ?? response.body
                context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(part))), promise: nil)
                context.close(promise: nil)
                return
            }
            if response.status != 204 {
                context.write(wrapOutboundOut(.body(.byteBuffer(response.body))), promise: nil)
            }
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}

struct DeadlinePassed: Error {}

/// Waits until `condition` holds, looking every few milliseconds; throws after a generous deadline.
func eventually(
    within limit: Duration = .seconds(60), _ condition: @Sendable () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + limit
    while try await !condition() {
        guard ContinuousClock.now < deadline else { throw DeadlinePassed() }
        try await Task.sleep(for: .milliseconds(2))
    }
}
