import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import HTTPServer

/// A server on a port of its own for the length of a test.
struct TestServer: Sendable {
    let server: HTTPServer
    let seen: Seen

    var address: SocketAddress { server.localAddress }

    /// What the handler was asked, for the test to look at.
    final class Seen: Sendable {
        private let targets = Mutex<[String]>([])
        var all: [String] { targets.withLock { $0 } }
        var count: Int { targets.withLock { $0.count } }
        func add(_ target: String) { targets.withLock { $0.append(target) } }
    }

    typealias Handle = @Sendable (HTTPRequest, HTTPExchange) -> Void

    struct Setup {
        var loops = 1
        /// Changes the configuration before the start.
        var limits: (inout HTTPServerConfiguration) -> Void = { _ in }
        /// The handler's limit on bodies.
        var bodyBytesMax: @Sendable (HTTPMethod, String) -> Int = { _, _ in 1 << 20 }
        /// Without it, each request is answered at once with its target and body.
        var handle: Handle = { request, exchange in exchange.respond(TestServer.echo(of: request)) }
    }

    static func run(_ setup: Setup = Setup(), _ body: (TestServer) async throws -> Void) async throws {
        var configuration = HTTPServerConfiguration(host: "127.0.0.1", port: 0)
        configuration.tickInterval = .milliseconds(20)
        configuration.lingerTime = .seconds(10)
        setup.limits(&configuration)
        let (bodyBytesMax, handle) = (setup.bodyBytesMax, setup.handle)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: setup.loops)
        let seen = Seen()
        let server = try await HTTPServer.start(configuration: configuration, group: group) { _ in
            TestHandler(seen: seen, bodyBytesMax: bodyBytesMax, handle: handle)
        }
        let outcome: Result<Void, any Error>
        do {
            try await body(TestServer(server: server, seen: seen))
            outcome = .success(())
        } catch {
            outcome = .failure(error)
        }
        await server.shutdown(grace: .milliseconds(1))
        try await group.shutdownGracefully()
        try outcome.get()
    }

    static func echo(of request: HTTPRequest) -> HTTPResponse {
        var body = ByteBuffer(string: "\(request.method) \(request.target)")
        if request.body.readableBytes > 0 {
            body.writeString(" ")
            body.writeImmutableBuffer(request.body)
        }
        return HTTPResponse(status: 200, headers: [("x-kind", "echo")], body: body)
    }

    func connect(reading: Bool = true) async throws -> RawClient {
        try await RawClient.connect(to: address, reading: reading)
    }

    /// Waits for something that only the server's threads can bring about.
    func wait(for what: String, _ condition: () -> Bool) async throws {
        let deadline = NIODeadline.now() + RawClient.deadline
        let eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        while !condition() {
            guard NIODeadline.now() < deadline else { throw RawClient.Timeout(waitedFor: what, received: "") }
            try await eventLoop.scheduleTask(in: .milliseconds(1)) {}.futureResult.get()
        }
    }

    /// A fresh connection gets its answer.
    func expectServing(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let client = try await connect()
        client.send("GET /alive HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        let answers = try await client.answersToEnd()
        await client.close()
        #expect(answers.map(\.status) == [200], sourceLocation: sourceLocation)
    }
}

/// Statuses as the product gives them; `/alive` is answered whatever the test's own handler does.
final class TestHandler: HTTPHandler {
    private let seen: TestServer.Seen
    private let limit: @Sendable (HTTPMethod, String) -> Int
    private let answer: TestServer.Handle

    init(
        seen: TestServer.Seen, bodyBytesMax: @escaping @Sendable (HTTPMethod, String) -> Int,
        handle: @escaping TestServer.Handle
    ) {
        self.seen = seen
        self.limit = bodyBytesMax
        self.answer = handle
    }

    func bodyBytesMax(method: HTTPMethod, target: String) -> Int { limit(method, target) }

    func needsBody(method: HTTPMethod, target: String) -> Bool { target != "/bodiless" }

    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        guard request.target != "/alive" else { return exchange.respond(TestServer.echo(of: request)) }
        seen.add(request.target)
        answer(request, exchange)
    }

    func response(to rejection: HTTPRejection) -> HTTPResponse {
        let status =
            switch rejection {
            case .malformed: 400
            case .timedOut: 408
            case .bodyTooLarge: 413
            case .targetTooLong: 414
            case .unknownExpectation: 417
            case .headersTooLarge: 431
            case .unknownTransferCoding: 501
            case .overloaded: 503
            }
        return HTTPResponse(
            status: status, headers: [("x-kind", "rejection")], body: ByteBuffer(string: "\(rejection)"))
    }

    func writeCommonFields(into buffer: inout ByteBuffer) { buffer.writeStaticString("x-common: yes\r\n") }
}

/// Exchanges that a test answers when it likes, the latest first.
final class Waiting: Sendable {
    private let exchanges = Mutex<[(HTTPRequest, HTTPExchange)]>([])
    var count: Int { exchanges.withLock { $0.count } }
    func add(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        exchanges.withLock { $0.append((request, exchange)) }
    }
    func answerLast() {
        guard let (request, exchange) = exchanges.withLock({ $0.popLast() }) else { return }
        exchange.eventLoop.execute { exchange.respond(TestServer.echo(of: request)) }
    }
}
