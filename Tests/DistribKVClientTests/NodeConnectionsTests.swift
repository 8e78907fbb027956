import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import TestSupport
import Testing

/// One event loop, so that one pool sees every request.
private func withConnections<Result>(
    _ configure: (inout NodeConnectionsConfiguration) -> Void = { _ in },
    _ body: (NodeConnections, any EventLoop) async throws -> Result
) async throws -> Result {
    let loop = MultiThreadedEventLoopGroup.singleton.next()
    var configuration = NodeConnectionsConfiguration()
    configure(&configuration)
    let connections = NodeConnections(group: loop, configuration: configuration)
    do {
        let result = try await body(connections, loop)
        await connections.shutdown()
        return result
    } catch {
        await connections.shutdown()
        throw error
    }
}

/// Deadlines that no test means to reach.
private var ample: NIODeadline { .now() + .seconds(30) }

private func get(_ target: String) -> NodeRequest { NodeRequest(method: .GET, target: target) }

private func body(of future: EventLoopFuture<NodeResponse>) async throws -> String {
    try await String(buffer: future.get().body)
}

private func failure(of future: EventLoopFuture<NodeResponse>) async throws -> NodeFailure {
    do {
        let response = try await future.get()
        throw KVError(.internalError, "expected a failure, got \(response.status)")
    } catch let failure as NodeFailure {
        return failure
    }
}

@Suite struct NodeConnectionsTests {
    /// Half of an answer holds its bytes; they are given back when it ends, and when its connection breaks.
    @Test func answersOnTheirWayAreBounded() async throws {
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + String(repeating: "a", count: 700)
        let server = try await ScriptedServer.start { request in
            request.target == "/half" ? .raw(half) : .answer(.init(200, body: String(repeating: "b", count: 700)))
        }
        try await withConnections {
            $0.responseBodyBytesMax = 1_000
            $0.responseBodiesBytesMax = 1_000
        } _: { connections, loop in
            var seen = 0
            while seen < 3 {
                let slow = connections.execute(
                    get("/half"), to: server.address, on: loop, deadline: .now() + .milliseconds(500))
                let ended = Mutex(false)
                slow.whenComplete { _ in ended.withLock { $0 = true } }
                // Until the half is there, others fit; from then on none does.
                var refusal: NodeFailure?
                while refusal == nil, !ended.withLock({ $0 }) {
                    let other = connections.execute(get("/whole"), to: server.address, on: loop, deadline: ample)
                    do { _ = try await other.get() } catch { refusal = error as? NodeFailure }
                }
                let ending = try await failure(of: slow)
                #expect(ending.error.code == .timedOut)
                guard refusal != nil else { continue }  // It came too late on a busy machine.
                seen += 1
                #expect(refusal?.error.code == .overloaded && refusal?.delivery == .possiblySent)
                let next = connections.execute(get("/whole"), to: server.address, on: loop, deadline: ample)
                let size = try await next.get().body.readableBytes
                #expect(size == 700)
            }
        }
        try await server.stop()
    }

    @Test func aRequestArrivesAsItWasGivenAndItsAnswerToo() async throws {
        let server = try await ScriptedServer.start { _ in
            .answer(.init(200, [("kv-version", "00000000000000ff"), ("kv-epoch", "7")], body: "value"))
        }
        try await withConnections { connections, _ in
            let request = NodeRequest(
                method: .PUT, target: "/kv/a%20b?x=1", headers: [("kv-min-version", "00000000000000fe")],
                body: ByteBuffer(string: "content"))
            let response = try await connections.execute(request, to: server.address, deadline: ample)
            #expect(response.status == 200)
            #expect(String(buffer: response.body) == "value")
            #expect(response.version == Version(rawValue: 255))
            #expect(response.epoch == 7)
            let received = try #require(server.requests.first)
            #expect(received.method == .PUT)
            #expect(received.target == "/kv/a%20b?x=1")
            #expect(received.body == "content")
            #expect(received.headers["host"] == ["\(server.address)"])
            #expect(received.headers["content-length"] == ["7"])
            #expect(received.headers["kv-min-version"] == ["00000000000000fe"])
        }
    }

    @Test(arguments: [0, 1, 16_384, 16_385, 1_000_000]) func bodiesOfAnySizeArriveWhole(size: Int) async throws {
        let server = try await ScriptedServer.start { .answer(.init(200, body: $0.body)) }
        let body = String((0..<size).map { Character(Unicode.Scalar(UInt8(97 + $0 % 23))) })
        try await withConnections { connections, _ in
            let request = NodeRequest(method: .PUT, target: "/kv/k", body: ByteBuffer(string: body))
            let response = try await connections.execute(request, to: server.address, deadline: ample)
            #expect(server.requests.map(\.body) == [body])
            #expect(String(buffer: response.body) == body)
        }
    }

    @Test func requestsOneAfterTheOtherShareAConnection() async throws {
        let server = try await ScriptedServer.start { .answer(.init(200, body: $0.target)) }
        try await withConnections { connections, loop in
            for index in 0..<20 {
                let response = try await connections.execute(
                    get("/\(index)"), to: server.address, on: loop, deadline: ample
                ).get()
                #expect(String(buffer: response.body) == "/\(index)")
            }
            #expect(server.connectionCount == 1)
        }
    }

    @Test func connectionsToANodeAreBoundedAndTheRestWait() async throws {
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let server = try await ScriptedServer.start { .wait(gate.futureResult, .init(200, body: $0.target)) }
        try await withConnections {
            $0.connectionsPerNodeMax = 3
        } _: { connections, loop in
            let futures = (0..<10).map {
                connections.execute(get("/\($0)"), to: server.address, on: loop, deadline: ample)
            }
            try await eventually("three requests arrive") { server.requests.count == 3 }
            gate.succeed()
            for (index, future) in futures.enumerated() {
                #expect(try await body(of: future) == "/\(index)")
            }
            #expect(server.connectionCount == 3)
            #expect(try await connections.openConnections(to: server.address) == 3)
        }
    }

    @Test func waitersAreBoundedInNumber() async throws {
        let server = try await ScriptedServer.start { _ in .hold }
        try await withConnections {
            $0.connectionsPerNodeMax = 1
            $0.waitersPerNodeMax = 2
        } _: { connections, loop in
            let first = connections.execute(get("/0"), to: server.address, on: loop, deadline: ample)
            try await eventually("the first arrives") { server.requests.count == 1 }
            let waiting = (1...2).map {
                connections.execute(get("/\($0)"), to: server.address, on: loop, deadline: ample)
            }
            let refused = try await failure(
                of: connections.execute(get("/3"), to: server.address, on: loop, deadline: ample))
            #expect(refused.error.code == .overloaded)
            #expect(refused.delivery == .notSent)
            await connections.shutdown()
            #expect(try await failure(of: first).delivery == .possiblySent)
            for future in waiting {
                let failure = try await failure(of: future)
                #expect(failure.error.code == .cancelled)
                #expect(failure.delivery == .notSent)
            }
        }
    }

    @Test func waitersAreBoundedInBytes() async throws {
        let server = try await ScriptedServer.start { _ in .hold }
        try await withConnections {
            $0.connectionsPerNodeMax = 1
            $0.waitingBodyBytesMax = 100
        } _: { connections, loop in
            let put = NodeRequest(method: .PUT, target: "/kv/k", body: ByteBuffer(repeating: 0, count: 60))
            let first = connections.execute(put, to: server.address, on: loop, deadline: ample)
            try await eventually("the first arrives") { server.requests.count == 1 }
            let waiting = connections.execute(put, to: server.address, on: loop, deadline: ample)
            let refused = try await failure(
                of: connections.execute(put, to: server.address, on: loop, deadline: ample))
            #expect(refused.error.code == .overloaded)
            await connections.shutdown()
            _ = try await failure(of: first)
            _ = try await failure(of: waiting)
        }
    }

    private static func brief(_ target: String) -> NodeRequest {
        var request = get(target)
        request.isBrief = true
        return request
    }

    /// - Returns: the answers' bodies, of requests that one turn of the event loop sends.
    private func inOneTurn(
        _ requests: [NodeRequest], _ connections: NodeConnections, to server: ScriptedServer, on loop: any EventLoop
    ) async throws -> [String] {
        let answers = try await loop.submit {
            requests.map { connections.execute($0, to: server.address, on: loop, deadline: ample) }
        }.get()
        var bodies: [String] = []
        for answer in answers { bodies.append(try await body(of: answer)) }
        return bodies
    }

    @Test func briefRequestsOfOneTurnShareAConnection() async throws {
        let server = try await ScriptedServer.start { .answer(.init(200, body: "\($0.target) \($0.connection)")) }
        try await withConnections {
            $0.briefRequestsAtOnceMax = 4
        } _: { connections, loop in
            // The connections that there will be are made first.
            _ = try await inOneTurn((0..<3).map { get("/first/\($0)") }, connections, to: server, on: loop)
            let made = server.connectionCount
            let answers = try await inOneTurn(
                (0..<10).map { NodeConnectionsTests.brief("/\($0)") }, connections, to: server, on: loop)
            #expect(answers.map { $0.split(separator: " ")[0] } == (0..<10).map { "/\($0)" })
            // Four on the first, four on the second, the rest on the third.
            let used = answers.map { $0.split(separator: " ")[1] }
            #expect(made == 3 && server.connectionCount == 3)
            #expect(Set(used[0..<4]).count == 1 && Set(used[4..<8]).count == 1 && Set(used[8..<10]).count == 1)
            #expect(Set(used).count == 3)
        }
        try await server.stop()
    }

    @Test func othersStayAlone() async throws {
        let server = try await ScriptedServer.start { .answer(.init(200, body: "\($0.connection)")) }
        try await withConnections {
            $0.briefRequestsAtOnceMax = 4
        } _: { connections, loop in
            _ = try await inOneTurn((0..<4).map { get("/first/\($0)") }, connections, to: server, on: loop)
            let used = try await inOneTurn(
                [get("/long/1"), NodeConnectionsTests.brief("/1"), get("/long/2"), NodeConnectionsTests.brief("/2")],
                connections, to: server, on: loop)
            #expect(used[1] == used[3])
            #expect(Set(used).count == 3)
        }
        try await server.stop()
    }

    @Test func aBriefRequestDoesNotWaitBehindEarlierTurns() async throws {
        let server = try await ScriptedServer.start { request in
            request.target == "/stuck" ? .hold : .answer(.init(200, body: "\(request.connection)"))
        }
        try await withConnections {
            $0.briefRequestsAtOnceMax = 4
        } _: { connections, loop in
            let stuck = connections.execute(
                NodeConnectionsTests.brief("/stuck"), to: server.address, on: loop, deadline: .now() + .seconds(5))
            try await eventually("the request is there") { server.requests.count == 1 }
            let answers = try await inOneTurn([NodeConnectionsTests.brief("/1")], connections, to: server, on: loop)
            #expect(answers == ["1"])
            connections.cancel(stuck, to: server.address, on: loop)
            _ = try await failure(of: stuck)
        }
        try await server.stop()
    }

    @Test func pipelinedRequestsAreSentWithoutWaitingAndAnsweredInOrder() async throws {
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let server = try await ScriptedServer.start { .wait(gate.futureResult, .init(200, body: $0.target)) }
        try await withConnections {
            $0.connectionsPerNodeMax = 1
            $0.pipeliningDepthMax = 64
        } _: { connections, loop in
            let futures = (0..<64).map {
                connections.execute(get("/\($0)"), to: server.address, on: loop, deadline: ample)
            }
            try await eventually("all arrive before any is answered") { server.requests.count == 64 }
            #expect(server.requests.map(\.target) == (0..<64).map { "/\($0)" })
            gate.succeed()
            for (index, future) in futures.enumerated() {
                #expect(try await body(of: future) == "/\(index)")
            }
            #expect(server.connectionCount == 1)
        }
    }

    @Test func headThenGetOnOneConnectionAreToldApart() async throws {
        let server = try await ScriptedServer.start { _ in .answer(.init(200, body: "12345")) }
        try await withConnections {
            $0.connectionsPerNodeMax = 1
        } _: { connections, loop in
            for method in [HTTPMethod.HEAD, .GET, .HEAD, .HEAD, .GET] {
                let request = NodeRequest(method: method, target: "/kv/k")
                let response = try await connections.execute(request, to: server.address, on: loop, deadline: ample)
                    .get()
                #expect(response.headers["content-length"] == ["5"])
                #expect(response.body.readableBytes == (method == .HEAD ? 0 : 5))
            }
            #expect(server.connectionCount == 1)
        }
    }

    @Test func aDeadlineFailsItsRequestAndClosesTheConnection() async throws {
        let server = try await ScriptedServer.start { $0.target == "/slow" ? .hold : .answer(.init(204)) }
        try await withConnections { connections, loop in
            // On a busy machine the shortest deadline can pass before the request has left: then a longer one follows.
            for milliseconds in [Int64(30), 300, 3_000] where server.requests.isEmpty {
                let deadline = NIODeadline.now() + .milliseconds(milliseconds)
                let slow = try await failure(
                    of: connections.execute(get("/slow"), to: server.address, on: loop, deadline: deadline))
                #expect(slow.error.code == .timedOut)
                if !server.requests.isEmpty { #expect(slow.delivery == .possiblySent) }
            }
            #expect(!server.requests.isEmpty)
            let connectionsBefore = server.connectionCount
            let next = try await connections.execute(get("/quick"), to: server.address, on: loop, deadline: ample).get()
            #expect(next.status == 204)
            #expect(server.connectionCount == connectionsBefore + 1)
        }
    }

    @Test func aPassedDeadlineSendsNothing() async throws {
        let server = try await ScriptedServer.start { _ in .answer(.init(204)) }
        try await withConnections { connections, loop in
            let late = try await failure(
                of: connections.execute(get("/"), to: server.address, on: loop, deadline: .now() - .seconds(1)))
            #expect(late.error.code == .timedOut)
            #expect(late.delivery == .notSent)
            #expect(server.requests.isEmpty)
        }
    }

    @Test func aWaiterTimesOutUnsentWhileOthersGoOn() async throws {
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let server = try await ScriptedServer.start { _ in .wait(gate.futureResult, .init(204)) }
        try await withConnections {
            $0.connectionsPerNodeMax = 1
        } _: { connections, loop in
            let first = connections.execute(get("/0"), to: server.address, on: loop, deadline: ample)
            try await eventually("the first arrives") { server.requests.count == 1 }
            let patient = connections.execute(get("/1"), to: server.address, on: loop, deadline: ample)
            let hasty = connections.execute(
                get("/2"), to: server.address, on: loop, deadline: .now() + .milliseconds(30))
            let failure = try await failure(of: hasty)
            #expect(failure.error.code == .timedOut)
            #expect(failure.delivery == .notSent)
            gate.succeed()
            #expect(try await first.get().status == 204)
            #expect(try await patient.get().status == 204)
            #expect(server.requests.map(\.target) == ["/0", "/1"])
        }
    }

    @Test func aPipelinedDeadlineLeavesTheOthersAndItsLateAnswerIsDropped() async throws {
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let server = try await ScriptedServer.start { request in
            request.target == "/new"
                ? .answer(.init(200, body: "new")) : .wait(gate.futureResult, .init(200, body: request.target))
        }
        try await withConnections {
            $0.connectionsPerNodeMax = 2
            $0.pipeliningDepthMax = 8
        } _: { connections, loop in
            let warm = try await connections.execute(get("/new"), to: server.address, on: loop, deadline: ample).get()
            #expect(warm.status == 200)
            let hasty = connections.execute(
                get("/hasty"), to: server.address, on: loop, deadline: .now() + .milliseconds(50))
            let patient = connections.execute(get("/patient"), to: server.address, on: loop, deadline: ample)
            #expect(try await failure(of: hasty).error.code == .timedOut)
            gate.succeed()
            #expect(try await body(of: patient) == "/patient")
        }
    }

    @Test func aLargerBodyThanAllowedFailsItsRequestOnly() async throws {
        let server = try await ScriptedServer.start {
            .answer(.init(200, body: $0.target == "/big" ? String(repeating: "x", count: 200_001) : "ok"))
        }
        try await withConnections {
            $0.responseBodyBytesMax = 200_000
        } _: { connections, loop in
            let failure = try await failure(
                of: connections.execute(get("/big"), to: server.address, on: loop, deadline: ample))
            #expect(failure.error.code == .invalidData)
            let next = try await connections.execute(get("/small"), to: server.address, on: loop, deadline: ample).get()
            #expect(String(buffer: next.body) == "ok")
        }
    }

    @Test func aBrokenConnectionFailsExactlyItsRequests() async throws {
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let server = try await ScriptedServer.start { request in
            request.target == "/break" ? .close : .wait(gate.futureResult, .init(200, body: request.target))
        }
        try await withConnections {
            $0.connectionsPerNodeMax = 4
        } _: { connections, loop in
            let others = (0..<3).map {
                connections.execute(get("/\($0)"), to: server.address, on: loop, deadline: ample)
            }
            let broken = try await failure(
                of: connections.execute(get("/break"), to: server.address, on: loop, deadline: ample))
            #expect(broken.error.code == .unavailable)
            #expect(broken.delivery == .possiblySent)
            gate.succeed()
            for (index, future) in others.enumerated() {
                #expect(try await body(of: future) == "/\(index)")
            }
        }
    }

    @Test func aBrokenPipelineFailsWhatWasBehindAndKeepsWhatWasAnswered() async throws {
        let server = try await ScriptedServer.start { request in
            request.target == "/3" ? .close : .answer(.init(200, body: request.target))
        }
        try await withConnections {
            $0.connectionsPerNodeMax = 1
            $0.pipeliningDepthMax = 16
        } _: { connections, loop in
            let futures = (0..<6).map {
                connections.execute(get("/\($0)"), to: server.address, on: loop, deadline: ample)
            }
            for index in 0..<3 {
                let answered = try await body(of: futures[index])
                #expect(answered == "/\(index)")
            }
            for index in 3..<6 {
                let failure = try await failure(of: futures[index])
                #expect(failure.delivery == .possiblySent)
            }
        }
    }

    @Test func whatComesAfterConnectionCloseIsSafeToRetryEvenAPost() async throws {
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let server = try await ScriptedServer.start { _ in
            .wait(gate.futureResult, .init(200, [("connection", "close")]))
        }
        try await withConnections {
            $0.connectionsPerNodeMax = 1
            $0.pipeliningDepthMax = 4
        } _: { connections, loop in
            let post = NodeRequest(method: .POST, target: "/kv/k?incr=1")
            let first = connections.execute(post, to: server.address, on: loop, deadline: ample)
            let second = connections.execute(post, to: server.address, on: loop, deadline: ample)
            try await eventually("both arrive") { server.requests.count == 2 }
            gate.succeed()
            #expect(try await first.get().status == 200)
            let failure = try await failure(of: second)
            #expect(failure.delivery == .notSent)
            #expect(failure.isSafeToRetry(post))
        }
    }

    @Test func anAnswerThatClosesIsNotReused() async throws {
        let server = try await ScriptedServer.start { _ in
            .answerAndClose(.init(200, [("connection", "close")], body: "once"))
        }
        try await withConnections { connections, loop in
            for _ in 0..<5 {
                let response = try await connections.execute(
                    get("/"), to: server.address, on: loop, deadline: ample
                ).get()
                #expect(String(buffer: response.body) == "once")
            }
            #expect(server.connectionCount == 5)
        }
    }

    @Test(arguments: [
        "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 abc Bad\r\n\r\n", "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "\u{0}\u{1}\u{2}\u{3}",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ]) func garbageFailsTheRequest(bytes: String) async throws {
        let server = try await ScriptedServer.start { _ in .raw(bytes) }
        try await withConnections { connections, loop in
            let failure = try await failure(
                of: connections.execute(get("/"), to: server.address, on: loop, deadline: ample))
            #expect(failure.error.code == .invalidData)
            #expect(failure.delivery == .possiblySent)
        }
    }

    @Test func aSecondAnswerToOneRequestIsNotTakenForTheNext() async throws {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"
        let server = try await ScriptedServer.start { request in
            request.target == "/twice" ? .raw(ok + "one" + ok + "two") : .answer(.init(200, body: "right"))
        }
        try await withConnections {
            $0.connectionsPerNodeMax = 1
        } _: { connections, loop in
            // The next request is made inside the callback of the first, before the surplus answer is parsed.
            let next = connections.execute(get("/twice"), to: server.address, on: loop, deadline: ample).flatMap { _ in
                connections.execute(get("/next"), to: server.address, on: loop, deadline: ample)
            }
            do {
                #expect(try await body(of: next) == "right")
            } catch let failure as NodeFailure {
                #expect(failure.delivery == .notSent)
            }
            let after = try await connections.execute(get("/after"), to: server.address, on: loop, deadline: ample)
                .get()
            #expect(String(buffer: after.body) == "right")
        }
    }

    @Test func nobodyListening() async throws {
        let port = try DeafPort()
        let address = port.address
        try await withConnections { connections, loop in
            let failures = (0..<40).map { connections.execute(get("/\($0)"), to: address, on: loop, deadline: ample) }
            for future in failures {
                let failure = try await failure(of: future)
                #expect(failure.error.code == .unavailable)
                #expect(failure.delivery == .notSent)
                #expect(failure.description.contains("cannot connect to \(address)"))
            }
        }
    }

    @Test func hostNamesAreResolved() async throws {
        let server = try await ScriptedServer.start { _ in .answer(.init(204)) }
        let named = NodeAddress(host: "localhost", port: server.address.port)
        try await withConnections { connections, _ in
            let response = try await connections.execute(get("/"), to: named, deadline: ample)
            #expect(response.status == 204)
        }
    }

    @Test func idleConnectionsAreClosed() async throws {
        let server = try await ScriptedServer.start { _ in .answer(.init(204)) }
        try await withConnections {
            $0.idleTimeout = .milliseconds(20)
        } _: { connections, loop in
            _ = try await connections.execute(get("/"), to: server.address, on: loop, deadline: ample).get()
            try await eventually("the idle connection closes") {
                try await connections.openConnections(to: server.address) == 0
            }
            let again = try await connections.execute(get("/"), to: server.address, on: loop, deadline: ample).get()
            #expect(again.status == 204)
        }
    }

    @Test func anIdleConnectionThatTheNodeClosedIsNotUsed() async throws {
        let server = try await ScriptedServer.start { _ in .answerAndClose(.init(204)) }
        try await withConnections { connections, loop in
            for _ in 0..<10 {
                _ = try await connections.execute(get("/"), to: server.address, on: loop, deadline: ample).get()
                try await eventually("the pool notices") {
                    try await connections.openConnections(to: server.address) == 0
                }
            }
            #expect(server.connectionCount == 10)
        }
    }

    @Test(arguments: [
        NodeRequest(method: .GET, target: "/a b"), NodeRequest(method: .GET, target: ""),
        NodeRequest(method: .GET, target: "http://other/"), NodeRequest(method: .GET, target: "/a\r\nx: y"),
        NodeRequest(method: .GET, target: "/é"),
        NodeRequest(method: .GET, target: "/", headers: [("x", "a\r\ny: b")]),
        NodeRequest(method: .GET, target: "/", headers: [("x y", "a")]),
        NodeRequest(method: .GET, target: "/", headers: [("", "a")]),
        NodeRequest(method: .GET, target: "/", headers: [("Content-Length", "5")]),
        NodeRequest(method: .GET, target: "/", headers: [("host", "other")]),
    ]) func aRequestThatWouldBreakItsLineIsRefused(request: NodeRequest) async throws {
        let address = NodeAddress(host: "127.0.0.1", port: 1)
        try await withConnections { connections, loop in
            let failure = try await failure(of: connections.execute(request, to: address, on: loop, deadline: ample))
            #expect(failure.error.code == .invalidArgument)
            #expect(failure.delivery == .notSent)
        }
    }

    @Test func idempotenceDecidesWhatMayBeRepeated() {
        let sent = NodeFailure(
            address: NodeAddress(host: "h", port: 1), delivery: .possiblySent, error: KVError(.unavailable, ""))
        var unsent = sent
        unsent.delivery = .notSent
        let cases: [(NodeRequest, Bool)] = [
            (NodeRequest(method: .GET, target: "/"), true), (NodeRequest(method: .HEAD, target: "/"), true),
            (NodeRequest(method: .PUT, target: "/"), true), (NodeRequest(method: .DELETE, target: "/"), true),
            (NodeRequest(method: .POST, target: "/"), false),
            (NodeRequest(method: .PUT, target: "/", headers: [("If-None-Match", "*")]), false),
            (NodeRequest(method: .DELETE, target: "/", headers: [("if-match", "\"0\"")]), false),
        ]
        for (request, expected) in cases {
            #expect(sent.isSafeToRetry(request) == expected)
            #expect(unsent.isSafeToRetry(request))
        }
    }
}
