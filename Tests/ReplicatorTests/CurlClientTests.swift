import Curl
import NIOCore
import NIOHTTP1
import Synchronization
import Testing

@Suite struct CurlClientTests {
    private static func request(
        _ method: CurlRequest.Method = .get, _ server: TestServer, _ path: String = "/",
        headers: [(name: String, value: String)] = [], body: ByteBuffer = ByteBuffer(), bytesMax: Int = 64 << 20,
        timeout: Duration = .seconds(30)
    ) -> CurlRequest {
        CurlRequest(
            method, "http://127.0.0.1:\(server.port)\(path)", headers: headers, body: body, responseBytesMax: bytesMax,
            timeout: timeout, connectTimeout: .seconds(10))
    }

    private static func code(_ body: () async throws -> Void) async throws -> CurlError.Code? {
        do {
            try await body()
            return nil
        } catch let error as CurlError {
            return error.code
        }
    }

    private static func bytes(_ count: Int) -> ByteBuffer {
        ByteBuffer(bytes: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) })
    }

    /// Echoes method, path and the fields that curl might add, and the body.
    private static func echo() async throws -> TestServer {
        try await TestServer.start { request in
            .init(
                status: request.path == "/teapot" ? 418 : 200,
                headers: [
                    ("X-Method", request.head.method.rawValue), ("X-Path", request.head.uri),
                    ("X-Expect", request.head.headers["expect"].first ?? "none"),
                    ("X-Type", request.head.headers["content-type"].first ?? "none"),
                    ("X-Custom", request.head.headers["kv-term"].first ?? "none"), ("X-Spaces", "  a b \t"),
                ], body: request.body)
        }
    }

    @Test func getCarriesPathAndHeadersAndReadsThemBack() async throws {
        let server = try await Self.echo()
        let client = try CurlClient()
        let response = try await client.perform(Self.request(.get, server, "/a%20b?x=1&y", headers: [("kv-term", "7")]))
        #expect(response.status == 200)
        #expect(response.header("x-method") == "GET")
        #expect(response.header("x-path") == "/a%20b?x=1&y")
        #expect(response.header("x-custom") == "7")
        #expect(response.header("x-spaces") == "a b")
        #expect(response.header("absent") == nil)
        #expect(response.body.readableBytes == 0)
        await client.shutdown()
        await server.stop()
    }

    @Test(arguments: [0, 1, 1_000, EasyLimits.copied, EasyLimits.copied + 1, 1 << 20, 5 << 20])
    func postBodiesOfAnySizeArriveWhole(size: Int) async throws {
        let server = try await Self.echo()
        let client = try CurlClient()
        var body = Self.bytes(size + 3)
        body.moveReaderIndex(forwardBy: 3)
        for type in [nil, "application/x-test"] {
            let response = try await client.perform(
                Self.request(.post, server, headers: type.map { [("Content-Type", $0)] } ?? [], body: body))
            #expect(response.header("x-method") == "POST")
            #expect(response.body == body)
            #expect(response.header("x-expect") == "none")
            #expect(response.header("x-type") == (type ?? "none"))
        }
        await client.shutdown()
        await server.stop()
    }

    @Test func errorStatusesAndRedirectsAreAnswers() async throws {
        let target = try await TestServer.start { _ in .init(status: 200) }
        let server = try await TestServer.start { request in
            request.path == "/moved"
                ? .init(status: 307, headers: [("location", "http://127.0.0.1:\(target.port)/")]) : .init(status: 503)
        }
        let client = try CurlClient()
        #expect(try await client.perform(Self.request(.get, server, "/moved")).status == 307)
        #expect(try await client.perform(Self.request(.get, server, "/other")).status == 503)
        #expect(target.requestsTotal == 0)
        await client.shutdown()
        await server.stop()
        await target.stop()
    }

    @Test func connectionsAreReused() async throws {
        let server = try await Self.echo()
        let client = try CurlClient()
        for index in 0..<50 {
            let body = index % 3 == 0 ? Self.bytes(200_000) : Self.bytes(20)
            let response = try await client.perform(Self.request(index % 2 == 0 ? .post : .get, server, body: body))
            #expect(response.status == 200)
        }
        #expect(server.connectionsTotal == 1)
        #expect(server.requestsTotal == 50)
        await client.shutdown()
        try await eventually { server.connectionsOpen == 0 }
        await server.stop()
    }

    @Test func aServerThatCameBackIsReachedAlthoughTheKeptConnectionIsDead() async throws {
        let first = try await Self.echo()
        let client = try CurlClient()
        #expect(try await client.perform(Self.request(.get, first)).status == 200)
        await first.stop()
        let second = try await TestServer.start(port: first.port) { .init(status: 200, body: $0.body) }
        let body = Self.bytes(300_000)
        #expect(try await client.perform(Self.request(.post, second, body: body)).body == body)
        await client.shutdown()
        await second.stop()
    }

    @Test func timeout() async throws {
        let server = try await TestServer.start { _ in nil }
        let client = try CurlClient()
        let code = try await Self.code {
            _ = try await client.perform(Self.request(.get, server, timeout: .milliseconds(50)))
        }
        #expect(code == .timedOut)
        await client.shutdown()
        await server.stop()
    }

    @Test func connectionRefused() async throws {
        let server = try await Self.echo()
        await server.stop()
        let client = try CurlClient()
        let code = try await Self.code { _ = try await client.perform(Self.request(.get, server)) }
        #expect(code == .couldNotConnect)
        await client.shutdown()
    }

    @Test(arguments: ["https://127.0.0.1:1/", "file:///etc/hostname", "ftp://127.0.0.1/", "http://"])
    func onlyHTTP(url: String) async throws {
        let client = try CurlClient()
        let code = try await Self.code {
            _ = try await client.perform(
                CurlRequest(.get, url, responseBytesMax: 10, timeout: .seconds(1), connectTimeout: .seconds(1)))
        }
        #expect(code == .unsupportedURL)
        await client.shutdown()
    }

    @Test func connectionLostInTheMiddleOfTheAnswer() async throws {
        let server = try await TestServer.start { _ in .init(status: 200, body: Self.bytes(1_000), sentBytesMax: 10) }
        let client = try CurlClient()
        let code = try await Self.code { _ = try await client.perform(Self.request(.get, server)) }
        #expect(code == .connectionLost)
        await client.shutdown()
        await server.stop()
    }

    @Test(arguments: [(999, 1_000), (1_000, 1_000), (1_001, 1_000), (3 << 20, 1 << 20)])
    func bodyLimit(size: Int, limit: Int) async throws {
        let server = try await TestServer.start { _ in .init(status: 200, body: Self.bytes(size)) }
        let client = try CurlClient()
        let code = try await Self.code {
            let response = try await client.perform(Self.request(.get, server, bytesMax: limit))
            #expect(response.body.readableBytes == size)
        }
        #expect(code == (size > limit ? .bodyTooLarge : nil))
        await client.shutdown()
        await server.stop()
    }

    @Test func bodyLimitHoldsWithoutALength() async throws {
        let server = try await TestServer.start { _ in
            .init(status: 200, headers: [("transfer-encoding", "chunked")], body: Self.bytes(100_000))
        }
        let client = try CurlClient()
        let code = try await Self.code { _ = try await client.perform(Self.request(.get, server, bytesMax: 50_000)) }
        #expect(code == .bodyTooLarge || code == .other)
        await client.shutdown()
        await server.stop()
    }

    @Test func cancellationEndsTheTransfer() async throws {
        let server = try await TestServer.start { _ in nil }
        let client = try CurlClient()
        let task = Task { try await Self.code { _ = try await client.perform(Self.request(.get, server)) } }
        try await eventually { server.requestsTotal == 1 }
        task.cancel()
        #expect(try await task.value == .cancelled)
        // The connection is in the middle of an answer and cannot be kept.
        try await eventually { server.connectionsOpen == 0 }
        await client.shutdown()
        await server.stop()
    }

    @Test func cancelledBeforeItBegan() async throws {
        let server = try await TestServer.start { _ in nil }
        let client = try CurlClient()
        for _ in 0..<100 {
            let code = try await withThrowingTaskGroup(of: CurlError.Code?.self) { group in
                group.addTask { try await Self.code { _ = try await client.perform(Self.request(.get, server)) } }
                group.cancelAll()
                return try await group.next() ?? nil
            }
            #expect(code == .cancelled)
        }
        await client.shutdown()
        await server.stop()
    }

    @Test func manyAtOnceAreAnsweredEachWithItsOwn() async throws {
        let server = try await Self.echo()
        var limits = CurlClient.Limits()
        limits.inFlightMax = 16
        let client = try CurlClient(limits: limits)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<1_000 {
                group.addTask {
                    let body = ByteBuffer(string: "body \(index)")
                    let response = try await client.perform(Self.request(.post, server, "/\(index)", body: body))
                    #expect(response.body == body)
                    #expect(response.header("x-path") == "/\(index)")
                }
            }
            try await group.waitForAll()
        }
        #expect(server.connectionsTotal <= 16)
        await client.shutdown()
        await server.stop()
    }

    @Test func tooManyWaitingAreRefused() async throws {
        let server = try await TestServer.start { _ in nil }
        var limits = CurlClient.Limits()
        limits.inFlightMax = 2
        limits.waitingMax = 3
        let client = try CurlClient(limits: limits)
        let codes = try await withThrowingTaskGroup(of: CurlError.Code?.self) { group in
            for _ in 0..<8 {
                group.addTask { try await Self.code { _ = try await client.perform(Self.request(.get, server)) } }
            }
            var codes: [CurlError.Code?] = []
            for _ in 0..<3 { codes.append(try await group.next() ?? nil) }
            await client.shutdown()
            while let code = try await group.next() { codes.append(code) }
            return codes
        }
        #expect(codes[..<3].allSatisfy { $0 == .overloaded })
        #expect(codes[3...].allSatisfy { $0 == .shutDown } && codes.count == 8)
        await server.stop()
    }

    @Test func shutdownFailsWhatIsInFlightAndWhatComesAfter() async throws {
        let server = try await TestServer.start { _ in nil }
        let client = try CurlClient()
        let tasks = (0..<20).map { _ in
            Task { try await Self.code { _ = try await client.perform(Self.request(.get, server)) } }
        }
        try await eventually { server.requestsTotal == 20 }
        await client.shutdown()
        for task in tasks { #expect(try await task.value == .shutDown) }
        #expect(try await Self.code { _ = try await client.perform(Self.request(.get, server)) } == .shutDown)
        await client.shutdown()
        await server.stop()
    }

    @Test func aClientThatIsDroppedEndsItsThread() async throws {
        let server = try await Self.echo()
        for _ in 0..<20 {
            let client = try CurlClient()
            _ = try await client.perform(Self.request(.get, server))
        }
        try await eventually { server.connectionsOpen == 0 }
        await server.stop()
    }

    @Test func randomCancellationsAndTimeoutsNeverLoseAnAnswer() async throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        let server = try await TestServer.start { request in
            if request.path.hasSuffix("7") { return nil }
            return .init(status: 200, body: request.body)
        }
        let client = try CurlClient()
        try await withThrowingTaskGroup(of: Void.self) { group in
            var random = TestRandom(seed: seed)
            for index in 0..<400 {
                let cancels = random.next() % 3 == 0
                let size = Int(random.next() % 100_000)
                let isSilent = index % 10 == 7
                group.addTask {
                    let body = Self.bytes(size)
                    let task = Task {
                        try await Self.code {
                            let response = try await client.perform(
                                Self.request(
                                    .post, server, "/\(index)", body: body,
                                    timeout: isSilent ? .milliseconds(200) : .seconds(120)))
                            #expect(response.body == body)
                        }
                    }
                    if cancels { task.cancel() }
                    let code = try await task.value
                    if !cancels { #expect(code == (isSilent ? .timedOut : nil)) }
                }
            }
            try await group.waitForAll()
        }
        await client.shutdown()
        await server.stop()
    }
}

/// Around the size from which a body is sent piece by piece.
enum EasyLimits {
    static let copied = 64 << 10
}

/// A random number generator with a seed.
struct TestRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        var mixed = state ^ (state >> 33)
        mixed = mixed &* 0xFF51_AFD7_ED55_8CCD
        return mixed ^ (mixed >> 33)
    }
}
