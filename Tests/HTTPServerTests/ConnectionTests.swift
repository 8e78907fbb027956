import NIOCore
import NIOEmbedded
import NIOHTTP1
import Synchronization
import TestSupport
import Testing

@testable import HTTPServer

@Suite struct ConnectionTests {
    // MARK: Keep-alive, HEAD, empty answers

    struct Keeping: Sendable, CustomTestStringConvertible {
        let version: String
        let fields: String
        let connection: String?
        var testDescription: String { "\(version) \(fields.debugDescription)" }
    }

    @Test(arguments: [
        Keeping(version: "1.1", fields: "", connection: nil),
        Keeping(version: "1.1", fields: "Connection: keep-alive\r\n", connection: nil),
        Keeping(version: "1.1", fields: "Connection: close\r\n", connection: "close"),
        Keeping(version: "1.1", fields: "Connection: keep-alive, close\r\n", connection: "close"),
        Keeping(version: "1.1", fields: "CONNECTION: CLOSE\r\n", connection: "close"),
        Keeping(version: "1.0", fields: "", connection: "close"),
        Keeping(version: "1.0", fields: "Connection: close\r\n", connection: "close"),
        Keeping(version: "1.0", fields: "Connection: keep-alive\r\n", connection: "keep-alive"),
        Keeping(version: "1.0", fields: "Connection: Keep-Alive\r\n", connection: "keep-alive"),
    ])
    func theConnectionIsKeptAsThePeerWishes(keeping: Keeping) async throws {
        try await TestServer.run { server in
            let client = try await server.connect()
            let request = "GET /a HTTP/\(keeping.version)\r\nHost: a\r\n\(keeping.fields)\r\n"
            client.send(request + request)
            if keeping.connection == "close" {
                let answers = try await client.answersToEnd()
                #expect(answers.map { $0["connection"] } == ["close"])
                #expect(server.seen.count == 1)
            } else {
                let answers = try await client.answers(2)
                #expect(answers.map { $0["connection"] } == [keeping.connection, keeping.connection])
                client.finish()
                #expect(try await client.answersToEnd().count == 2)
            }
            await client.close()
        }
    }

    @Test func anHTTP10RequestNeedsNoHost() async throws {
        try await TestServer.run { server in
            let client = try await server.connect()
            client.send("GET /a HTTP/1.0\r\n\r\n")
            #expect(try await client.answersToEnd().map(\.text) == ["GET /a"])
            await client.close()
        }
    }

    /// Both ways to answer, at once and ahead of turn, small bodies and large.
    @Test(arguments: [3, 50_000])
    func headHasLengthButNoBodyAnd204And304HaveNeither(size: Int) async throws {
        let body = ByteBuffer(repeating: UInt8(ascii: "b"), count: size)
        let waiting = Waiting()
        try await TestServer.run(
            TestServer.Setup(handle: { request, exchange in
                let status = Int(request.target.split(separator: "/").last ?? "") ?? 500
                switch request.path {
                case "/first": waiting.add(request, exchange)
                case _ where request.target.hasPrefix("/raw"):
                    exchange.respond(status: status, contentLength: status == 200 ? size : nil) { _ in
                    } body: {
                        $0.writeImmutableBuffer(body)
                    }
                default: exchange.respond(HTTPResponse(status: status, body: body))
                }
            })
        ) { server in
            for ahead in [false, true] {
                let client = try await server.connect()
                if ahead { client.send(get("/first")) }
                for target in ["/raw/200", "/whole/200"] {
                    client.send("HEAD" + get(target).dropFirst(3) + get(target))
                }
                for target in ["/raw/204", "/whole/204", "/raw/304", "/whole/304"] {
                    client.send(get(target) + "HEAD" + get(target).dropFirst(3))
                }
                client.send(get("/whole/200"))
                if ahead {
                    try await server.wait(for: "all requests") {
                        server.seen.all.suffix(14).count == 14 && waiting.count == 1
                    }
                    waiting.answerLast()
                }
                let shift = ahead ? 1 : 0
                let answers = try await client.answers(13 + shift, heads: [shift, shift + 2]).dropFirst(shift)
                await client.close()
                #expect(
                    answers.map(\.status) == [200, 200, 200, 200] + [204, 204, 204, 204, 304, 304, 304, 304] + [200])
                let lengths = answers.map { $0["content-length"].flatMap { Int($0) } ?? -1 }
                #expect(lengths == [size, size, size, size] + Array(repeating: -1, count: 8) + [size])
                #expect(answers.map(\.body.count) == [0, size, 0, size] + Array(repeating: 0, count: 8) + [size])
            }
        }
    }

    @Test func everyAnswerHasDateAndTheHandlersFields() async throws {
        try await TestServer.run { server in
            let client = try await server.connect()
            client.send(get("/a") + "nonsense\r\n\r\n")
            let answers = try await client.answersToEnd()
            await client.close()
            #expect(answers.map(\.status) == [200, 400])
            for answer in answers {
                #expect(answer["x-common"] == "yes")
                let date = try #require(answer["date"])
                #expect(
                    date.wholeMatch(of: /(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT/)
                        != nil)
            }
        }
    }

    // MARK: Half-closed peers

    @Test func aPeerThatHasDoneSendingGetsItsAnswers() async throws {
        let waiting = Waiting()
        try await TestServer.run(
            TestServer.Setup(handle: { request, exchange in
                if request.target == "/slow" {
                    waiting.add(request, exchange)
                } else {
                    exchange.respond(TestServer.echo(of: request))
                }
            })
        ) { server in
            let client = try await server.connect()
            client.send(get("/slow") + get("/quick"))
            client.finish()
            try await server.wait(for: "both requests") { server.seen.count == 2 }
            for _ in 0..<5 { try await server.expectServing() }
            waiting.answerLast()
            #expect(try await client.answersToEnd().map(\.text) == ["GET /slow", "GET /quick"])
            try await server.wait(for: "the connection to end") { server.server.connectionCount == 0 }
            await client.close()
        }
    }

    /// Whether the end of its input or the answer comes first.
    @Test(arguments: [false, true], [false, true])
    func evenALongAnswerAndASlowReader(saysClose: Bool, endsFirst: Bool) async throws {
        let body = ByteBuffer(repeating: UInt8(ascii: "b"), count: 24 << 20)
        let exchanges = Mutex<[HTTPExchange]>([])
        let handle: TestServer.Handle = { _, exchange in
            if endsFirst {
                exchanges.withLock { $0.append(exchange) }
            } else {
                exchange.respond(HTTPResponse(status: 200, body: body))
            }
        }
        try await TestServer.run(TestServer.Setup(handle: handle)) { server in
            let client = try await server.connect(reading: false)
            client.send(get("/a", saysClose ? "Connection: close\r\n" : ""))
            client.finish()
            try await server.wait(for: "the request") { server.seen.count == 1 }
            for _ in 0..<20 { try await server.expectServing() }
            for exchange in exchanges.withLock({ $0 }) {
                exchange.eventLoop.execute { exchange.respond(HTTPResponse(status: 200, body: body)) }
            }
            for _ in 0..<20 { try await server.expectServing() }
            await client.startReading()
            let answers = try await client.answersToEnd()
            #expect(answers.map(\.body.count) == [24 << 20])
            try await server.wait(for: "the connection to end") { server.server.connectionCount == 0 }
            await client.close()
        }
    }

    @Test func aPeerThatHasGoneIsForgotten() async throws {
        let waiting = Waiting()
        try await TestServer.run(TestServer.Setup(handle: { waiting.add($0, $1) })) { server in
            let client = try await server.connect()
            client.send(get("/a") + get("/b"))
            try await server.wait(for: "both requests") { waiting.count == 2 }
            await client.close()
            // Its end of input shows at once, the reset only with the first answer.
            waiting.answerLast()
            waiting.answerLast()
            try await server.wait(for: "the connection to end") { server.server.connectionCount == 0 }
            try await server.expectServing()
        }
    }

    // MARK: Limits on connections and time

    @Test func connectionsOverTheLimitAreAnswered503() async throws {
        try await TestServer.run(TestServer.Setup(limits: { $0.connectionsMax = 2 })) { server in
            let one = try await server.connect()
            let two = try await server.connect()
            for (client, target) in [(one, "/one"), (two, "/two")] {
                client.send(get(target))
                #expect(try await client.answers(1).map(\.text) == ["GET \(target)"])
            }
            for _ in 0..<5 {
                let refused = try await server.connect()
                refused.send(get("/refused"))
                let answers = try await refused.answersToEnd()
                await refused.close()
                #expect(answers.map(\.status) == [503])
                #expect(answers.first?.closes == true)
            }
            await one.close()
            try await server.wait(for: "room") { server.server.connectionCount < 2 }
            let three = try await server.connect()
            three.send(get("/three"))
            #expect(try await three.answers(1).map(\.text) == ["GET /three"])
            await three.close()
            await two.close()
            #expect(server.seen.all.filter { $0 == "/refused" }.isEmpty)
        }
    }

    @Test func anIdleConnectionIsClosed() async throws {
        try await TestServer.run(TestServer.Setup(limits: { $0.idleTimeout = .milliseconds(60) })) { server in
            let client = try await server.connect()
            #expect(try await client.bytesToEnd().isEmpty)
            await client.close()
        }
    }

    /// Connections that send nothing, part of a head, or whole requests and then part of one.
    @Test(arguments: ["", "GET /", get("/a"), get("/a") + "GET /b HTTP/1.1\r\nHos"])
    func aConnectionIsIdleUntilAWholeHead(text: String) throws {
        let rig = try Rig { $0.idleTimeout = .seconds(75) }
        rig.loop.start()
        rig.channel.embeddedEventLoop.advanceTime(by: .seconds(40))
        try rig.channel.writeInbound(ByteBuffer(string: text))
        // Only a request makes it start again.
        let left: Int64 = text.contains("/a") ? 75 : 35
        for second in 1...left {
            #expect(rig.channel.isActive, "after \(second) seconds")
            if second % 10 == 0, !text.isEmpty, !text.hasSuffix("\r\n") {
                try rig.channel.writeInbound(ByteBuffer(string: "x"))
            }
            rig.channel.embeddedEventLoop.advanceTime(by: .seconds(1))
        }
        rig.channel.embeddedEventLoop.advanceTime(by: .seconds(2))
        #expect(!rig.channel.isActive)
        try #expect(rig.answers().count == (text.contains("/a") ? 1 : 0))
        rig.loop.stop()
    }

    @Test func aSlowBodyHasASecondForEach64KiBMore() throws {
        for (received, seconds) in [(0, 30), (1, 30), (65_536, 31), (655_360, 40)] as [(Int, Int64)] {
            let rig = try Rig { $0.requestTimeout = .seconds(30) }
            rig.loop.start()
            try rig.channel.writeInbound(
                ByteBuffer(string: "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"))
            if received > 0 { try rig.channel.writeInbound(ByteBuffer(repeating: 98, count: received)) }
            rig.channel.embeddedEventLoop.advanceTime(by: .seconds(seconds))
            try #expect(rig.answers().isEmpty)
            rig.channel.embeddedEventLoop.advanceTime(by: .seconds(2))
            try #expect(rig.answers().map(\.text) == ["timedOut"])
            rig.loop.stop()
            try rig.finish()
        }
    }

    /// Time in which the server does not read, or has not yet asked for the body, is not the sender's.
    @Test func aBodyBehindUnansweredRequestsHasTime() throws {
        for expecting in [false, true] {
            let rig = try Rig(deferring: true) {
                $0.requestTimeout = .seconds(30)
                $0.pipelinedRequestsMax = expecting ? 2 : 1
            }
            rig.loop.start()
            try rig.channel.writeInbound(
                ByteBuffer(
                    string: get("/a") + "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
                        + (expecting ? "Expect: 100-continue\r\n" : "") + "\r\n"))
            rig.channel.read()
            rig.channel.embeddedEventLoop.advanceTime(by: .seconds(100))
            try #expect(rig.answers().isEmpty)
            rig.handler.exchanges[0].respond(HTTPResponse(status: 200))
            rig.channel.embeddedEventLoop.advanceTime(by: .seconds(29))
            try #expect(rig.answers().map(\.status) == (expecting ? [200, 100] : [200]))
            try rig.channel.writeInbound(ByteBuffer(string: "body"))
            #expect(rig.handler.targets == ["/a", "/"])
            rig.loop.stop()
            try rig.finish()
        }
    }

    @Test func aPeerThatDoesNotReadIsClosed() async throws {
        let body = ByteBuffer(repeating: UInt8(ascii: "b"), count: 24 << 20)
        try await TestServer.run(
            TestServer.Setup(
                limits: { $0.idleTimeout = .seconds(5) },
                handle: { $1.respond(HTTPResponse(status: 200, body: body)) })
        ) { server in
            let client = try await server.connect(reading: false)
            client.send(get("/a"))
            try await server.wait(for: "the request") { server.seen.count == 1 }
            try await server.wait(for: "the connection to end") { server.server.connectionCount == 0 }
            await client.close()
        }
    }

    @Test func anAnswerThatTakesLongIsNotIdleness() throws {
        let rig = try Rig(deferring: true)
        rig.loop.start()
        try rig.channel.writeInbound(ByteBuffer(string: get("/slow")))
        rig.channel.embeddedEventLoop.advanceTime(by: .hours(1))
        rig.handler.exchanges[0].respond(HTTPResponse(status: 200))
        try #expect(rig.answers().map(\.status) == [200])
        rig.loop.stop()
        try rig.finish()
    }

    @Test(arguments: [
        "Content-Length: 10\r\n\r\nabc", "Content-Length: 10\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ])
    func aBodyThatDoesNotComeIsAnswered408(rest: String) async throws {
        try await TestServer.run(TestServer.Setup(limits: { $0.requestTimeout = .milliseconds(60) })) { server in
            let client = try await server.connect()
            client.send(get("/a") + "PUT /b HTTP/1.1\r\nHost: a\r\n" + rest)
            let answers = try await client.answersToEnd()
            await client.close()
            #expect(answers.map(\.status) == [200, 408])
            #expect(answers.last?.closes == true)
        }
    }

    @Test func aPeerThatNeverEndsIsCutOffAfterTheLastAnswer() async throws {
        try await TestServer.run(TestServer.Setup(limits: { $0.lingerTime = .milliseconds(60) })) { server in
            let client = try await server.connect()
            client.send(get("/a", "Connection: close\r\n"))
            _ = try await client.answersToEnd()
            try await server.wait(for: "the connection to end") { server.server.connectionCount == 0 }
            await client.close()
        }
    }

    @Test func manyLoopsServe() async throws {
        try await TestServer.run(TestServer.Setup(loops: 4)) { server in
            var clients: [RawClient] = []
            for number in 0..<40 {
                let client = try await server.connect()
                client.send(get("/\(number)"))
                clients.append(client)
            }
            for (number, client) in clients.enumerated() {
                #expect(try await client.answers(1).map(\.text) == ["GET /\(number)"])
            }
            #expect(server.server.connectionCount == 40)
            for client in clients { await client.close() }
            try await server.wait(for: "all to end") { server.server.connectionCount <= 1 }
        }
    }
}
