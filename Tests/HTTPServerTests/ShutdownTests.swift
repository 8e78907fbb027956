import NIOCore
import TestSupport
import Testing

@testable import HTTPServer

@Suite struct ShutdownTests {
    @Test func shutdownAnswersWhatIsInFlightAndCloses() async throws {
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
            let idle = try await server.connect()
            idle.send(get("/idle"))
            _ = try await idle.answers(1)
            let busy = try await server.connect()
            busy.send(get("/slow") + get("/quick"))
            let sending = try await server.connect()
            sending.send("PUT /sent HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            _ = try await sending.answers(1)
            try await server.wait(for: "the slow request") { server.seen.count == 3 }
            async let stopped: Void = server.server.shutdown(grace: .seconds(60))
            #expect(try await idle.answersToEnd().count == 1)
            sending.send("body")
            let sent = try await sending.answersToEnd()
            #expect(sent.map(\.status) == [100, 200])
            #expect(sent.last?.closes == true)
            waiting.answerLast()
            let answers = try await busy.answersToEnd()
            #expect(answers.map(\.text) == ["GET /slow", "GET /quick"])
            #expect(answers.map(\.closes) == [false, true])
            for client in [idle, busy, sending] { await client.close() }
            await stopped
            await #expect(throws: (any Error).self) { try await server.connect() }
        }
    }

    @Test func aRequestThatComesDuringShutdownIsTheLast() async throws {
        let waiting = Waiting()
        try await TestServer.run(TestServer.Setup(handle: { waiting.add($0, $1) })) { server in
            let client = try await server.connect()
            let idle = try await server.connect()
            client.send(get("/one"))
            try await server.wait(for: "the first request") { waiting.count == 1 }
            async let stopped: Void = server.server.shutdown(grace: .seconds(60))
            _ = try await idle.bytesToEnd()  // Shutting down now.
            client.send(get("/two") + get("/three"))
            try await server.wait(for: "the second request") { waiting.count == 2 }
            waiting.answerLast()
            waiting.answerLast()
            let answers = try await client.answersToEnd()
            #expect(answers.map(\.text) == ["GET /one", "GET /two"])
            #expect(answers.map(\.closes) == [false, true])
            for client in [client, idle] { await client.close() }
            await stopped
            #expect(server.seen.all == ["/one", "/two"])
        }
    }

    @Test func shutdownForcesWhatIsLeftAfterGrace() async throws {
        let waiting = Waiting()
        try await TestServer.run(TestServer.Setup(handle: { waiting.add($0, $1) })) { server in
            let never = try await server.connect()
            never.send(get("/never"))
            try await server.wait(for: "the request") { waiting.count == 1 }
            await server.server.shutdown(grace: .milliseconds(30))
            #expect(try await never.bytesToEnd().isEmpty)
            #expect(server.server.connectionCount == 0)
            waiting.answerLast()
            await never.close()
        }
    }

    @Test func shutdownSendsALongAnswerWhole() async throws {
        let body = ByteBuffer(repeating: UInt8(ascii: "b"), count: 24 << 20)
        try await TestServer.run(TestServer.Setup(handle: { $1.respond(HTTPResponse(status: 200, body: body)) })) {
            server in
            let client = try await server.connect(reading: false)
            let idle = try await server.connect()
            client.send(get("/a"))
            try await server.wait(for: "the request") { server.seen.count == 1 }
            async let stopped: Void = server.server.shutdown(grace: .seconds(60))
            _ = try await idle.bytesToEnd()
            await client.startReading()
            #expect(try await client.answersToEnd().map(\.body.count) == [24 << 20])
            await client.close()
            await idle.close()
            await stopped
        }
    }
}
