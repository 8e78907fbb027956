import NIOCore
import NIOEmbedded
import NIOHTTP1
import Synchronization
import TestSupport
import Testing

@testable import HTTPServer

@Suite struct PipeliningTests {
    /// Answers some requests at once and the others later, a random one of those waiting at a time.
    private final class Shuffler: Sendable {
        private struct State {
            var generator: SeededGenerator
            var waiting: [(HTTPRequest, HTTPExchange)] = []
            var largestWaiting = 0
        }
        private let state: Mutex<State>
        private let sizes: [Int]
        private let batching: Bool

        init(seed: UInt64, sizes: [Int], batching: Bool) {
            state = Mutex(State(generator: SeededGenerator(seed: seed)))
            self.sizes = sizes
            self.batching = batching
        }

        var largestWaiting: Int { state.withLock { $0.largestWaiting } }

        func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
            let answersNow = state.withLock { state in
                if state.generator.next() % 4 == 0 { return true }
                state.waiting.append((request, exchange))
                state.largestWaiting = max(state.largestWaiting, state.waiting.count)
                return false
            }
            if answersNow { return answer(request, exchange) }
            exchange.eventLoop.execute {
                if self.batching {
                    exchange.batchingAnswers { self.answerAny(1 + Int(self.random() % 3)) }
                } else {
                    self.answerAny(1)
                }
            }
        }

        private func random() -> UInt64 { state.withLock { $0.generator.next() } }

        private func answerAny(_ count: Int) {
            for _ in 0..<count {
                let chosen: (HTTPRequest, HTTPExchange)? = state.withLock { state in
                    guard !state.waiting.isEmpty else { return nil }
                    let index = Int(state.generator.next() % UInt64(state.waiting.count))
                    return state.waiting.remove(at: index)
                }
                if let (request, exchange) = chosen { answer(request, exchange) }
            }
        }

        private func answer(_ request: HTTPRequest, _ exchange: HTTPExchange) {
            let size = sizes[(Int(request.target.dropFirst()) ?? 0) % sizes.count]
            var body = ByteBuffer(string: request.target + " ")
            body.writeImmutableBuffer(request.body)
            body.writeRepeatingByte(UInt8(ascii: "x"), count: size)
            if random() % 2 == 0 {
                exchange.respond(HTTPResponse(status: 200, body: body))
            } else {
                exchange.respond(status: 200, contentLength: body.readableBytes) { _ in
                } body: { buffer in
                    buffer.writeImmutableBuffer(body)
                }
            }
        }
    }

    @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8] as [UInt64])
    func answersComeInTheOrderOfTheRequests(seed: UInt64) async throws {
        let sizes = [0, 100, 40_000, 3, 32_768, 32_767]
        let count = 300
        let limit = [1, 2, 16, 128][Int(seed % 4)]
        let shuffler = Shuffler(seed: seed, sizes: sizes, batching: seed % 2 == 0)
        try await TestServer.run(
            TestServer.Setup(limits: { $0.pipelinedRequestsMax = limit }, handle: { shuffler.handle($0, $1) })
        ) { server in
            let client = try await server.connect()
            var generator = SeededGenerator(seed: seed)
            var stream: [UInt8] = []
            for number in 0..<count {
                let isPut = generator.next() % 3 == 0
                stream += Array((isPut ? put("/\(number)", "body of \(number)") : get("/\(number)")).utf8)
            }
            var rest = stream[...]
            while !rest.isEmpty {
                let piece = rest.prefix(1 + Int(generator.next() % 4_000))
                client.send(Array(piece))
                rest = rest.dropFirst(piece.count)
            }
            let answers = try await client.answers(count)
            await client.close()
            #expect(answers.count == count)
            for (number, answer) in answers.enumerated() {
                let tail = sizes[number % sizes.count]
                #expect(answer.status == 200)
                #expect(answer.text.hasPrefix("/\(number) "), "seed \(seed)")
                #expect(answer.body.count >= tail && answer.body.suffix(tail).allSatisfy { $0 == UInt8(ascii: "x") })
                #expect(!answer.closes)
            }
            #expect(server.seen.all == (0..<count).map { "/\($0)" })
            #expect(shuffler.largestWaiting <= limit)
        }
    }

    @Test func nothingIsHandedOutWhileThePeerDoesNotRead() async throws {
        let size = 4 << 20
        let count = 24
        let body = ByteBuffer(repeating: UInt8(ascii: "b"), count: size)
        try await TestServer.run(TestServer.Setup(handle: { $1.respond(HTTPResponse(status: 200, body: body)) })) {
            server in
            let client = try await server.connect(reading: false)
            client.send((0..<count).map { get("/\($0)") }.joined())
            try await server.wait(for: "the first request") { server.seen.count > 0 }
            for _ in 0..<50 { try await server.expectServing() }
            // What the kernel takes of a connection nobody reads is some megabytes; one answer more may be begun.
            #expect(server.seen.count <= 5)
            await client.startReading()
            let received = try await client.bytes(count * size)
            #expect(received.count >= count * size)
            try await server.wait(for: "all requests") { server.seen.count == count }
            await client.close()
        }
    }

    @Test func smallAnswersToo() async throws {
        // Answers small enough to gather: what gathers counts as written.
        let count = 100_000
        let body = ByteBuffer(repeating: UInt8(ascii: "b"), count: 20_000)
        try await TestServer.run(TestServer.Setup(handle: { $1.respond(HTTPResponse(status: 200, body: body)) })) {
            server in
            let client = try await server.connect(reading: false)
            client.send(String(repeating: get("/"), count: count))
            try await server.wait(for: "the first request") { server.seen.count > 0 }
            for _ in 0..<50 { try await server.expectServing() }
            #expect(server.seen.count <= 1_000)
            await client.close()
        }
    }

    @Test func anUnreadableConnectionHoldsBackReadsAndRequests() throws {
        let rig = try Rig()
        rig.channel.isWritable = false
        rig.channel.pipeline.fireChannelWritabilityChanged()
        try rig.channel.writeInbound(ByteBuffer(string: get("/1") + get("/2")))
        #expect(rig.handler.targets.isEmpty)
        rig.channel.isWritable = true
        rig.channel.pipeline.fireChannelWritabilityChanged()
        #expect(rig.handler.targets == ["/1", "/2"])
        try #expect(rig.answers().map(\.text) == ["GET /1", "GET /2"])
        try rig.finish()
    }

    @Test func answeringTwiceOrAfterTheEndDoesNothing() throws {
        let rig = try Rig(deferring: true)
        try rig.channel.writeInbound(ByteBuffer(string: get("/1") + get("/2") + get("/3")))
        let exchanges = rig.handler.exchanges
        exchanges[1].respond(HTTPResponse(status: 200, body: ByteBuffer(string: "two")))
        exchanges[1].respond(HTTPResponse(status: 500))
        exchanges[0].respond(HTTPResponse(status: 200, body: ByteBuffer(string: "one")))
        exchanges[0].respond(HTTPResponse(status: 500))
        exchanges[1].respond(HTTPResponse(status: 500))
        try #expect(rig.answers().map(\.text) == ["one", "two"])
        try rig.finish()
        exchanges[2].respond(HTTPResponse(status: 200))
        try #expect(rig.answers().isEmpty)
    }

    @Test func answersOfOneReadLeaveTogether() throws {
        let rig = try Rig()
        try rig.channel.writeInbound(ByteBuffer(string: get("/1") + get("/2") + get("/3")))
        rig.channel.embeddedEventLoop.run()
        let first = try rig.channel.readOutbound(as: ByteBuffer.self)
        try #expect(RawAnswer.parse(Array(first?.readableBytesView ?? .init())).answers.count == 3)
        try #expect(rig.channel.readOutbound(as: ByteBuffer.self) == nil)
        try rig.finish()
    }

    @Test func whatGathersIsBounded() throws {
        let rig = try Rig()
        let target = "/" + String(repeating: "t", count: 10_000)
        try rig.channel.writeInbound(ByteBuffer(string: String(repeating: get(target), count: 100)))
        rig.channel.embeddedEventLoop.run()
        var sizes: [Int] = []
        while let buffer = try rig.channel.readOutbound(as: ByteBuffer.self) { sizes.append(buffer.readableBytes) }
        #expect(sizes.reduce(0, +) > 1_000_000)
        // 64 KiB and the answer that went over it.
        #expect(sizes.allSatisfy { $0 < 65_536 + 11_000 })
        try rig.finish()
    }

    @Test func answersOfOneBatchLeaveTogether() throws {
        let rig = try Rig(deferring: true)
        try rig.channel.writeInbound(ByteBuffer(string: get("/1") + get("/2") + get("/3")))
        let exchanges = rig.handler.exchanges
        var early: ByteBuffer?
        exchanges[0].batchingAnswers {
            for exchange in exchanges.reversed() { exchange.respond(HTTPResponse(status: 204)) }
            early = try? rig.channel.readOutbound(as: ByteBuffer.self)
        }
        #expect(early == nil)
        let first = try rig.channel.readOutbound(as: ByteBuffer.self)
        try #expect(
            RawAnswer.parse(Array(first?.readableBytesView ?? .init())).answers.map(\.status) == [204, 204, 204])
        try rig.finish()
    }
}

/// The connection's handlers alone, on an embedded event loop.
final class Rig {
    final class Recorder: HTTPHandler {
        private(set) var targets: [String] = []
        private(set) var exchanges: [HTTPExchange] = []
        private let deferring: Bool
        init(deferring: Bool) { self.deferring = deferring }
        func bodyBytesMax(method: HTTPMethod, target: String) -> Int { 1 << 20 }
        func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
            targets.append(request.target)
            exchanges.append(exchange)
            if !deferring { exchange.respond(TestServer.echo(of: request)) }
        }
        func response(to rejection: HTTPRejection) -> HTTPResponse {
            HTTPResponse(status: 400, body: ByteBuffer(string: "\(rejection)"))
        }
        func writeCommonFields(into buffer: inout ByteBuffer) {}
    }

    let channel: EmbeddedChannel
    let loop: HTTPLoop
    let handler: Recorder

    init(deferring: Bool = false, limits: (inout HTTPServerConfiguration) -> Void = { _ in }) throws {
        var configuration = HTTPServerConfiguration(host: "127.0.0.1", port: 0)
        limits(&configuration)
        channel = EmbeddedChannel()
        handler = Recorder(deferring: deferring)
        loop = HTTPLoop(eventLoop: channel.eventLoop, loops: 1, configuration: configuration, handler: handler)
        try loop.serve(channel)
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
    }

    func answers() throws -> [RawAnswer] {
        var bytes: [UInt8] = []
        while let buffer = try channel.readOutbound(as: ByteBuffer.self) { bytes += buffer.readableBytesView }
        let (answers, rest) = try RawAnswer.parse(bytes)
        #expect(rest == 0)
        return answers
    }

    func finish() throws { _ = try channel.finish(acceptAlreadyClosed: true) }
}
