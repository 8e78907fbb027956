import NIOCore
import NIOEmbedded
import NIOHTTP1
import TestSupport
import Testing

@testable import HTTPServer

@Suite struct BodyTests {
    private let interim = "HTTP/1.1 100 Continue\r\n\r\n"
    private let expecting = "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"

    @Test(arguments: ["100-continue", "100-Continue"])
    func aBodyWithinTheLimitIsAskedFor(expectation: String) async throws {
        try await TestServer.run { server in
            let client = try await server.connect()
            for round in 0..<3 {
                client.send(expecting.replacing("100-continue", with: expectation))
                let asked = try await client.answers(2 * round + 1)
                #expect(asked.last?.status == 100)
                client.send("body")
                #expect(try await client.answers(2 * round + 2).last?.text == "PUT /a body")
            }
            await client.close()
        }
    }

    @Test(arguments: ["", "body", "bodyGET /next HTTP/1.1\r\nHost: a\r\n\r\n"])
    func aBodyThatIsNotNeededIsNotAskedFor(sentAllTheSame: String) async throws {
        try await TestServer.run { server in
            let client = try await server.connect()
            client.send(get("/first") + expecting.replacing("/a", with: "/bodiless") + sentAllTheSame)
            let answers = try await client.answersToEnd()
            await client.close()
            #expect(answers.map(\.status) == [200, 200])
            #expect(answers.map(\.text) == ["GET /first", "PUT /bodiless"])
            #expect(server.seen.all == ["/first", "/bodiless"])
        }
    }

    @Test func aBodyThatDoesNotWaitIsNotAskedForLate() async throws {
        try await TestServer.run { server in
            let client = try await server.connect()
            client.send(expecting + "body" + get("/b", "Connection: close\r\n"))
            let answers = try await client.answersToEnd()
            await client.close()
            #expect(answers.filter { $0.status != 100 }.map(\.text) == ["PUT /a body", "GET /b"])
            // Before the body, if at all.
            #expect(answers.firstIndex { $0.status == 100 } ?? 0 == 0)
        }
    }

    @Test func askingWaitsForTheAnswersBeforeIt() async throws {
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
            client.send(get("/slow") + expecting)
            try await server.wait(for: "the slow request") { waiting.count == 1 }
            waiting.answerLast()
            #expect(try await client.answers(2).map(\.status) == [200, 100])
            client.send("body")
            #expect(try await client.answers(3).map(\.text) == ["GET /slow", "", "PUT /a body"])
            await client.close()
        }
    }

    @Test func anHTTP10PeerIsNotAsked() async throws {
        try await TestServer.run { server in
            let client = try await server.connect()
            client.send(expecting.replacing("HTTP/1.1", with: "HTTP/1.0") + "body")
            let answers = try await client.answersToEnd()
            await client.close()
            #expect(answers.map(\.text) == ["PUT /a body"])
        }
    }

    @Test func theLimitIsTheHandlersForThisRequest() async throws {
        try await TestServer.run(
            TestServer.Setup(bodyBytesMax: { method, target in
                method == .PUT && target == "/large" ? 100 : 10
            })
        ) { server in
            let hundred = String(repeating: "b", count: 100)
            for (request, status) in [
                (put("/large", hundred), 200), (put("/large", hundred + "b"), 413), (put("/small", hundred), 413),
                (put("/small", "0123456789"), 200), ("POST" + put("/large", hundred).dropFirst(3), 413),
            ] {
                let client = try await server.connect()
                client.send(request)
                client.finish()
                #expect(try await client.answersToEnd().map(\.status) == [status])
                await client.close()
            }
        }
    }

    @Test func aBodyComesWholeHoweverItIsCut() async throws {
        let body = String((0..<300_000).map { _ in "abcdefgh".randomElement() ?? "a" })
        try await TestServer.run { server in
            for chunked in [false, true] {
                let client = try await server.connect()
                var bytes = Array(put("/a", body).utf8)
                if chunked {
                    var text = "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                    var rest = body[...]
                    while !rest.isEmpty {
                        let piece = rest.prefix(1 + rest.count % 7_001)
                        text += String(piece.utf8.count, radix: 16) + "\r\n" + piece + "\r\n"
                        rest = rest.dropFirst(piece.count)
                    }
                    bytes = Array((text + "0\r\n\r\n").utf8)
                }
                var rest = bytes[...]
                while !rest.isEmpty {
                    client.send(Array(rest.prefix(9_973)))
                    rest = rest.dropFirst(9_973)
                }
                let answer = try await client.answers(1)[0]
                #expect(answer.text == "PUT /a " + body)
                await client.close()
            }
        }
    }

    @Test func theBudgetForBodiesIsSharedAndGivenBack() async throws {
        let waiting = Waiting()
        let body = String(repeating: "b", count: 60)
        let chunkedBody = "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3c\r\n\(body)\r\n0\r\n\r\n"
        try await TestServer.run(
            TestServer.Setup(
                limits: { $0.bufferedBodyBytesMax = 100 },
                handle: { request, exchange in
                    if request.target == "/hold" {
                        waiting.add(request, exchange)
                    } else {
                        exchange.respond(HTTPResponse(status: 200))
                    }
                })
        ) { server in
            for _ in 0..<3 {
                let holder = try await server.connect()
                holder.send(put("/hold", body))
                try await server.wait(for: "the body that fills the budget") { waiting.count == 1 }
                for request in [put("/b", body), chunkedBody, expecting.replacing("h: 4", with: "h: 60")] {
                    let client = try await server.connect()
                    client.send(request)
                    let answers = try await client.answersToEnd()
                    #expect(answers.map(\.status) == [503])
                    await client.close()
                }
                let small = try await server.connect()
                small.send(put("/b", String(repeating: "b", count: 40)) + get("/"))
                #expect(try await small.answers(2).map(\.status) == [200, 200])
                await small.close()
                waiting.answerLast()
                #expect(try await holder.answers(1).map(\.status) == [200])
                // The same connection, and more than the whole budget where nothing else is held.
                holder.send(put("/b", body) + chunkedBody + put("/b", body + body + body))
                #expect(try await holder.answers(4).map(\.status) == [200, 200, 200, 200])
                await holder.close()
            }
        }
    }

    @Test func aBodyOverTheBudgetDoesNotHoldUpRequestsWithout() async throws {
        let waiting = Waiting()
        let handle: TestServer.Handle = { request, exchange in
            if request.target == "/hold" {
                waiting.add(request, exchange)
            } else {
                exchange.respond(TestServer.echo(of: request))
            }
        }
        try await TestServer.run(TestServer.Setup(limits: { $0.bufferedBodyBytesMax = 100 }, handle: handle)) {
            server in
            let holder = try await server.connect()
            holder.send(put("/hold", String(repeating: "b", count: 500)))
            try await server.wait(for: "the large body") { waiting.count == 1 }
            let client = try await server.connect()
            client.send(get("/a") + put("/b", "") + put("/c", "c"))
            #expect(try await client.answersToEnd().map(\.status) == [200, 200, 503])
            await client.close()
            waiting.answerLast()
            #expect(try await holder.answers(1).map(\.status) == [200])
            await holder.close()
        }
    }

    /// Every way a body can end gives its bytes back.
    @Test func abandonedBodiesGiveTheirBudgetBack() throws {
        let body = String(repeating: "b", count: 60)
        let streams = [
            put("/a", body).dropLast(10) + "",  // The peer goes away in the middle,
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n",  // or before it,
            put("/a", body) + put("/b", body),  // with requests that are not answered,
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3c\r\n\(body)\r\nz",  // after nonsense,
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3c\r\n\(body)\r\nffffff\r\n" + body,
            put("/a", body) + put("/b", body) + put("/c", body) + put("/d", body) + put("/e", body),
        ]
        for (number, stream) in streams.enumerated() {
            for deferring in [false, true] {
                let rig = try Rig(deferring: deferring) {
                    $0.bufferedBodyBytesMax = 200
                    $0.pipelinedRequestsMax = 2
                }
                try rig.channel.writeInbound(ByteBuffer(string: stream))
                try rig.finish()
                // All of it can be had again, which needs nothing else to be held.
                #expect(rig.loop.reserve(1_000_000), "stream \(number)")
                rig.loop.release(1_000_000)
            }
        }
    }

    @Test func aRefusedBodyIsReadToItsEndSoThatTheAnswerArrives() async throws {
        try await TestServer.run(TestServer.Setup(bodyBytesMax: { _, _ in 1_000 })) { server in
            // More than the sockets' buffers hold: a server that closed at once would reset the connection.
            let client = try await server.connect(reading: false)
            client.send(put("/a", String(repeating: "b", count: 24 << 20)))
            client.finish()
            await client.startReading()
            #expect(try await client.answersToEnd().map(\.status) == [413])
            await client.close()
        }
    }
}
