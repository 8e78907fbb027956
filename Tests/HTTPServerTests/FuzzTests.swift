import NIOCore
import NIOHTTP1
import TestSupport
import Testing

@testable import HTTPServer

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Random mutations of valid request streams, cut at random places.
///
/// `DISTRIBKV_HTTP_FUZZ_INPUTS` sets how many (default 3,000), `DISTRIBKV_HTTP_FUZZ_SEED` where to start: input n
/// of a run uses the seed plus n, so that one failure can be run again alone.
@Suite struct FuzzTests {
    private static func number(_ name: String, default fallback: UInt64) -> UInt64 {
        getenv(name).flatMap { UInt64(String(cString: $0)) } ?? fallback
    }

    private static let pieces: [String] = [
        "GET ", "PUT ", "HEAD ", "POST ", "OPTIONS ", "CONNECT ", "PRI ", "/", "*", "http://", "?", "%00", " ", "\t",
        "\r", "\n",
        "\r\n", "\r\n\r\n", "\0", "\u{7f}", "\u{e9}", ":", ";", ",", "0", "1", "-1", "+1", "ffffffffffffffff",
        "99999999999999999999", " HTTP/1.1\r\n", " HTTP/1.0\r\n", " HTTP/2.0\r\n", "Host: a\r\n", "Host: b\r\n",
        "Content-Length: 3\r\n", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Connection: close\r\n", "Connection: keep-alive\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Expect: 100-continue\r\n", "Expect: x\r\n", "0\r\n\r\n", "3\r\nabc\r\n", "\u{16}\u{3}\u{1}",
    ]

    private static func validRequest(_ generator: inout SeededGenerator) -> [UInt8] {
        let method = ["GET", "PUT", "HEAD", "POST", "DELETE", "OPTIONS"].randomElement(using: &generator) ?? "GET"
        let target =
            ["/a", "/kv/x%20y?z=1", "http://a/b", "/later/1", "/later/2", "/large"].randomElement(using: &generator)
            ?? "/"
        var text =
            "\(method) \(target) HTTP/1.\(UInt8.random(in: 0...9, using: &generator) == 0 ? 0 : 1)\r\nHost: a\r\n"
        for _ in 0..<Int.random(in: 0...2, using: &generator) {
            text +=
                ["X-A: b\r\n", "Accept: */*\r\n", "Connection: keep-alive\r\n", "X-Empty:\r\n"]
                .randomElement(using: &generator) ?? ""
        }
        let body = String(repeating: "b", count: Int.random(in: 0...200, using: &generator))
        switch Int.random(in: 0...5, using: &generator) {
        case 0:
            text +=
                "Transfer-Encoding: chunked\r\n\r\n\(String(max(body.count, 1), radix: 16))\r\n\(body.isEmpty ? "b" : body)\r\n0\r\n\r\n"
        case 1, 2: text += "Content-Length: \(body.count)\r\n\r\n\(body)"
        default: text += "\r\n"
        }
        return Array(text.utf8)
    }

    private static func input(_ generator: inout SeededGenerator) -> [UInt8] {
        var bytes: [UInt8] = []
        for _ in 0..<Int.random(in: 1...5, using: &generator) { bytes += validRequest(&generator) }
        for _ in 0..<Int.random(in: 0...4, using: &generator) {
            let place = Int.random(in: 0...bytes.count, using: &generator)
            let end = min(bytes.count, place + Int.random(in: 0...20, using: &generator))
            switch Int.random(in: 0...5, using: &generator) {
            case 0: bytes.removeSubrange(place..<end)
            case 1: bytes.insert(contentsOf: bytes[place..<end], at: place)
            case 2 where place < bytes.count: bytes[place] = UInt8.random(in: 0...255, using: &generator)
            case 3: bytes.removeSubrange(place...)
            default: bytes.insert(contentsOf: (pieces.randomElement(using: &generator) ?? "").utf8, at: place)
            }
        }
        return bytes
    }

    private static let handle: TestServer.Handle = { request, exchange in
        // The answer says that it has no body, which its reader cannot know of a mutated request.
        let response = HTTPResponse(
            status: 200, headers: [("x-method", "\(request.method)")],
            body: ByteBuffer(repeating: 98, count: request.target.hasPrefix("/large") ? 40_000 : 5))
        if request.target.hasPrefix("/later") {
            exchange.eventLoop.execute { exchange.respond(response) }
        } else {
            exchange.respond(response)
        }
    }

    /// A refusal does not say that it answers a HEAD; it is the last, so that it can be seen.
    private static func check(_ bytes: [UInt8]) throws -> [RawAnswer] {
        var (answers, rest) = try RawAnswer.parse(bytes)
        if rest > 0 { (answers, rest) = try RawAnswer.parse(bytes, heads: [answers.count]) }
        guard rest == 0 else { throw RawAnswer.Malformed(what: "\(rest) bytes behind the last answer") }
        return answers
    }

    @Test func everyConnectionEndsInAnswersOrClose() async throws {
        let count = FuzzTests.number("DISTRIBKV_HTTP_FUZZ_INPUTS", default: 3_000)
        let start = FuzzTests.number("DISTRIBKV_HTTP_FUZZ_SEED", default: 1_000_000)
        print("HTTP fuzz: inputs \(count), seed \(start)")
        try await TestServer.run(
            TestServer.Setup(
                limits: {
                    $0.pipelinedRequestsMax = 3
                    $0.bufferedBodyBytesMax = 4_000
                }, bodyBytesMax: { _, _ in 1_000 }, handle: FuzzTests.handle)
        ) { server in
            let address = server.address
            try await withThrowingTaskGroup(of: Void.self) { group in
                for lane in 0..<UInt64(8) {
                    group.addTask {
                        for number in stride(from: lane, to: count, by: 8) {
                            try await FuzzTests.runOne(seed: start + number, address: address)
                        }
                    }
                }
                try await group.waitForAll()
            }
            try await server.wait(for: "all connections to end") { server.server.connectionCount == 0 }
            // Had inputs kept their share of the budget for bodies, nothing would be left for this one.
            let client = try await server.connect()
            client.send(put("/a", String(repeating: "b", count: 1_000)))
            #expect(try await client.answers(1).map(\.status) == [200])
            await client.close()
            try await server.expectServing()
        }
    }

    private static func runOne(seed: UInt64, address: SocketAddress) async throws {
        var generator = SeededGenerator(seed: seed)
        let bytes = input(&generator)
        let client = try await RawClient.connect(to: address)
        var rest = bytes[...]
        while !rest.isEmpty {
            let whole = Int.random(in: 0...2, using: &generator) == 0
            let piece = rest.prefix(whole ? rest.count : Int.random(in: 1...60, using: &generator))
            client.send(Array(piece))
            rest = rest.dropFirst(piece.count)
        }
        client.finish()
        do {
            let answers = try check(try await client.bytesToEnd())
            let final = answers.filter { $0.status != 100 }
            if final.dropLast().contains(where: \.closes) {
                Issue.record("seed \(seed): an answer behind one that closes: \(answers)")
            }
            if final.dropLast().contains(where: { $0["x-kind"] == "rejection" }) {
                Issue.record("seed \(seed): an answer behind a refusal: \(answers)")
            }
            if answers.count > 40 { Issue.record("seed \(seed): \(answers.count) answers") }
        } catch {
            Issue.record("seed \(seed): \(error), sent \(String(decoding: bytes, as: UTF8.self).debugDescription)")
        }
        await client.close()
    }
}
