import NIOCore
import NIOEmbedded
import TestSupport
import Testing

@testable import HTTPServer

/// Peers that send a byte a second, on a clock of the test's own.
@Suite struct SlowSenderTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let start: String
        /// Sent one byte a second, again and again.
        let drip: String
        /// Of the answer; nil where the connection just closes.
        let status: Int?
        /// When that is, at the latest.
        let seconds: Int
        var testDescription: String { name }
    }

    private static let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

    static let cases: [Case] = [
        Case(name: "blank lines", start: "", drip: "\r\n", status: nil, seconds: 77),
        Case(name: "target", start: "GET /", drip: "t", status: nil, seconds: 77),
        Case(name: "a field's name", start: "GET / HTTP/1.1\r\n", drip: "x", status: nil, seconds: 77),
        Case(name: "a field's value", start: "GET / HTTP/1.1\r\nX: ", drip: "v", status: nil, seconds: 77),
        Case(name: "fields", start: "GET / HTTP/1.1\r\n", drip: "X: y\r\n", status: nil, seconds: 77),
        Case(
            name: "body", start: "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", drip: "b", status: 400,
            seconds: 32),
        Case(name: "chunk size", start: chunked, drip: "0", status: 400, seconds: 32),
        Case(name: "chunk extension", start: chunked + "1;", drip: "x", status: 400, seconds: 32),
        Case(name: "chunk", start: chunked + "ff\r\n", drip: "b", status: 400, seconds: 32),
        Case(name: "chunks", start: chunked, drip: "1\r\nb\r\n", status: 400, seconds: 32),
        Case(name: "trailers", start: chunked + "0\r\n", drip: "X: y\r\n", status: 400, seconds: 32),
    ]

    @Test(arguments: cases) func isCutOff(slow: Case) throws {
        let rig = try Rig {
            $0.idleTimeout = .seconds(75)
            $0.requestTimeout = .seconds(30)
        }
        rig.loop.start()
        try rig.channel.writeInbound(ByteBuffer(string: get("/a") + slow.start))
        let drip = Array(slow.drip.utf8)
        var answers: [RawAnswer] = []
        var second = 0
        while rig.channel.isActive, answers.last?.closes != true, second < 200 {
            _ = try? rig.channel.writeInbound(ByteBuffer(bytes: [drip[second % drip.count]]))
            second += 1
            rig.channel.embeddedEventLoop.advanceTime(by: .seconds(1))
            answers += try rig.answers()
        }
        #expect(second <= slow.seconds && second >= 30, "after \(second) seconds")
        #expect(answers.map(\.status) == [200] + (slow.status.map { [$0] } ?? []))
        if slow.status != nil { #expect(answers.last?.text == "timedOut") }
        #expect(rig.handler.targets == ["/a"])
        rig.loop.stop()
        try rig.finish()
    }
}
