import Core
import Dispatch
import FoundationEssentials
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import LSM

private final class Largest: Sendable {
    private let seen = Mutex(0)
    var bytes: Int { seen.withLock { $0 } }
    func see(_ bytes: Int) { seen.withLock { $0 = max($0, bytes) } }
}

/// Real databases that share one budget.
@Suite(.timeLimit(.minutes(2))) struct MemtableBudgetTests {
    private static let bytesMax = 8 << 20
    private static let databases = 8

    private static func shared() -> SharedResources {
        var options = SharedResources.Options()
        options.memtableBytes = bytesMax
        options.databases = databases
        options.blockCacheBytes = 1 << 20
        return SharedResources(options)
    }

    private static func memtableBytes(_ databases: [Database]) -> Int {
        databases.reduce(0) { $0 + Int((try? $1.sizes().memtableBytes) ?? 0) }
    }

    private func open(_ directory: TemporaryDirectory, _ shared: SharedResources) throws -> [Database] {
        try (0..<Self.databases).map { try Database(path: "\(directory.path)/\($0)", shared: shared) }
    }

    /// Large values in all databases at once: each would keep one in its memtable until it is written to again.
    @Test func largeValuesStayWithinTheBudget() async throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        let directory = try TemporaryDirectory()
        let shared = Self.shared()
        let databases = try open(directory, shared)
        let largest = Largest()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (number, database) in databases.enumerated() {
                group.addTask {
                    try await Self.onThread {
                        var random = SeededGenerator(seed: seed &+ UInt64(number))
                        for round in 0..<12 {
                            let bytes = 1 << (10 + Int(random.next() % 11))
                            let value = String(repeating: "v", count: bytes)
                            try database.put("key-\(round)", value)
                            let held = Self.memtableBytes(databases)
                            largest.see(held)
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        let hard = shared.memtables.hardBytesMax
        // Empty memtables have a block each, and a filter.
        #expect(largest.bytes <= hard + Self.databases * (128 << 10), "seed \(seed)")
        for database in databases {
            #expect(try database.find("key-11") != .missing)
            try database.close()
        }
    }

    /// Nothing is thrown away and nobody waits for ever where a database cannot write its memtable out.
    @Test func aDatabaseThatCannotBeWrittenOutHoldsNobodyUp() async throws {
        let directory = try TemporaryDirectory()
        let shared = Self.shared()
        let databases = try open(directory, shared)
        let value = String(repeating: "v", count: 1 << 20)
        try await Self.onThread {
            for round in 0..<2 { try databases[0].put("a-\(round)", value) }
            // The log is open and goes on; tables cannot be made any more.
            try FileManager.default.moveItem(atPath: databases[0].path, toPath: databases[0].path + ".gone")
            for round in 0..<6 { _ = try? databases[0].put("b-\(round)", value) }
            for round in 0..<20 { try databases[1].put("c-\(round)", value) }
        }
        #expect(throws: KVError.self, "it could be written out after all") { try databases[0].flush() }
        for round in 0..<20 { #expect(try databases[1].find("c-\(round)") != .missing) }
    }

    /// Databases come and go; what they held goes with them.
    @Test func aClosedDatabaseHoldsNothing() async throws {
        let directory = try TemporaryDirectory()
        let shared = Self.shared()
        let value = String(repeating: "v", count: 1 << 20)
        try await Self.onThread {
            for round in 0..<12 {
                let database = try Database(path: "\(directory.path)/\(round)", shared: shared)
                for number in 0..<3 { try database.put("key-\(number)", value) }
                try database.close()
            }
        }
        shared.memtables.look()
        let deadline = ContinuousClock.now + .seconds(10)
        while shared.memtables.usedBytes > 0, ContinuousClock.now < deadline { await Task.yield() }
        #expect(shared.memtables.usedBytes == 0)
    }

    /// Writing may wait, so not on a thread that others need.
    private static func onThread(_ body: @escaping @Sendable () throws -> Void) async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            DispatchQueue(label: "test").async { continuation.resume(with: Result { try body() }) }
        }
    }
}
