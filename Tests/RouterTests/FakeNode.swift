import Core
import HTTPServer
import NIOCore
import NIOHTTP1
import NIOPosix
import ServiceSupport
import Sharding
import Synchronization
import Testing
import Wire

/// A node that answers as a test says, on a loopback port of its own.
final class FakeNode: Sendable {
    enum Reply: Sendable {
        case answer(HTTPResponse)
        /// Answered once the future is there.
        case wait(EventLoopFuture<Void>, HTTPResponse)
        case never
    }

    struct Received: Sendable {
        let method: HTTPMethod
        let target: String
        let headers: HTTPHeaders
        let body: String
    }

    private struct State {
        var received: [Received] = []
        var topology: Topology?
        var isReady = true
        var script: @Sendable (Received) -> Reply
    }

    let address: NodeAddress
    private let server: HTTPServer
    private let state: StateBox

    private final class StateBox: Sendable {
        let state: Mutex<State>
        init(_ state: State) { self.state = Mutex(state) }
    }

    private init(address: NodeAddress, server: HTTPServer, state: StateBox) {
        self.address = address
        self.server = server
        self.state = state
    }

    /// - Parameter script: answers requests about keys; by default 200 and the node's address.
    static func start(script: (@Sendable (Received) -> Reply)? = nil) async throws -> FakeNode {
        let state = StateBox(State(script: { _ in .never }))
        let group = MultiThreadedEventLoopGroup.singleton
        let server = try await HTTPServer.start(
            configuration: .init(host: "127.0.0.1", port: 0), group: group
        ) { _ in Handler(state: state) }
        let port = try #require(server.localAddress.port)
        let address = NodeAddress(host: "127.0.0.1", port: port)
        let fallback: @Sendable (Received) -> Reply = { _ in .answer(HTTPResponse(text: "\(address)")) }
        state.state.withLock { $0.script = script ?? fallback }
        return FakeNode(address: address, server: server, state: state)
    }

    /// The requests about keys so far.
    var received: [Received] { state.state.withLock { $0.received } }

    func answers(_ script: @escaping @Sendable (Received) -> Reply) { state.state.withLock { $0.script = script } }

    /// What it serves at `/topology`, and whose epoch it writes on every answer.
    func knows(_ topology: Topology) { state.state.withLock { $0.topology = topology } }

    func isReady(_ isReady: Bool) { state.state.withLock { $0.isReady = isReady } }

    func stop() async { await server.shutdown(grace: .zero) }

    private final class Handler: HTTPHandler {
        let state: StateBox
        init(state: StateBox) { self.state = state }

        func bodyBytesMax(method: HTTPMethod, target: String) -> Int { 64 << 20 }

        func response(to rejection: HTTPRejection) -> HTTPResponse { HTTPResponse(problem: Problem(rejection)) }

        func writeCommonFields(into buffer: inout ByteBuffer) {
            if let epoch = state.state.withLock({ $0.topology?.epoch }) {
                buffer.writeString("kv-epoch: \(epoch)\r\n")
            }
        }

        func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
            switch request.path {
            case "/readyz":
                let isReady = state.state.withLock { $0.isReady }
                exchange.respond(HTTPResponse(status: isReady ? 200 : 503))
            case "/topology":
                guard let topology = state.state.withLock({ $0.topology }), let json = try? topology.json() else {
                    return exchange.respond(HTTPResponse(unknownPath: request.path))
                }
                exchange.respond(HTTPResponse(json: json))
            default:
                let received = Received(
                    method: request.method, target: request.target, headers: request.headers,
                    body: String(buffer: request.body))
                let script = state.state.withLock { state in
                    state.received.append(received)
                    return state.script
                }
                switch script(received) {
                case .answer(let response): exchange.respond(response)
                case .wait(let future, let response):
                    exchange.respond(future.map { response }) { _ in HTTPResponse(status: 500) }
                case .never: break
                }
            }
        }
    }
}

/// Something that listens and is no node: reads what comes, sends given bytes, closes.
final class FakePeer: Sendable {
    let address: NodeAddress
    private let channel: any Channel

    private let heads: Heads

    private init(address: NodeAddress, channel: any Channel, heads: Heads) {
        self.address = address
        self.channel = channel
        self.heads = heads
    }

    /// How many requests of that method have come.
    func requests(_ method: String) -> Int {
        heads.texts.withLock { $0.count { $0.hasPrefix(method + " ") } }
    }

    private final class Heads: Sendable {
        let texts = Mutex<[String]>([])
    }

    /// - Parameter answer: sent once something has arrived; the connection is closed behind it.
    static func start(answer: String) async throws -> FakePeer {
        let heads = Heads()
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(answer: answer, heads: heads))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(channel.localAddress?.port)
        return FakePeer(address: NodeAddress(host: "127.0.0.1", port: port), channel: channel, heads: heads)
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        let answer: String
        let heads: Heads
        init(answer: String, heads: Heads) {
            self.answer = answer
            self.heads = heads
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            heads.texts.withLock { $0.append(String(buffer: unwrapInboundIn(data))) }
            if !answer.isEmpty {
                context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: answer)), promise: nil)
            }
            context.close(promise: nil)
        }
    }
}
