import Configuration
import Core
import DistribKVClient
import HTTPServer
import NIOCore
import NIOHTTP1
import NIOPosix
import ServiceSupport
import TestSupport
import Testing
import Wire

@testable import RouterService

@Suite struct ProxyTests {
    private func value(_ text: String, status: Int = 200) -> HTTPResponse {
        HTTPResponse(
            status: status,
            headers: [
                (name: "content-type", value: "application/octet-stream"),
                (name: "etag", value: "\"00000000000000ff\""),
                (name: "kv-version", value: "00000000000000ff"), (name: "x-internal", value: "secret"),
            ], body: ByteBuffer(string: text))
    }

    private func redirect(to address: NodeAddress, _ target: String, status: Int = 307) -> HTTPResponse {
        HTTPResponse(status: status, headers: [(name: "location", value: "http://\(address)\(target)")])
    }

    @Test func theNodesAnswerComesBack() async throws {
        let node = try await FakeNode.start()
        node.knows(try topology(epoch: 1, [[node.address]]))
        let answer = value("content")
        node.answers { _ in .answer(answer) }
        try await withRouter(try topology([[node.address]])) { client async throws in
            let response = try await client.send(
                .PUT, "/kv/a%2Fb?proxy=true&x=1",
                headers: [
                    ("content-type", "text/plain"), ("If-Match", "\"01\""), ("kv-min-version", "00000000000000aa"),
                    ("kv-epoch", "9"), ("cookie", "c"),
                ], body: "sent")
            #expect(response.status == 200)
            #expect(String(buffer: response.body) == "content")
            #expect(response.headers.first(name: "etag") == "\"00000000000000ff\"")
            #expect(response.headers.first(name: "kv-version") == "00000000000000ff")
            #expect(response.headers.first(name: "content-type") == "application/octet-stream")
            #expect(response.headers["x-internal"].isEmpty)
            #expect(response.headers["kv-epoch"] == ["1"])
            let received = try #require(node.received.first)
            #expect(received.method == .PUT)
            #expect(received.target == "/kv/a%2Fb?x=1")
            #expect(received.body == "sent")
            #expect(received.headers.first(name: "content-type") == "text/plain")
            #expect(received.headers.first(name: "if-match") == "\"01\"")
            #expect(received.headers.first(name: "kv-min-version") == "00000000000000aa")
            #expect(received.headers["kv-epoch"].isEmpty)
            #expect(received.headers["cookie"].isEmpty)
        }
        await node.stop()
    }

    @Test func theModeDecidesUnlessTheRequestDoes() async throws {
        let node = try await FakeNode.start()
        try await withRouter(try topology([[node.address]])) {
            $0.mode = .proxy
        } _: { client async throws in
            #expect(try await client.send(.GET, "/kv/a").status == 200)
            #expect(try await client.send(.GET, "/kv/a?proxy").status == 200)
            #expect(try await client.send(.GET, "/kv/a?proxy=false").status == 307)
            #expect(try await client.status().mode == "proxy")
            #expect(node.received.map(\.target) == ["/kv/a", "/kv/a"])
        }
        await node.stop()
    }

    @Test func answersWithoutContentStayThat() async throws {
        let node = try await FakeNode.start()
        let (head, gone) = (value("12345"), HTTPResponse(problem: Problem(.notFound, "No.")))
        node.answers { request in
            switch (request.method, request.target) {
            case (.HEAD, _): .answer(head)
            case (.DELETE, _): .answer(HTTPResponse(status: 204, headers: [(name: "kv-version", value: "0f")]))
            case (_, "/kv/gone"): .answer(gone)
            default: .answer(HTTPResponse(status: 304, headers: [(name: "etag", value: "\"1\"")]))
            }
        }
        try await withRouter(try topology([[node.address]])) { client async throws in
            let head = try await client.send(.HEAD, "/kv/a?proxy=true")
            #expect(head.status == 200)
            #expect(head.headers["content-length"] == ["5"])
            #expect(head.headers.first(name: "etag") == "\"00000000000000ff\"")
            let delete = try await client.send(.DELETE, "/kv/a?proxy=true")
            #expect(delete.status == 204)
            #expect(delete.headers["content-length"].isEmpty)
            #expect(delete.headers.first(name: "kv-version") == "0f")
            #expect(try await client.send(.GET, "/kv/a?proxy=true").status == 304)
            let gone = try await client.send(.GET, "/kv/gone?proxy=true")
            #expect(try problem(gone).type == "not-found")
        }
        await node.stop()
    }

    @Test func largeValuesGoBothWays() async throws {
        let node = try await FakeNode.start()
        node.answers { .answer(HTTPResponse(status: 200, body: ByteBuffer(string: $0.body))) }
        let text = String(repeating: "0123456789abcdef", count: 200_000)
        try await withRouter(try topology([[node.address]])) { client async throws in
            let response = try await client.send(.PUT, "/kv/a?proxy=true", body: text)
            #expect(response.status == 200)
            #expect(String(buffer: response.body) == text)
        }
        await node.stop()
    }

    @Test(arguments: [307, 308]) func redirectsOfNodesAreFollowed(status: Int) async throws {
        let (stale, leader) = (try await FakeNode.start(), try await FakeNode.start())
        let onward = redirect(to: leader.address, "/kv/a?x=1&hops=1", status: status)
        stale.answers { _ in .answer(onward) }
        let done = value("", status: 204)
        leader.answers { _ in .answer(done) }
        try await withRouter(try topology([[stale.address]])) { client async throws in
            let response = try await client.send(.PUT, "/kv/a?proxy=true&x=1", body: "value")
            #expect(response.status == 204)
            #expect(leader.received.map(\.target) == ["/kv/a?x=1&hops=1"])
            #expect(leader.received.map(\.body) == ["value"])
            #expect(leader.received.map(\.method) == [.PUT])
        }
        for node in [stale, leader] { await node.stop() }
    }

    @Test func nodesThatDisagreeEndInAnError() async throws {
        let (one, other) = (try await FakeNode.start(), try await FakeNode.start())
        let (toOther, toOne) = (redirect(to: other.address, "/kv/a"), redirect(to: one.address, "/kv/a"))
        one.answers { _ in .answer(toOther) }
        other.answers { _ in .answer(toOne) }
        try await withRouter(try topology([[one.address]])) { client async throws in
            let response = try await client.send(.PUT, "/kv/a?proxy=true", body: "value")
            #expect(try problem(response).type == "redirect-loop")
            #expect(response.status == 508)
            #expect(one.received.count + other.received.count == Limits.redirectsMax + 1)
        }
        for node in [one, other] { await node.stop() }
    }

    @Test(arguments: ["", "https://127.0.0.1:1/kv/a", "/kv/a", "http://127.0.0.1/kv/a", "http://127.0.0.1:1"])
    func redirectsToNowhereAreTheNodesFault(location: String) async throws {
        let node = try await FakeNode.start()
        node.answers { _ in .answer(HTTPResponse(status: 307, headers: [(name: "location", value: location)])) }
        try await withRouter(try topology([[node.address]])) { client async throws in
            let response = try await client.send(.GET, "/kv/a?proxy=true")
            #expect(try problem(response).type == "bad-gateway")
        }
        await node.stop()
    }

    @Test func aReadGoesOnToTheNextReplica() async throws {
        let (alive, dead) = (try await FakeNode.start(), try DeafPort())
        try await withRouter(try topology([[dead.address, alive.address]])) { client async throws in
            for _ in 0..<4 {
                let response = try await client.send(.GET, "/kv/a?proxy=true")
                #expect(response.status == 200)
                #expect(String(buffer: response.body) == "\(alive.address)\n")
            }
            // The look at its start and the failed request together prove it dead.
            try await eventually("the dead node is known") { try await client.isHealthy(dead.address) == false }
            #expect(try await client.metric("distribkv_router_proxied_in_flight") == 0)
        }
        await alive.stop()
    }

    @Test func aReadSurvivesAReplicaThatHangsUp() async throws {
        let (alive, peer) = (try await FakeNode.start(), try await FakePeer.start(answer: ""))
        try await withRouter(try topology([[peer.address, alive.address]])) { client async throws in
            for _ in 0..<2 {
                let response = try await client.send(.GET, "/kv/a?proxy=true")
                #expect(String(buffer: response.body) == "\(alive.address)\n")
            }
            #expect(peer.requests("GET /kv/a") == 1)
        }
        await alive.stop()
    }

    @Test func aReadSurvivesAReplicaThatHangs() async throws {
        let (alive, hanging) = (try await FakeNode.start(), try await FakeNode.start())
        hanging.answers { _ in .never }
        try await withRouter(try topology([[hanging.address, alive.address]])) {
            $0.proxyTimeout = .seconds(6)
        } _: { client async throws in
            for _ in 0..<2 {
                let response = try await client.send(.GET, "/kv/a?proxy=true")
                #expect(String(buffer: response.body) == "\(alive.address)\n")
            }
            #expect(hanging.received.count == 1)
        }
        for node in [alive, hanging] { await node.stop() }
    }

    @Test func aWriteIsNeverSentTwice() async throws {
        let (leader, follower) = (try await FakePeer.start(answer: ""), try await FakeNode.start())
        try await withRouter(try topology([[leader.address, follower.address]])) { client async throws in
            let response = try await client.send(.PUT, "/kv/a?proxy=true", body: "value")
            #expect(response.status == 502)
            let problem = try problem(response)
            #expect(problem.type == "bad-gateway")
            #expect(problem.detail.contains("may have been applied"))
            #expect(follower.received.isEmpty)
            #expect(leader.requests("PUT") == 1)
        }
        await follower.stop()
    }

    @Test func aWriteToALeaderThatIsGoneIsRefusedWithoutDoubt() async throws {
        let (leader, follower) = (try DeafPort(), try await FakeNode.start())
        try await withRouter(try topology([[leader.address, follower.address]])) { client async throws in
            let response = try await client.send(.PUT, "/kv/a?proxy=true", body: "value")
            #expect(response.status == 503)
            #expect(response.headers.first(name: "retry-after") == "1")
            let problem = try problem(response)
            #expect(problem.type == "unavailable")
            #expect(!problem.detail.contains("may have been applied"))
            #expect(follower.received.isEmpty)
        }
        await follower.stop()
    }

    @Test(arguments: ["garbage\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "\u{0}\u{1}"])
    func garbageIsABadGateway(answer: String) async throws {
        let peer = try await FakePeer.start(answer: answer)
        try await withRouter(try topology([[peer.address]])) { client async throws in
            for method in [HTTPMethod.GET, .PUT] {
                let response = try await client.send(method, "/kv/a?proxy=true")
                #expect(response.status == 502)
                #expect(try problem(response).type == "bad-gateway")
            }
        }
    }

    @Test func aNodeThatDoesNotAnswerIsATimeout() async throws {
        let node = try await FakeNode.start()
        node.answers { _ in .never }
        try await withRouter(try topology([[node.address]])) {
            $0.proxyTimeout = .milliseconds(50)
        } _: { client async throws in
            let read = try await client.send(.GET, "/kv/a?proxy=true")
            #expect(read.status == 504)
            #expect(try problem(read).type == "upstream-timeout")
            let write = try await client.send(.PUT, "/kv/a?proxy=true", body: "x")
            #expect(try problem(write).detail.contains("may have been applied"))
            // One that hangs is not dead: the looks at it say that it is well.
            #expect(try await client.isHealthy(node.address) == true)
        }
        await node.stop()
    }

    @Test func requestsInFlightAreBounded() async throws {
        let node = try await FakeNode.start()
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let late = value("late")
        node.answers { _ in .wait(gate.futureResult, late) }
        try await withRouter(try topology([[node.address]])) {
            $0.proxiedRequestsMax = 2
        } _: { client async throws in
            async let first = client.send(.GET, "/kv/1?proxy=true")
            async let second = client.send(.GET, "/kv/2?proxy=true")
            try await eventually("both have arrived") { node.received.count == 2 }
            let third = try await client.send(.GET, "/kv/3?proxy=true")
            #expect(third.status == 503)
            #expect(third.headers.first(name: "retry-after") == "1")
            #expect(try problem(third).type == "overloaded")
            gate.succeed()
            #expect(try await [first.status, second.status] == [200, 200])
            #expect(try await client.send(.GET, "/kv/4?proxy=true").status == 200)
        }
        await node.stop()
    }

    @Test func aShutdownLetsProxiedRequestsEnd() async throws {
        let node = try await FakeNode.start()
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let late = value("late")
        node.answers { _ in .wait(gate.futureResult, late) }
        let connections = NodeConnections(group: MultiThreadedEventLoopGroup.singleton)
        var configuration = RouterConfiguration(
            topology: try topology([[node.address]]), listen: NodeAddress(host: "127.0.0.1", port: 0), logger: quiet)
        configuration.threads = 1
        configuration.shutdownGrace = .seconds(30)
        let router = try await Router.start(configuration)
        let client = RouterClient(router: router, connections: connections)
        async let answer = client.send(.GET, "/kv/a?proxy=true")
        try await eventually("it has arrived") { node.received.count == 1 }
        async let stopped: Void = router.shutdown()
        try await eventually("no new connection is taken") {
            let other = NodeConnections(group: MultiThreadedEventLoopGroup.singleton)
            let refused = (try? await RouterClient(router: router, connections: other).send(.GET, "/healthz")) == nil
            await other.shutdown()
            return refused
        }
        gate.succeed()
        #expect(try await String(buffer: answer.body) == "late")
        await stopped
        await connections.shutdown()
        await node.stop()
    }
}

@Suite struct RedirectLocationTests {
    @Test func readsWhatNodesWrite() {
        #expect(RedirectLocation("http://127.0.0.1:7001/kv/a?hops=1")?.address == NodeAddress("127.0.0.1:7001"))
        #expect(RedirectLocation("http://127.0.0.1:7001/kv/a?hops=1")?.target == "/kv/a?hops=1")
        #expect(RedirectLocation("http://[::1]:7001/kv/a/b")?.address == NodeAddress("[::1]:7001"))
        #expect(RedirectLocation("http://n1.example:80/")?.target == "/")
    }
}
