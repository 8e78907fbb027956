import HTTPServer
import NIOCore
import NIOEmbedded
import NIOHTTP1
import TestSupport

/// The path of a request from bytes to a handler: decoder and connection handler, in process.
///
/// What is handed out must be what ``ReferenceParser`` reads, however the bytes arrive; answers must be whole and in
/// order, with nothing behind a refusal; budgets must be given back.
struct HTTPTarget: FuzzTarget {
    let words: [String] = [
        "GET ", "PUT ", "HEAD ", "POST ", "OPTIONS ", "CONNECT ", "PRI ", "/", "*", "http://", "?", "%00", " ", "\t",
        "\r", "\n", "\r\n", "\r\n\r\n", "\0", "\u{7f}", ":", ";", ",", "ffffffffffffffff", " HTTP/1.1\r\n",
        " HTTP/1.0\r\n", " HTTP/2.0\r\n", "Host: a\r\n", "Host:\r\n", "Content-Length: 3\r\n", "Content-Length: 0\r\n",
        "content-length:1\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip\r\n",
        "transfer-encoding:chunked\r\n", "Connection: close\r\n", "Connection: keep-alive\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n", "Expect: 100-continue\r\n", "Expect: x\r\n", "0\r\n\r\n",
        "3\r\nabc\r\n", "1;x=y\r\na\r\n", "0\r\nX: y\r\n\r\n", "\u{16}\u{3}\u{1}", "abc",
    ]

    let seeds: [[UInt8]] = {
        let chunked = "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        let texts = [
            get("/kv/a"), put("/kv/b", "body"), "HEAD" + get("/kv/a").dropFirst(3),
            get("/later/1", "Connection: close\r\n"), get("/later/1") + get("/kv/2") + put("/later/3", "xyz"),
            put("/kv/b", "body", "Expect: 100-continue\r\n"), chunked + "3\r\nabc\r\n0\r\n\r\n" + get("/kv/d"),
            chunked + "1;x=\"y\"\r\na\r\n0\r\nX: y\r\n\r\n",
            "GET http://a:80/kv/a?b=c HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "PUT /kv/a HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc" + get("/kv/b"),
            get("/kv/a", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            put("/large", String(repeating: "b", count: 900)),
        ]
        let shapes = RequestShape.requestLines + RequestShape.fields + RequestShape.framing(target: "/kv/a")
        return texts.map { Array($0.utf8) }
            + shapes.filter { $0.bytes.count < 400 }.map { Array(get("/kv/1").utf8) + $0.bytes }
    }()

    func run(_ input: [UInt8]) throws {
        let whole = try Connection.serve([input[...]])
        var random = SeededGenerator(seed: input.reduce(UInt64(input.count)) { ($0 &* 31) &+ UInt64($1) })
        var pieces: [ArraySlice<UInt8>] = []
        var rest = input[...]
        while !rest.isEmpty {
            let piece = rest.prefix(1 + Int(random.next() % 40))
            pieces.append(piece)
            rest = rest.dropFirst(piece.count)
        }
        let cut = try Connection.serve(pieces)
        try expect(whole.requests == cut.requests, "in pieces it reads as \(cut.requests), whole as \(whole.requests)")
        try expect(
            whole.statuses == cut.statuses, "in pieces it is answered \(cut.statuses), whole \(whole.statuses)")
        let reference = ReferenceParser.requests(in: input)
        try expect(
            reference.starts(with: whole.requests), "the server reads \(whole.requests), RFC 9112 has \(reference)")
    }
}

/// What came of the bytes of one connection.
private struct Connection {
    var requests: [ReferenceParser.Request]
    /// Of final answers.
    var statuses: [Int]

    private final class Handler: HTTPHandler {
        var requests: [ReferenceParser.Request] = []
        var later: [(HTTPExchange, HTTPResponse)] = []

        func bodyBytesMax(method: HTTPMethod, target: String) -> Int { 1_000 }

        func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
            let (method, target) = (request.method.rawValue, request.target)
            requests.append(.init(method: method, target: target, body: Array(request.body.readableBytesView)))
            let response = HTTPResponse(
                status: 200, headers: [(name: "x-method", value: method)],
                body: ByteBuffer(repeating: 98, count: target.hasPrefix("/large") ? 40_000 : 5))
            if target.hasPrefix("/later") { later.append((exchange, response)) } else { exchange.respond(response) }
        }

        func response(to rejection: HTTPRejection) -> HTTPResponse {
            HTTPResponse(status: 400, headers: [(name: "x-refused", value: "yes")])
        }

        func writeCommonFields(into buffer: inout ByteBuffer) {}
    }

    static func serve(_ pieces: [ArraySlice<UInt8>]) throws -> Connection {
        var configuration = HTTPServerConfiguration(host: "", port: 0)
        configuration.pipelinedRequestsMax = 3
        configuration.bufferedBodyBytesMax = 4_000
        let channel = EmbeddedChannel()
        let handler = Handler()
        let loop = HTTPLoop(eventLoop: channel.eventLoop, loops: 1, configuration: configuration, handler: handler)
        try loop.serve(channel)
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        for piece in pieces where channel.isActive {
            try channel.writeInbound(ByteBuffer(bytes: piece))
            channel.embeddedEventLoop.run()
            answerLater(handler, channel)
        }
        if channel.isActive { channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed) }
        channel.embeddedEventLoop.run()
        answerLater(handler, channel)
        var output: [UInt8] = []
        while let buffer = try channel.readOutbound(as: ByteBuffer.self) { output += buffer.readableBytesView }
        _ = try channel.finish(acceptAlreadyClosed: true)
        guard loop.reserve(1 << 40), loop.reserveAnswer(1 << 40, isRefusable: true) else {
            throw FuzzDefect("the connection kept a part of the budgets")
        }
        return Connection(requests: handler.requests, statuses: try statuses(output, handler.requests.count))
    }

    private static func answerLater(_ handler: Handler, _ channel: EmbeddedChannel) {
        while let (exchange, response) = handler.later.popLast() {
            exchange.respond(response)
            channel.embeddedEventLoop.run()
        }
    }

    private static func statuses(_ output: [UInt8], _ requests: Int) throws -> [Int] {
        var (answers, rest) = try RawAnswer.parse(output)
        // A refusal does not say that it answers a HEAD.
        if rest > 0 { (answers, rest) = try RawAnswer.parse(output, heads: [answers.count]) }
        try expect(rest == 0, "\(rest) bytes behind the last whole answer")
        let final = answers.filter { $0.status != 100 }
        let refused = final.count { $0["x-refused"] != nil }
        try expect(
            final.count == requests + refused && refused <= 1, "\(final.count) answers to \(requests) requests")
        try expect(
            !final.dropLast().contains { $0.closes || $0["x-refused"] != nil }, "an answer behind the last one")
        return final.map(\.status)
    }
}
