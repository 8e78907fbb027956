import NIOCore
import NIOHTTP1
import TestSupport
import Testing

@testable import HTTPServer

/// Requests that get no handler's answer, and odd ones that do.
@Suite struct BadRequestTests {
    static let all =
        RequestShape.requestLines + RequestShape.fields + RequestShape.framing(target: "/") + RequestShape.overLimits
        + RequestShape.unfinished

    private static func chunked(_ body: String) -> String {
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\(body)"
    }

    private let setup = TestServer.Setup(
        limits: {
            $0.targetBytesMax = 1_000
            $0.headerBytesMax = 4_000
        }, bodyBytesMax: { _, _ in 1_000 })

    /// Alone, and cut in two at each of a few places, behind good requests that are still answered.
    @Test(arguments: all)
    func isRefusedAndTheConnectionCloses(bad: RequestShape) async throws {
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
        Odd("zeroes before a chunk size", chunked("00000000000000000001\r\nb\r\n0\r\n\r\n"), "PUT / b"),
        Odd("quoted chunk extension", chunked("1;x=\"y;z\"\r\nb\r\n0\r\n\r\n"), "PUT / b"),
        Odd("a trailer that names a host", chunked("1\r\nb\r\n0\r\nHost: b\r\n\r\n"), "PUT / b"),
        Odd("an underscore in the name", put("/a", "b", "Transfer_Encoding: chunked\r\n"), "PUT /a b"),
        Odd("a length that is another field's", put("/a", "b", "X-Content-Length: 9\r\n"), "PUT /a b"),
        Odd("tab before a value", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length:\t1\r\n\r\nb", "PUT /a b"),
        Odd("URL of another host", "GET http://b:81/c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /c"),
        Odd("invalid percent", get("/a%zz%"), "GET /a%zz%"),
        Odd("dots in the path", get("/a/../b/./c"), "GET /a/../b/./c"),
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
