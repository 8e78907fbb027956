import Core
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import RouterService

/// What a proxying router sends to nodes, byte for byte: nothing that was refused, and nothing that could be read in two
/// ways.
@Suite struct SmugglingTests {
    private static let target = "/kv/a?proxy=true"

    static let refused =
        RequestShape.requestLines + RequestShape.fields + RequestShape.framing(target: target)
        + RequestShape.unfinished

    @Test func nothingRefusedReachesANode() async throws {
        let node = try await RawNode.start()
        try await withRouter(try topology([[node.address]])) { client async throws in
            for shape in SmugglingTests.refused {
                let before = node.keyRequests.count
                let raw = try await RawClient.connect(to: client.router.localAddress)
                let good = get("/kv/one?proxy=true") + put("/kv/two?proxy=true", "body")
                raw.send(Array(good.utf8) + shape.bytes + (shape.finishes ? [] : Array(get("/kv/smuggled").utf8)))
                if shape.finishes { raw.finish() }
                let answers = try await raw.answersToEnd()
                await raw.close()
                #expect(answers.map(\.status) == [200, 200, shape.status], "\(shape.name)")
                #expect(answers.last?.closes == true, "\(shape.name)")
                let sent = node.keyRequests.dropFirst(before)
                // Two connections carry them: in whichever order.
                #expect(sent.map(\.line).sorted() == ["GET /kv/one", "PUT /kv/two"], "\(shape.name): \(sent)")
            }
            #expect(node.defects == [])
        }
        try await node.stop()
    }

    struct Odd: Sendable, CustomTestStringConvertible {
        let name: String
        let text: String
        let line: String
        let body: String
        var testDescription: String { name }

        init(_ name: String, _ text: String, _ line: String, body: String = "") {
            (self.name, self.text, self.line, self.body) = (name, text, line, body)
        }
    }

    static let odd: [Odd] = [
        Odd(
            "chunked", chunked("1;x=y\r\na\r\n2\r\nbc\r\n0\r\nX: y\r\nKV-Version: 1\r\n\r\n"), "PUT /kv/a", body: "abc"),
        Odd("chunked, nothing in it", chunked("0\r\n\r\n"), "PUT /kv/a"),
        Odd(
            "chunked, a request in it", chunked("1f\r\nGET /kv/b HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n"),
            "PUT /kv/a", body: "GET /kv/b HTTP/1.1\r\nHost: a\r\n\r\n"),
        Odd("body that looks like a request", put(target, get("/kv/b")), "PUT /kv/a", body: get("/kv/b")),
        Odd(
            "body of a GET", "GET \(target) HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", "GET /kv/a",
            body: "body"
        ),
        Odd("URL of another host", "GET http://b:1/kv/a?proxy=true HTTP/1.1\r\nHost: a\r\n\r\n", "GET /kv/a"),
        Odd("line ends, encoded", get("/kv/a%0d%0aX:%20y?proxy=true"), "GET /kv/a%0d%0aX:%20y"),
        Odd("a space, encoded", get("/kv/a%20HTTP/1.1?proxy=true"), "GET /kv/a%20HTTP/1.1"),
        Odd("dots", get("/kv/../status?proxy=true"), "GET /kv/../status"),
        Odd("dots, encoded", get("/kv/%2e%2e/status?proxy=true"), "GET /kv/%2e%2e/status"),
        Odd("slashes and colons", get("/kv//http://b/?proxy=true"), "GET /kv//http://b/"),
        Odd(
            "framing under other names", get(target, "KV-A: b\r\nTransfer_Encoding: chunked\r\nX-Length: 9\r\n"),
            "GET /kv/a"),
        Odd("fields of this connection alone", get(target, "Connection: KV-Min-Version, x\r\nX: y\r\n"), "GET /kv/a"),
        Odd("the method said otherwise", get(target, "X-HTTP-Method-Override: DELETE\r\n"), "GET /kv/a"),
        Odd("TE and trailer", get(target, "TE: trailers\r\nTrailer: X\r\n"), "GET /kv/a"),
        Odd(
            "HTTP/1.0", "PUT \(target) HTTP/1.0\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nb", "PUT /kv/a",
            body: "b"),
    ]

    private static func chunked(_ body: String) -> String {
        "PUT \(target) HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\(body)"
    }

    @Test func whatIsForwardedHasOneReading() async throws {
        let node = try await RawNode.start()
        try await withRouter(try topology([[node.address]])) { client async throws in
            for odd in SmugglingTests.odd {
                let before = node.keyRequests.count
                let raw = try await RawClient.connect(to: client.router.localAddress)
                raw.send(odd.text + get("/kv/next?proxy=true"))
                let answers = try await raw.answers(2)
                await raw.close()
                #expect(answers.map(\.status) == [200, 200], "\(odd.name)")
                let sent = Array(node.keyRequests.dropFirst(before))
                // Two connections may carry them: in whichever order.
                let first = try #require(sent.first { $0.line != "GET /kv/next" }, "\(odd.name): \(sent)")
                #expect(sent.count == 2 && first.line == odd.line && first.body == odd.body, "\(odd.name): \(sent)")
                for name in [
                    "transfer-encoding", "trailer", "te", "connection", "x", "transfer_encoding", "kv-min-version",
                ] {
                    #expect(!first.fields.contains { $0.hasPrefix(name + ":") }, "\(odd.name): \(first.fields)")
                }
            }
            #expect(node.defects == [])
        }
        try await node.stop()
    }

    /// A field that belongs to the connection is not the node's to see, whatever its name.
    @Test func fieldsThatConnectionNamesStayBehind() async throws {
        let node = try await RawNode.start()
        try await withRouter(try topology([[node.address]])) { client async throws in
            let raw = try await RawClient.connect(to: client.router.localAddress)
            raw.send(
                get(SmugglingTests.target, "Connection: KV-Hop, If-Match\r\nkv-hop: 1\r\nif-match: *\r\nkv-end: 2\r\n"))
            #expect(try await raw.answers(1).map(\.status) == [200])
            await raw.close()
            let sent = try #require(node.keyRequests.first)
            #expect(sent.fields.filter { !$0.hasPrefix("host:") } == ["kv-end: 2"])
        }
        try await node.stop()
    }

    /// An answer whose end is in doubt is the node's fault, and nothing of it is passed on.
    @Test(arguments: [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nz\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nkv-a: b\rkv-c: d\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nkv-a: b\0\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nkv-a : b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nkv-a: b\r\n c\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
        "HTTP/1.1 99 Low\r\ncontent-length: 0\r\n\r\n",
    ])
    func ambiguousAnswersOfNodesAreNotPassedOn(answer: String) async throws {
        let node = try await RawNode.start(answer: answer)
        try await withRouter(try topology([[node.address]])) { client async throws in
            let raw = try await RawClient.connect(to: client.router.localAddress)
            raw.send(put(SmugglingTests.target, "body"))
            let answers = try await raw.answers(1)
            await raw.close()
            #expect(answers.map(\.status) == [502], "\(answers)")
        }
        try await node.stop()
    }

    /// What a node sends unasked belongs to nobody.
    @Test func anAnswerTooManyIsNotTheNextRequests() async throws {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"
        let node = try await RawNode.start(answer: whole + "a" + whole + "b", closes: false)
        try await withRouter(try topology([[node.address]])) { client async throws in
            for _ in 0..<5 {
                let raw = try await RawClient.connect(to: client.router.localAddress)
                raw.send(get(SmugglingTests.target))
                #expect(try await raw.answers(1).map(\.text) == ["a"])
                await raw.close()
            }
        }
        try await node.stop()
    }
}

/// A node that reads requests as strictly as can be, keeps them as they came, and answers each with the same bytes.
private final class RawNode: Sendable {
    struct Request: Sendable, CustomStringConvertible {
        /// Without the version.
        var line: String
        var fields: [String]
        var body: String
        var description: String { "\(line) \(fields) \(body.debugDescription)" }
    }

    let address: NodeAddress
    private let channel: any Channel
    private let log: Log

    final class Log: Sendable {
        let requests = Mutex<[Request]>([])
        let defects = Mutex<[String]>([])
    }

    private init(address: NodeAddress, channel: any Channel, log: Log) {
        (self.address, self.channel, self.log) = (address, channel, log)
    }

    /// Those about keys; the router looks at its nodes besides.
    var keyRequests: [Request] { log.requests.withLock { $0.filter { $0.line.contains(" /kv") } } }
    var defects: [String] { log.defects.withLock { $0 } }

    /// - Parameter closes: after an answer that is not the usual one.
    static func start(answer: String? = nil, closes: Bool = true) async throws -> RawNode {
        let log = Log()
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(log: log, answer: answer, closes: closes))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(channel.localAddress?.port)
        return RawNode(address: NodeAddress(host: "127.0.0.1", port: port), channel: channel, log: log)
    }

    func stop() async throws { try await channel.close().get() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let log: Log
        private let answer: String?
        private let closes: Bool
        private var text = ""

        init(log: Log, answer: String?, closes: Bool) { (self.log, self.answer, self.closes) = (log, answer, closes) }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            text += String(buffer: unwrapInboundIn(data))
            while let end = text.firstRange(of: "\r\n\r\n") {
                let head = text[..<end.lowerBound]
                guard !head.replacing("\r\n", with: "").contains(where: { $0 == "\r" || $0 == "\n" || $0 == "\0" })
                else {
                    return defect("control characters", context)
                }
                let lines = head.split(separator: "\r\n", omittingEmptySubsequences: false).map(String.init)
                let lengths = lines.filter { $0.lowercased().hasPrefix("content-length:") }
                guard lines[0].hasSuffix(" HTTP/1.1"), lines[0].split(separator: " ").count == 3, lengths.count <= 1,
                    lines.count(where: { $0.lowercased().hasPrefix("host:") }) == 1,
                    !lines.contains(where: { $0.lowercased().hasPrefix("transfer-encoding") })
                else { return defect("\(lines)", context) }
                let length = lengths.first.flatMap { Int($0.dropFirst("content-length: ".count)) } ?? 0
                let rest = text.utf8[end.upperBound...]
                guard rest.count >= length else { return }
                let body = String(rest.prefix(length)) ?? ""
                text = String(rest.dropFirst(length)) ?? ""
                let line = String(lines[0].dropLast(" HTTP/1.1".count))
                let request = Request(line: line, fields: lines.dropFirst().map { $0 }, body: body)
                log.requests.withLock { $0.append(request) }
                respond(to: request, context)
            }
        }

        private func respond(to request: Request, _ context: ChannelHandlerContext) {
            let usual = answer == nil || !request.line.contains(" /kv")
            let bytes = usual ? "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" : answer ?? ""
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: bytes)), promise: nil)
            if !usual, closes { context.close(promise: nil) }
        }

        private func defect(_ what: String, _ context: ChannelHandlerContext) {
            log.defects.withLock { $0.append(what) }
            context.close(promise: nil)
        }
    }
}
