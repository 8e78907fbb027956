import Core
import Synchronization
import Testing

@testable import ReplicatorService

@Suite struct TurnstileTests {
    private final class Record: Sendable {
        let order = Mutex<[Int]>([])
        let inside = Atomic(0)
    }

    @Test func oneAtATimeInTurn() async throws {
        let turnstile = Turnstile()
        let record = Record()
        var first: Turn? = try await turnstile.pass()
        #expect(turnstile.isTaken)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<5 {
                group.addTask {
                    let turn = try await turnstile.pass()
                    #expect(record.inside.wrappingAdd(1, ordering: .relaxed).newValue == 1)
                    record.order.withLock { $0.append(index) }
                    await Task.yield()
                    record.inside.wrappingSubtract(1, ordering: .relaxed)
                    withExtendedLifetime(turn) {}
                }
                try await eventually { turnstile.waiting == index + 1 }
            }
            withExtendedLifetime(first) {}
            first = nil
            try await group.waitForAll()
        }
        #expect(record.order.withLock { $0 } == [0, 1, 2, 3, 4])
        #expect(!turnstile.isTaken)
    }

    @Test func whoIsCancelledLeavesTheLine() async throws {
        let turnstile = Turnstile()
        var held: Turn? = try await turnstile.pass()
        let waiting = Task { try await turnstile.pass() }
        try await eventually { turnstile.waiting == 1 }
        waiting.cancel()
        await #expect(throws: CancellationError.self) { _ = try await waiting.value }
        #expect(turnstile.waiting == 0 && turnstile.isTaken)
        withExtendedLifetime(held) {}
        held = nil
        #expect(!turnstile.isTaken)
    }

    @Test func noTurnIsLostUnderRandomCancellation() async throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        let turnstile = Turnstile()
        await withTaskGroup(of: Void.self) { group in
            var random = TestRandom(seed: seed)
            for _ in 0..<500 {
                let isCancelled = random.next() % 3 == 0
                group.addTask {
                    let task = Task {
                        let turn = try await turnstile.pass()
                        await Task.yield()
                        withExtendedLifetime(turn) {}
                    }
                    if isCancelled { task.cancel() }
                    _ = await task.result
                }
            }
        }
        #expect(!turnstile.isTaken && turnstile.waiting == 0)
    }
}
