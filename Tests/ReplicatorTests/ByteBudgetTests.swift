import Synchronization
import Testing

@testable import ReplicatorService

@Suite struct ByteBudgetTests {
    private final class Order: Sendable {
        let served = Mutex<[Int]>([])
    }

    @Test func whoAsksForMoreThanThereIsGetsEverything() async throws {
        let budget = ByteBudget(capacity: 10)
        var lease: ByteLease? = try await budget.take(1_000)
        #expect(budget.free == 0)
        withExtendedLifetime(lease) {}
        lease = nil
        #expect(budget.free == 10)
    }

    @Test func waitersAreServedInTurn() async throws {
        let budget = ByteBudget(capacity: 10)
        var first: ByteLease? = try await budget.take(8)
        let order = Order()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, bytes) in [9, 1].enumerated() {
                group.addTask {
                    let lease = try await budget.take(bytes)
                    order.served.withLock { $0.append(index) }
                    withExtendedLifetime(lease) {}
                }
                // The small one must not pass the large one that came before, although it would fit.
                try await eventually { budget.waiting == index + 1 }
            }
            #expect(order.served.withLock { $0.isEmpty } && budget.free == 2)
            withExtendedLifetime(first) {}
            first = nil
            try await group.waitForAll()
        }
        #expect(order.served.withLock { Set($0) } == [0, 1])
        #expect(budget.free == 10)
    }

    @Test func cancelledWaitersLeaveTheLine() async throws {
        let budget = ByteBudget(capacity: 10)
        let held = try await budget.take(6)
        let large = Task { try await budget.take(10) }
        try await eventually { budget.waiting == 1 }
        let small = Task { try await budget.take(4) }
        try await eventually { budget.waiting == 2 }
        large.cancel()
        await #expect(throws: CancellationError.self) { _ = try await large.value }
        let lease = try await small.value
        #expect(budget.free == 0)
        withExtendedLifetime((held, lease)) {}
    }

    @Test func nothingIsLostUnderRandomUse() async throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        let budget = ByteBudget(capacity: 100)
        await withTaskGroup(of: Void.self) { group in
            var random = TestRandom(seed: seed)
            for _ in 0..<500 {
                let bytes = 1 + Int(random.next() % 60)
                let isCancelled = random.next() % 4 == 0
                group.addTask {
                    let task = Task {
                        let lease = try await budget.take(bytes)
                        #expect(budget.free >= 0)
                        await Task.yield()
                        withExtendedLifetime(lease) {}
                    }
                    if isCancelled { task.cancel() }
                    _ = await task.result
                }
            }
        }
        #expect(budget.free == 100 && budget.waiting == 0)
    }
}
