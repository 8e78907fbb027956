import NIOCore
import NIOHTTP1
import TestSupport
import Testing

@testable import HTTPServer

/// Requests that get no handler's answer, and odd ones that do.
@Suite struct BadRequestTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let bytes: [UInt8]
        /// The peer ends its side after these bytes.
        let finishes: Bool
        let status: Int
        var testDescription: String { name }

        init(_ name: String, _ text: String, _ status: Int, finishes: Bool = false) {
            self.init(name, Array(text.utf8), status, finishes: finishes)
        }

        init(_ name: String, _ bytes: [UInt8], _ status: Int, finishes: Bool = false) {
            self.name = name
            self.bytes = bytes
            self.finishes = finishes
            self.status = status
        }
    }

    static let requestLines: [Case] = [
        Case("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("empty target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("relative target", "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("tab in the target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("bare CR in the target", "GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("unknown scheme", "GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("URL without authority", "GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("* of GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("CONNECT with bytes behind it", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n\u{16}\u{3}\u{1}", 400),
        Case("unknown method", "FROB / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("method in lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("space before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case("no version", "GET /\r\nHost: a\r\n\r\n", 400),
        Case("HTTP/0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400),
        Case("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        Case("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        Case("HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        Case("http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        Case("another protocol", "GET / ICE/1.0\r\nHost: a\r\n\r\n", 400),
        Case("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        Case("TLS hello", [0x16, 3, 1, 0, 0xa5, 1, 0, 0, 0xa1, 3, 3] + Array(repeating: 0x5c, count: 150), 400),
        Case("SSH banner", "SSH-2.0-OpenSSH_9.6\r\n", 400),
        Case("a RESP command", "*1\r\n$4\r\nPING\r\n", 400),
        Case("zeroes", Array(repeating: 0, count: 100), 400),
        Case("high bytes", Array(repeating: 0xff, count: 100), 400),
        Case("a line of text", "hello, is this thing on?\r\n\r\n", 400),
        Case("an answer", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 400),
        Case("target over the limit", get("/" + String(repeating: "t", count: 2_000)), 414),
        Case("target over every limit", get("/" + String(repeating: "t", count: 500_000)), 414),
        Case("URL over every limit", get("http://a/" + String(repeating: "t", count: 500_000)), 414),
        Case("target over every limit, never ended", "GET /" + String(repeating: "t", count: 500_000), 414),
    ]

    static let fields: [Case] = [
        Case("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        Case("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        Case("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        Case("host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        Case("host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        Case("host with user information", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        Case("folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
        Case("fold before any field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        Case("space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
        Case("no colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400),
        Case("no name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
        Case("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", 400),
        Case("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
        Case("control byte in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{1}c\r\n\r\n", 400),
        Case("bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", 400),
        Case("bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400),
        Case("bare LF behind a field", "GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n", 400),
        Case("unknown expectation", put("/", "b", "Expect: 200-ok\r\n"), 417),
        Case("two expectations", put("/", "b", "Expect: 100-continue, x\r\n"), 417),
        Case("fields over the limit", get("/", "X: \(String(repeating: "v", count: 5_000))\r\n"), 431),
        Case("many fields over the limit", get("/", String(repeating: "X: vvvvvvvvvvvvv\r\n", count: 250)), 431),
        Case("field over every limit", get("/", "X: \(String(repeating: "v", count: 500_000))\r\n"), 431),
        Case("name over every limit", get("/", "\(String(repeating: "X", count: 500_000)): v\r\n"), 431),
        Case("more fields than the limit", get("/", String(repeating: "X:\r\n", count: 300)), 431),
        Case("field never ended", "GET / HTTP/1.1\r\nX: " + String(repeating: "v", count: 500_000), 431),
    ]

    static let framing: [Case] = [
        Case("content-length -1", framed("Content-Length: -1"), 400),
        Case("content-length -0", framed("Content-Length: -0"), 400),
        Case("content-length +1", framed("Content-Length: +1"), 400),
        Case("content-length 1.0", framed("Content-Length: 1.0"), 400),
        Case("content-length 0x1", framed("Content-Length: 0x1"), 400),
        Case("content-length of a letter", framed("Content-Length: a"), 400),
        Case("no content-length", framed("Content-Length:"), 400),
        Case("content-length 1 1", framed("Content-Length: 1 1"), 400),
        Case("content-length 1, 1", framed("Content-Length: 1, 1"), 400),
        Case("content-length over 64 bits", framed("Content-Length: 18446744073709551617"), 400),
        Case("content-length over 63 bits", framed("Content-Length: 9223372036854775808"), 400),
        Case("content-length 2^63-1", framed("Content-Length: 9223372036854775807"), 413),
        Case("content-length twice", framed("Content-Length: 1\r\nContent-Length: 1"), 400),
        Case("two content-lengths", framed("Content-Length: 1\r\nContent-Length: 2"), 400),
        Case("both lengths", framed("Content-Length: 1\r\nTransfer-Encoding: chunked"), 400),
        Case("both lengths, turned round", framed("Transfer-Encoding: chunked\r\nContent-Length: 1"), 400),
        Case("transfer-encoding gzip", framed("Transfer-Encoding: gzip"), 400),
        Case("transfer-encoding gzip, chunked", framed("Transfer-Encoding: gzip, chunked"), 400),
        Case("transfer-encoding chunked, gzip", framed("Transfer-Encoding: chunked, gzip"), 400),
        Case("transfer-encoding chunked, chunked", framed("Transfer-Encoding: chunked, chunked"), 400),
        Case("transfer-encoding twice", framed("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
        Case("transfer-encoding xchunked", framed("Transfer-Encoding: xchunked"), 400),
        Case("transfer-encoding identity", framed("Transfer-Encoding: identity"), 400),
        Case("transfer-encoding \"chunked\"", framed("Transfer-Encoding: \"chunked\""), 400),
        Case("space before transfer-encoding's colon", framed("Transfer-Encoding : chunked"), 400),
        Case("transfer-encoding of HTTP/1.0", "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        Case("chunk size of a letter", chunked("g\r\n"), 400),
        Case("chunk size -1", chunked("-1\r\n"), 400),
        Case("chunk size 0x1", chunked("0x1\r\na\r\n0\r\n\r\n"), 400),
        Case("no chunk size", chunked("\r\na\r\n0\r\n\r\n"), 400),
        Case("chunk size over 64 bits", chunked("10000000000000001\r\na"), 400),
        Case("chunk size with a space before it", chunked(" 1\r\na\r\n0\r\n\r\n"), 400),
        Case("chunk longer than its size", chunked("1\r\nab\r\n0\r\n\r\n"), 400),
        Case("chunk size ended by LF", chunked("1\na\r\n0\r\n\r\n"), 400),
        Case("chunk ended by LF", chunked("1\r\na\n0\r\n\r\n"), 400),
        Case("trailer with no colon", chunked("1\r\na\r\n0\r\nnonsense\r\n\r\n"), 400),
        Case("trailers over the limit", chunked("0\r\nX: \(String(repeating: "v", count: 500_000))\r\n\r\n"), 431),
        Case("body over the limit", put("/", String(repeating: "b", count: 1_001)), 413),
        Case("body over the limit, not sent", framed("Content-Length: 1001"), 413),
        Case("chunk over the limit", chunked("3e9\r\n" + String(repeating: "b", count: 1_001) + "\r\n0\r\n\r\n"), 413),
        Case("chunks over the limit", chunked(String(repeating: "1\r\nb\r\n", count: 1_001) + "0\r\n\r\n"), 413),
        Case("chunk that never ends", chunked("ffffffff\r\n" + String(repeating: "b", count: 5_000)), 413),
        Case("huge body over the limit", put("/", String(repeating: "b", count: 8_000_000)), 413),
        Case("expectation with a body over the limit", framed("Content-Length: 1001\r\nExpect: 100-continue"), 413),
    ]

    static let unfinished: [Case] = [
        Case("end in the method", "GE", 400, finishes: true),
        Case("end in the target", "GET /abc", 400, finishes: true),
        Case("end in a name", "GET / HTTP/1.1\r\nHo", 400, finishes: true),
        Case("end in a value", "GET / HTTP/1.1\r\nHost: a", 400, finishes: true),
        Case("end before the blank line", "GET / HTTP/1.1\r\nHost: a\r\n", 400, finishes: true),
        Case("end in a body", framed("Content-Length: 10"), 400, finishes: true),
        Case("end in a chunk size", chunked("1"), 400, finishes: true),
        Case("end in a chunk", chunked("5\r\nab"), 400, finishes: true),
        Case("end before the last chunk", chunked("1\r\na\r\n"), 400, finishes: true),
        Case("end in the trailers", chunked("1\r\na\r\n0\r\nX: a\r\n"), 400, finishes: true),
    ]

    private static func framed(_ fields: String) -> String { "PUT / HTTP/1.1\r\nHost: a\r\n\(fields)\r\n\r\n1" }

    private static func chunked(_ body: String) -> String {
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\(body)"
    }

    static let all = requestLines + fields + framing + unfinished

    private let setup = TestServer.Setup(
        limits: {
            $0.targetBytesMax = 1_000
            $0.headerBytesMax = 4_000
        }, bodyBytesMax: { _, _ in 1_000 })

    /// Alone, and cut in two at each of a few places, behind good requests that are still answered.
    @Test(arguments: all)
    func isRefusedAndTheConnectionCloses(bad: Case) async throws {
        try await TestServer.run(setup) { server in
            let good = Array((get("/one") + put("/two", "body") + get("/three")).utf8)
            let echoes = ["GET /one", "PUT /two body", "GET /three"]
            let cuts = [0, 1, bad.bytes.count / 2, bad.bytes.count - 1]
            for (before, cut) in [([], 0)] + cuts.map({ (good, $0) }) {
                let client = try await server.connect()
                client.send(before + bad.bytes[..<cut])
                // Only once the answers are there has the server surely read the first part alone.
                if !before.isEmpty, cut > 0 { _ = try await client.answers(3) }
                client.send(Array(bad.bytes[cut...]))
                if bad.finishes { client.finish() }
                let answers = try await client.answersToEnd()
                await client.close()
                #expect(answers.dropLast().map(\.text) == (before.isEmpty ? [] : echoes), "cut at \(cut)")
                #expect(answers.last?.status == bad.status, "cut at \(cut): \(answers.last?.text ?? "no answer")")
                #expect(answers.last?.closes == true)
                #expect(answers.last?["x-kind"] == "rejection")
                #expect(answers.dropLast().allSatisfy { !$0.closes })
            }
            try await server.expectServing()
        }
    }

    /// Behind requests that are answered only later.
    @Test func waitsForTheAnswersBeforeIt() async throws {
        var setup = setup
        setup.handle = { request, exchange in
            // Two turns of the loop later, by when the refusal is known.
            exchange.eventLoop.execute {
                exchange.eventLoop.execute { exchange.respond(TestServer.echo(of: request)) }
            }
        }
        try await TestServer.run(setup) { server in
            for bad in BadRequestTests.all where bad.bytes.count < 10_000 {
                let client = try await server.connect()
                client.send(Array((get("/one") + get("/two")).utf8) + bad.bytes)
                if bad.finishes { client.finish() }
                let answers = try await client.answersToEnd()
                await client.close()
                #expect(answers.map(\.status) == [200, 200, bad.status], "\(bad.name)")
                #expect(answers.map(\.closes) == [false, false, true], "\(bad.name)")
            }
        }
    }

    /// What follows a refused request is neither handled nor answered, however it looks.
    @Test func nothingBehindItIsHandled() async throws {
        try await TestServer.run(setup) { server in
            let client = try await server.connect()
            client.send(framedSmuggling + get("/smuggled"))
            let answers = try await client.answersToEnd()
            client.send(get("/late"))
            await client.close()
            #expect(answers.map(\.status) == [400])
            #expect(server.seen.all.isEmpty)
        }
    }

    private let framedSmuggling =
        "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5c\r\n"

    /// A peer still sending must not be cut off at once, or the reset takes its answer away.
    @Test func bytesBehindItAreReadAndDropped() async throws {
        let tooLarge = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n"
        try await TestServer.run(setup) { server in
            for bad in ["nonsense\r\n\r\n", framedSmuggling, tooLarge] {
                let client = try await server.connect()
                client.send(bad)
                let answers = try await client.answersToEnd()
                #expect(answers.count == 1)
                // More than the sockets' buffers hold, so that it fails unless the server reads it.
                try await client.deliver(Array(repeating: 98, count: 16 << 20))
                await client.close()
            }
            #expect(server.seen.all.isEmpty)
        }
    }

    struct Odd: Sendable, CustomTestStringConvertible {
        let name: String
        let text: String
        let echo: String
        var testDescription: String { name }
        init(_ name: String, _ text: String, _ echo: String) {
            (self.name, self.text, self.echo) = (name, text, echo)
        }
    }

    static let odd: [Odd] = [
        Odd("blank lines first", "\r\n\r\n" + get("/a"), "GET /a"),
        Odd("URL as target", get("http://a:80/b?c=d"), "GET /b?c=d"),
        Odd("URL as target in upper case", get("HTTP://A/b"), "GET /b"),
        Odd("URL without a path", get("http://a"), "GET /"),
        Odd("URL with a query only", get("http://a?b"), "GET /?b"),
        Odd("double slash", get("//a//b"), "GET //a//b"),
        Odd("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS *"),
        Odd("empty host", "GET /a HTTP/1.1\r\nHost:\r\n\r\n", "GET /a"),
        Odd("host of an IPv6 address", "GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET /a"),
        Odd("empty value", get("/a", "X:\r\n"), "GET /a"),
        Odd("no space behind colons", "GET /a HTTP/1.1\r\nHost:a\r\n\r\n", "GET /a"),
        Odd("white space around a value", "GET /a HTTP/1.1\r\nHost: \t a \t \r\n\r\n", "GET /a"),
        Odd(
            "white space behind framing fields",
            "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1  \r\n\r\nb", "PUT /a b"),
        Odd(
            "white space behind chunked", "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked \r\n\r\n0\r\n\r\n",
            "PUT /"),
        Odd("names in odd case", "PUT /a HTTP/1.1\r\nhOST: a\r\ncONTENT-lENGTH: 1\r\n\r\nb", "PUT /a b"),
        Odd(
            "leading zeroes in content-length", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0001\r\n\r\nb",
            "PUT /a b"),
        Odd("body of a GET", "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb", "GET /a b"),
        Odd(
            "body at the limit", put("/a", String(repeating: "b", count: 1_000)),
            "PUT /a " + String(repeating: "b", count: 1_000)),
        Odd("chunked", chunked("1\r\nb\r\n00a\r\ncdefghijkl\r\n0\r\n\r\n"), "PUT / bcdefghijkl"),
        Odd("chunked, nothing in it", chunked("0\r\n\r\n"), "PUT /"),
        Odd("chunked with extensions and trailers", chunked("1;x=y\r\nb\r\n0;z\r\nX: y\r\nZ: w\r\n\r\n"), "PUT / b"),
        Odd("chunked in odd case", "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", "PUT /"),
        Odd("high bytes in a value", get("/a", "X: \u{e9}\u{fc}\r\n"), "GET /a"),
        Odd("expectation without a body", get("/a", "Expect: 100-continue\r\n"), "GET /a"),
        Odd("upgrade without connection", get("/a", "X: h2c\r\n"), "GET /a"),
        Odd("method of WebDAV", "PROPFIND /a HTTP/1.1\r\nHost: a\r\n\r\n", "PROPFIND /a"),
    ]

    @Test(arguments: odd)
    func oddRequestIsServed(odd: Odd) async throws {
        try await TestServer.run(setup) { server in
            let client = try await server.connect()
            client.send(odd.text + get("/next") + odd.text)
            let answers = try await client.answers(3)
            await client.close()
            #expect(answers.map(\.text) == [odd.echo, "GET /next", odd.echo])
            #expect(answers.allSatisfy { !$0.closes })
        }
    }

    /// The decoder reads nothing behind an offer to upgrade, so the connection ends with its answer.
    @Test(arguments: [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    ])
    func anUpgradeIsAnsweredAsHTTPAndCloses(fields: String) async throws {
        try await TestServer.run(setup) { server in
            for request in [get("/a", fields), put("/a", "b", fields)] {
                let client = try await server.connect()
                client.send(request + get("/unread"))
                let answers = try await client.answersToEnd()
                await client.close()
                #expect(answers.map(\.status) == [200])
                #expect(answers.first?.closes == true)
            }
            #expect(server.seen.all == ["/a", "/a"])
        }
    }
}
