import NIOCore
import NIOEmbedded
import TestSupport
import Testing

@testable import HTTPServer

/// What the answers of connections may hold in memory.
@Suite struct AnswerBudgetTests {
    private func answer(_ bytes: Int) -> HTTPResponse {
        HTTPResponse(status: 200, body: ByteBuffer(repeating: UInt8(ascii: "b"), count: bytes))
    }

    private func expectAllGivenBack(_ rig: Rig, sourceLocation: SourceLocation = #_sourceLocation) {
        // Far more than the budget is had only where nothing of it is held.
        #expect(rig.loop.reserveAnswer(1 << 30, isRefusable: true), sourceLocation: sourceLocation)
        rig.loop.releaseAnswer(1 << 30)
    }

    /// Small bodies and such as are passed on as they are.
    @Test(arguments: [4_000, 40_000]) func whatWaitsForItsTurnIsBounded(bytes: Int) throws {
        let rig = try Rig(deferring: true) { $0.bufferedAnswerBytesMax = bytes * 5 / 2 }
        try rig.channel.writeInbound(ByteBuffer(string: (0..<5).map { get("/\($0)") }.joined()))
        for exchange in rig.handler.exchanges.dropFirst() { exchange.respond(answer(bytes)) }
        rig.handler.exchanges[0].respond(answer(3))
        let answers = try rig.answers()
        #expect(answers.map(\.status) == [200, 200, 200, 400, 400])
        #expect(answers[3].text == "overloaded" && !answers[3].closes)
        expectAllGivenBack(rig)
        // The connection goes on, and has the whole budget again.
        try rig.channel.writeInbound(ByteBuffer(string: get("/5")))
        rig.handler.exchanges[5].respond(answer(bytes))
        try #expect(rig.answers().map(\.status) == [200])
        expectAllGivenBack(rig)
        try rig.finish()
    }

    /// A write was made: no refusal may hide that. A HEAD holds nothing.
    @Test func onlyAnswersToGetsAreRefused() throws {
        let rig = try Rig(deferring: true) { $0.bufferedAnswerBytesMax = 10 }
        let head = "HEAD" + get("/").dropFirst(3)
        try rig.channel.writeInbound(ByteBuffer(string: get("/") + put("/", "1") + head + put("/", "2") + get("/")))
        for exchange in rig.handler.exchanges.reversed() { exchange.respond(answer(100)) }
        var bytes: [UInt8] = []
        while let buffer = try rig.channel.readOutbound(as: ByteBuffer.self) { bytes += buffer.readableBytesView }
        let (answers, rest) = try RawAnswer.parse(bytes, heads: [2])
        #expect(answers.map(\.status) == [200, 200, 200, 200, 200] && rest == 0)
        expectAllGivenBack(rig)
        try rig.finish()
    }

    @Test func aPeerThatGoesGivesItsShareBack() throws {
        let rig = try Rig(deferring: true)
        try rig.channel.writeInbound(ByteBuffer(string: (0..<5).map { get("/\($0)") }.joined()))
        for exchange in rig.handler.exchanges.dropFirst() { exchange.respond(answer(40_000)) }
        try rig.finish()
        expectAllGivenBack(rig)
    }

    /// Once its answers prove large, few requests of a connection are in work at once.
    @Test func largeAnswersNarrowTheWindow() throws {
        let rig = try Rig(deferring: true) {
            $0.connectionAnswerBytesMax = 100_000
            $0.pipelinedRequestsMax = 16
        }
        try rig.channel.writeInbound(ByteBuffer(string: get("/first") + String(repeating: get("/next"), count: 40)))
        #expect(rig.handler.exchanges.count == 16)
        rig.handler.exchanges[0].respond(answer(30_000))
        #expect(rig.handler.exchanges.count == 16, "15 that are owed are too many already")
        var answered = 1
        while answered < 41 {
            let owed = rig.handler.exchanges.count - answered
            #expect(answered < 13 || (1...4).contains(owed), "\(owed) in work behind \(answered)")
            rig.handler.exchanges[answered].respond(answer(30_000))
            answered += 1
        }
        try #expect(rig.answers().count == 41)
        // Small ones open it again.
        try rig.channel.writeInbound(ByteBuffer(string: String(repeating: get("/small"), count: 80)))
        var widest = 0
        for index in 41..<121 {
            widest = max(widest, rig.handler.exchanges.count - index)
            rig.handler.exchanges[index].respond(answer(3))
        }
        #expect(widest == 16)
        try rig.finish()
    }

    @Test func aPeerThatDoesNotReadHoldsNoMoreThanTheBudget() async throws {
        let body = ByteBuffer(repeating: UInt8(ascii: "b"), count: 24 << 20)
        try await TestServer.run(
            TestServer.Setup(
                limits: { $0.bufferedAnswerBytesMax = 30 << 20 },
                handle: { request, exchange in
                    let isLarge = request.target == "/large"
                    exchange.respond(HTTPResponse(status: 200, body: isLarge ? body : ByteBuffer(string: "small")))
                })
        ) { server in
            let deaf = try await server.connect(reading: false)
            deaf.send(get("/large"))
            try await server.wait(for: "the request") { server.seen.count == 1 }
            let other = try await server.connect()
            other.send(get("/large") + get("/small"))
            let answers = try await other.answers(2)
            #expect(answers.map(\.status) == [503, 200])
            #expect(answers[0].text == "overloaded" && answers.allSatisfy { !$0.closes })
            await deaf.startReading()
            #expect(try await deaf.answers(1).map(\.body.count) == [24 << 20])
            other.send(get("/large"))
            #expect(try await other.answers(3)[2].status == 200)
            await deaf.close()
            await other.close()
        }
    }

    // MARK: Pace

    /// Pending bytes, second by second, of a peer that takes `rate` bytes a second of an endless answer.
    private func secondsUntilClosed(rate: Int, credit: Int64 = 75, limit: Int64 = 1_000) -> Int64? {
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)
        var pace = ReadingPace(now: start)
        var pending = 1 << 40
        for second in 0...limit {
            let now = start + .seconds(second)
            pace.note(pendingBytes: pending, now: now)
            if pace.isTooSlow(now: now, credit: .seconds(credit)) { return second }
            pending -= rate
        }
        return nil
    }

    @Test func aPeerThatTricklesUsesUpItsCredit() {
        #expect(secondsUntilClosed(rate: 0) == 76)
        #expect(secondsUntilClosed(rate: 1) == 76)
        #expect(secondsUntilClosed(rate: ReadingPace.bytesPerSecondMin / 2) == 151)
        #expect(secondsUntilClosed(rate: ReadingPace.bytesPerSecondMin) == nil)
        #expect(secondsUntilClosed(rate: 100 * ReadingPace.bytesPerSecondMin) == nil)
    }

    @Test func moreThanTheWholeCreditIsNotEarned() {
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)
        var pace = ReadingPace(now: start)
        pace.note(pendingBytes: 1 << 40, now: start)
        pace.note(pendingBytes: 1 << 20, now: start + .seconds(1))
        #expect(!pace.isTooSlow(now: start + .seconds(76), credit: .seconds(75)))
        #expect(pace.isTooSlow(now: start + .seconds(77), credit: .seconds(75)))
        // What is added is not what was taken.
        pace.note(pendingBytes: 1 << 30, now: start + .seconds(77))
        #expect(pace.isTooSlow(now: start + .seconds(77), credit: .seconds(75)))
    }
}
