public import Core
public import NIOCore
public import NIOHTTP1
import NIOPosix
import Synchronization

/// An HTTP server on loopback that answers as its script says; one script call per request, in order of arrival.
public final class ScriptedServer: Sendable {
    public struct Request: Sendable {
        public var method: HTTPMethod
        public var target: String
        public var headers: HTTPHeaders
        public var body: String
        /// Counted from 0 in order of acceptance.
        public var connection: Int
    }

    public struct Answer: Sendable {
        public var status: Int
        public var headers: [(String, String)]
        public var body: String

        public init(_ status: Int, _ headers: [(String, String)] = [], body: String = "") {
            self.status = status
            self.headers = headers
            self.body = body
        }
    }

    public enum Action: Sendable {
        case answer(Answer)
        /// Bytes as they are.
        case raw(String)
        /// Closes without an answer.
        case close
        /// Answers, then closes.
        case answerAndClose(Answer)
        /// Never answers, and nothing behind it either.
        case hold
        /// Answers once the gate is open; what is behind it waits.
        case wait(EventLoopFuture<Void>, Answer)
    }

    public let address: NodeAddress
    private let channel: any Channel
    private let state = Mutex(State())

    private struct State {
        var requests: [Request] = []
        var connections = 0
        var open: [ObjectIdentifier: any Channel] = [:]
    }

    public static func start(
        port: Int = 0, _ script: @escaping @Sendable (Request) -> Action
    ) async throws -> ScriptedServer {
        let recorder = Recorder()
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let handler = ScriptHandler(connection: recorder.server?.accepted(channel) ?? 0) { request in
                        recorder.server?.record(request)
                        return script(request)
                    }
                    try channel.pipeline.syncOperations.addHandlers(
                        ByteToMessageHandler(HTTPRequestDecoder()), handler)
                }
            }
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .bind(host: "127.0.0.1", port: port).get()
        let server = ScriptedServer(channel: channel)
        recorder.set(server)
        return server
    }

    private init(channel: any Channel) {
        self.channel = channel
        self.address = NodeAddress(host: "127.0.0.1", port: channel.localAddress?.port ?? 0)
    }

    public var requests: [Request] { state.withLock { $0.requests } }
    public var connectionCount: Int { state.withLock { $0.connections } }

    /// Stops listening and closes every connection.
    public func stop() async throws {
        try await channel.close().get()
        for channel in state.withLock({ Array($0.open.values) }) { channel.close(promise: nil) }
    }

    private func record(_ request: Request) { state.withLock { $0.requests.append(request) } }

    private func accepted(_ channel: any Channel) -> Int {
        state.withLock { state in
            state.open[ObjectIdentifier(channel)] = channel
            state.connections += 1
            return state.connections - 1
        }
    }

    /// The server is made after its channel: connections find it here.
    private final class Recorder: Sendable {
        private let box = Mutex<ScriptedServer?>(nil)
        var server: ScriptedServer? { box.withLock { $0 } }
        func set(_ server: ScriptedServer) { box.withLock { $0 = server } }
    }
}

private final class ScriptHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = ByteBuffer

    private let connection: Int
    private let script: (ScriptedServer.Request) -> ScriptedServer.Action
    private var head: HTTPRequestHead?
    private var body = ""
    private var queue: [ScriptedServer.Action] = []
    private var isBlocked = false

    init(connection: Int, script: @escaping (ScriptedServer.Request) -> ScriptedServer.Action) {
        self.connection = connection
        self.script = script
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch Self.unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body(let bytes): body += String(buffer: bytes)
        case .end:
            guard let head else { return }
            queue.append(
                script(
                    .init(
                        method: head.method, target: head.uri, headers: head.headers, body: body,
                        connection: connection)))
            body = ""
            perform(context)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func perform(_ context: ChannelHandlerContext) {
        while !isBlocked, !queue.isEmpty {
            switch queue.removeFirst() {
            case .answer(let answer): write(answer, context)
            case .raw(let text): context.writeAndFlush(Self.wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
            case .close:
                isBlocked = true
                context.close(promise: nil)
            case .answerAndClose(let answer):
                isBlocked = true
                write(answer, context)
                context.close(promise: nil)
            case .hold: isBlocked = true
            case .wait(let gate, let answer):
                isBlocked = true
                gate.hop(to: context.eventLoop).assumeIsolated().whenComplete { _ in
                    self.isBlocked = false
                    self.write(answer, context)
                    self.perform(context)
                }
            }
        }
    }

    private func write(_ answer: ScriptedServer.Answer, _ context: ChannelHandlerContext) {
        var text = "HTTP/1.1 \(answer.status) Scripted\r\n"
        for (name, value) in answer.headers { text += "\(name): \(value)\r\n" }
        if answer.status != 204 { text += "content-length: \(answer.body.utf8.count)\r\n" }
        text += "\r\n"
        if head?.method != .HEAD { text += answer.body }
        context.writeAndFlush(Self.wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
    }
}
