import Testing

@testable import LoadGenerator

/// The open loop by a clock of the test's own, against a server that answers after 100 µs and stands still in between.
@Suite struct OpenLoopTests {
    private static let millisecond: UInt64 = 1_000_000
    private static let second: UInt64 = 1_000_000_000

    private struct Outcome {
        var result = OperationResult()
        var unsent = 0
        var lastBegun: UInt64 = 0
    }

    /// - Parameter stall: when the server does not answer.
    private func play(
        rate: Double, seconds: UInt64, clients: Int, patience: UInt64 = 10_000_000_000, stall: Range<UInt64>
    ) -> Outcome {
        var loop = OpenLoop(Schedule(rate: rate, start: 0), slots: clients, patience: patience)
        for client in 0..<clients { loop.free(client) }
        var outcome = Outcome()
        var answers: [(at: UInt64, client: Int, due: UInt64)] = []
        var now: UInt64 = 0
        let end = seconds * Self.second
        while true {
            var step = OpenLoop.Step.wait(until: nil)
            while now < end {
                step = loop.next(at: now)
                if case .begin(let client, let due) = step {
                    #expect(due <= now)
                    let ready = now + 100_000
                    answers.append((stall.contains(ready) ? stall.upperBound : ready, client, due))
                    outcome.lastBegun = due
                } else if case .unsent = step {
                    outcome.unsent += 1
                } else {
                    break
                }
            }
            var next = now < end ? end : UInt64.max
            if now < end, case .wait(let until?) = step { next = min(next, until) }
            for answer in answers { next = min(next, answer.at) }
            guard next != .max else { break }
            now = next
            for answer in answers where answer.at <= now {
                outcome.result.record(now - answer.due)
                loop.free(answer.client)
            }
            answers.removeAll { $0.at <= now }
        }
        while loop.unsent(before: end) != nil { outcome.unsent += 1 }
        return outcome
    }

    @Test func aStallShowsInAllThatWasDueInIt() {
        let stall = 1 * Self.second..<1 * Self.second + 500 * Self.millisecond
        let outcome = play(rate: 1_000, seconds: 3, clients: 4, stall: stall)
        #expect(outcome.result.answered == 3_000 && outcome.unsent == 0)
        // Due evenly in half a second: half of them waited for more than a quarter of it.
        let slow = outcome.result.buckets.filter { $0.upper > 250 * Self.millisecond }.reduce(0) { $0 + $1.count }
        #expect((245...260).contains(slow), "\(slow)")
        #expect(outcome.result.longest >= 499 * Self.millisecond)
        let fast = outcome.result.buckets.filter { $0.upper < 1 * Self.millisecond }.reduce(0) { $0 + $1.count }
        #expect(fast > 2_400)
    }

    @Test func whatWaitsTooLongIsUnsent() {
        let stall = 1 * Self.second..<3 * Self.second
        let outcome = play(rate: 1_000, seconds: 5, clients: 4, patience: 500 * Self.millisecond, stall: stall)
        // All but the four on their way and those of the last half second of the stall.
        #expect((1_490...1_500).contains(outcome.unsent), "\(outcome.unsent)")
        #expect(outcome.result.answered + outcome.unsent == 5_000)
    }

    @Test func moreThanTheServerCanDoIsTold() {
        // Two clients at 100 µs each can do 20,000 per second.
        let outcome = play(rate: 40_000, seconds: 1, clients: 2, stall: 0..<0)
        #expect(outcome.result.answered + outcome.unsent == 40_000)
        #expect((19_900...20_002).contains(outcome.result.answered))
        #expect(outcome.result.longest > 450 * Self.millisecond)
    }

    @Test func intervalsDoNotDrift() {
        var schedule = Schedule(rate: 3, start: 5, offset: 0.5)
        for _ in 0..<3_000_000 { schedule.take() }
        #expect(abs(Int64(schedule.next) - 1_000_000_166_666_671) < 200)
    }

    @Test func clientsTakeTurns() {
        var idle = IdleClients(capacity: 3)
        for client in [2, 0, 1] { idle.append(client) }
        #expect(idle.removeFirst() == 2)
        idle.append(2)
        #expect([idle.removeFirst(), idle.removeFirst(), idle.removeFirst(), idle.removeFirst()] == [0, 1, 2, nil])
    }
}
