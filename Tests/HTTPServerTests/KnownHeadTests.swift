import NIOCore
import NIOEmbedded
import NIOHTTP1
import TestSupport
import Testing

@testable import HTTPServer

/// Heads that come again are recognised; what the handler gets is what the decoder would have made of them.
@Suite struct KnownHeadTests {
    /// One request as a handler sees it.
    struct Seen: Equatable {
        let method: HTTPMethod
        let target: String
        let headers: [String]
        let body: String
    }

    /// One connection on an embedded event loop, which answers at once and keeps what it was asked.
    final class Connection: HTTPHandler {
        private(set) var seen: [Seen] = []
        let channel = EmbeddedChannel()
        private var loop: HTTPLoop?
        private var handler: HTTPConnectionHandler?

        init(recognisesHeads: Bool) throws {
            let loop = HTTPLoop(
                eventLoop: channel.eventLoop, loops: 1,
                configuration: HTTPServerConfiguration(host: "127.0.0.1", port: 0), handler: self)
            self.loop = loop
            try loop.serve(channel, recognisesHeads: recognisesHeads)
            handler = try channel.pipeline.syncOperations.handler(type: HTTPConnectionHandler.self)
            try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        }

        func bodyBytesMax(method: HTTPMethod, target: String) -> Int { target.hasPrefix("/small") ? 10 : 1_000 }
        func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
            let body = String(buffer: request.body)
            seen.append(
                Seen(
                    method: request.method, target: request.target,
                    headers: request.headers.map { "\($0.name): \($0.value)" }, body: body))
            exchange.respond(HTTPResponse(status: 200, body: ByteBuffer(string: "\(request.method) \(body)")))
        }
        func response(to rejection: HTTPRejection) -> HTTPResponse {
            HTTPResponse(status: 400, body: ByteBuffer(string: "\(rejection)"))
        }
        func writeCommonFields(into buffer: inout ByteBuffer) {}

        /// Heads that the decoder has read.
        var headsRead: Int { handler?.headsRead ?? -1 }

        func send(_ text: String) throws { try send(Array(text.utf8)) }
        func send(_ bytes: [UInt8]) throws {
            // A refused connection stays open for a while, and an error here is one of the peer's.
            _ = try? channel.writeInbound(ByteBuffer(bytes: bytes))
            channel.embeddedEventLoop.run()
        }

        /// What was answered so far, line by line, without the date.
        func answers() throws -> [String] {
            var bytes: [UInt8] = []
            while let buffer = try channel.readOutbound(as: ByteBuffer.self) { bytes += buffer.readableBytesView }
            return String(decoding: bytes, as: UTF8.self).split(separator: "\r\n").map(String.init)
                .filter { !$0.hasPrefix("date: ") }
        }

        func finish() {
            _ = try? channel.finish(acceptAlreadyClosed: true)
            loop = nil
            handler = nil
        }
    }

    private func get(_ target: String) -> String { "GET \(target) HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n" }
    private func put(_ target: String, _ body: String) -> String {
        "PUT \(target) HTTP/1.1\r\nHost: a\r\nContent-Length: \(body.utf8.count)\r\nX-A: b\r\n\r\n\(body)"
    }

    @Test func theDecoderReadsARepeatedHeadOnce() throws {
        let connection = try Connection(recognisesHeads: true)
        for number in 0..<5 { try connection.send(get("/\(number)")) }
        #expect(connection.headsRead == 1)
        #expect(connection.seen.map(\.target) == ["/0", "/1", "/2", "/3", "/4"])
        #expect(Set(connection.seen.map(\.headers)) == [["Host: a", "X-A: b"]])
        try #expect(connection.answers().count { $0.contains("HTTP/1.1 200 OK") } == 5)
        connection.finish()
    }

    @Test func bodiesOfOtherLengthsKeepTheirField() throws {
        let connection = try Connection(recognisesHeads: true)
        for body in ["x", "", "four", String(repeating: "y", count: 200)] { try connection.send(put("/k", body)) }
        // A request without a body is another kind.
        #expect(connection.headsRead == 2)
        #expect(connection.seen.map(\.body.count) == [1, 0, 4, 200])
        #expect(connection.seen.map { $0.headers[1] } == ["1", "0", "4", "200"].map { "Content-Length: \($0)" })
        connection.finish()
    }

    @Test func readsAndWritesInTurnAreBothKnown() throws {
        let connection = try Connection(recognisesHeads: true)
        for number in 0..<6 { try connection.send(number.isMultiple(of: 2) ? get("/k") : put("/k", "v")) }
        #expect(connection.headsRead == 2)
        #expect(connection.seen.count == 6)
        connection.finish()
    }

    @Test func pipelinedRequestsCutAnywhereAreRecognisedAgain() throws {
        let connection = try Connection(recognisesHeads: true)
        let bytes = Array(((0..<50).map { get("/\($0)") }.joined()).utf8)
        for start in stride(from: 0, to: bytes.count, by: 1_000) {
            try connection.send(Array(bytes[start..<min(start + 1_000, bytes.count)]))
        }
        #expect(connection.seen.map(\.target) == (0..<50).map { "/\($0)" })
        // The first one, and those that a read cut in two.
        #expect(connection.headsRead <= 1 + bytes.count / 1_000)
        connection.finish()
    }

    @Test func whatLooksLikeARequestInABodyIsNone() throws {
        let connection = try Connection(recognisesHeads: true)
        try connection.send(get("/1"))
        let inner = get("/smuggled")
        let outer = Array(put("/k", inner).utf8)
        let body = outer.count - inner.utf8.count
        try connection.send(Array(outer[..<body]))
        try connection.send(Array(outer[body...]))
        try connection.send(get("/2"))
        #expect(connection.seen.map(\.target) == ["/1", "/k", "/2"])
        #expect(connection.seen[1].body == inner)
        connection.finish()
    }

    @Test(arguments: [
        "GET /a b HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n", "GET a HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n",
        "GET /a HTTP/1.0\r\nHost: a\r\nX-A: b\r\n\r\n", "GET /\u{1} HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n",
        "PUT /k HTTP/1.1\r\nHost: a\r\nContent-Length: 01\r\nX-A: b\r\n\r\nv",
        "PUT /k HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\nX-A: b\r\n\r\nv",
        "PUT /k HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\nX-A: b\r\n\r\nv",
        "PUT /small HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nX-A: b\r\n\r\n12345678901",
    ])
    func whatIsNotTheSameGoesToTheDecoder(_ request: String) throws {
        let connections = try [true, false].map { try Connection(recognisesHeads: $0) }
        for connection in connections {
            try connection.send(get("/1"))
            try connection.send(put("/k", "v"))
            try connection.send(request)
        }
        #expect(connections[0].seen == connections[1].seen)
        try #expect(connections[0].answers() == connections[1].answers())
        #expect(connections[0].headsRead == 2 || connections[0].headsRead == connections[1].headsRead)
        for connection in connections { connection.finish() }
    }

    // MARK: Random streams

    private static func request(_ generator: inout SeededGenerator) -> String {
        let method = ["GET", "PUT", "POST", "HEAD"].randomElement(using: &generator)!
        let target = ["/a", "/kv/x%20y?z=1", "/small", "http://a/b", "/\"", "//", "/?", "*"].randomElement(
            using: &generator)!
        let version = Int.random(in: 0...19, using: &generator) == 0 ? "1.0" : "1.1"
        var text = "\(method) \(target) HTTP/\(version)\r\nHost: a\r\n"
        if Int.random(in: 0...9, using: &generator) == 0 {
            text += ["Connection: close\r\n", "Expect: 100-continue\r\n", "X-A: b\r\n", "Upgrade: x\r\n"].randomElement(
                using: &generator)!
        }
        let body = [
            "", "v", "GET /b HTTP/1.1\r\nHost: a\r\n\r\n", String(repeating: "b", count: 30),
        ].randomElement(using: &generator)!
        switch Int.random(in: 0...9, using: &generator) {
        case 0: text += "Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n"
        case 1...5: text += "content-length: \(body.utf8.count)\r\n\r\n\(body)"
        default: text += "\r\n"
        }
        if Int.random(in: 0...29, using: &generator) == 0 { text = text.replacing("\r\n", with: "\n") }
        return text
    }

    private static func stream(_ generator: inout SeededGenerator) -> [UInt8] {
        let kinds = (0..<3).map { _ in request(&generator) }
        var bytes: [UInt8] = []
        for _ in 0..<Int.random(in: 2...12, using: &generator) { bytes += kinds.randomElement(using: &generator)!.utf8 }
        if Bool.random(using: &generator) {
            let place = Int.random(in: 0..<bytes.count, using: &generator)
            let end = min(bytes.count, place + Int.random(in: 0...6, using: &generator))
            switch Int.random(in: 0...2, using: &generator) {
            case 0: bytes.removeSubrange(place..<end)
            case 1: bytes.insert(contentsOf: bytes[place..<end], at: place)
            default: bytes[place] = UInt8.random(in: 0...127, using: &generator)
            }
        }
        return bytes
    }

    @Test func theHandlerCannotTellTheDifference() throws {
        let base: UInt64 = 7_000_000
        var (recognised, read) = (0, 0)
        for seed in base..<base + 4_000 {
            var generator = SeededGenerator(seed: seed)
            let bytes = KnownHeadTests.stream(&generator)
            let connections = try [true, false].map { try Connection(recognisesHeads: $0) }
            var rest = bytes[...]
            while !rest.isEmpty {
                let whole = Int.random(in: 0...3, using: &generator) > 0
                let piece = Array(rest.prefix(whole ? 200 : Int.random(in: 1...40, using: &generator)))
                for connection in connections { try connection.send(piece) }
                rest = rest.dropFirst(piece.count)
            }
            #expect(connections[0].seen == connections[1].seen, "seed \(seed)")
            try #expect(connections[0].answers() == connections[1].answers(), "seed \(seed)")
            recognised += connections[1].headsRead - connections[0].headsRead
            read += connections[0].headsRead
            for connection in connections { connection.finish() }
        }
        // Else the decoder would be compared with itself.
        #expect(recognised > 1_000, "of \(read) that were read")
    }
}
