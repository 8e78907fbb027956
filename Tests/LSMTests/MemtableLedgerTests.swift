import TestSupport
import Testing

@testable import LSM

/// Decisions about memtables, in random schedules of writes, of writing out and of failures.
@Suite struct MemtableLedgerTests {
    /// Databases as the ledger sees them, and what it decided.
    private struct World {
        var ledger: MemtableLedger
        var active: [Int]
        var immutable: [Int]
        var isStuck: [Bool]
        /// Writes that wait, in their order, and those that hold room.
        var waiting: [(ticket: UInt64, database: Int, bytes: Int)] = []
        var begun: [(database: Int, bytes: Int)] = []
        var used = 0

        init(databases: Int, bytesMax: Int) {
            ledger = MemtableLedger(bytesMax: bytesMax, worthBytesMin: bytesMax / databases / 6)
            active = Array(repeating: 0, count: databases)
            immutable = active
            isStuck = Array(repeating: false, count: databases)
        }

        var held: Int { active.reduce(0, +) + immutable.reduce(0, +) }

        mutating func look() {
            let before = ledger.reserved
            ledger.measured(
                Dictionary(
                    uniqueKeysWithValues: active.indices.map { index in
                        (
                            UInt64(index),
                            MemtableLedger.Holding(
                                active: active[index], total: active[index] + immutable[index],
                                isFlushing: immutable[index] > 0, isStuck: isStuck[index])
                        )
                    }))
            used = ledger.total + before
            for victim in ledger.victims().map(Int.init) {
                #expect(immutable[victim] == 0 && !isStuck[victim] && active[victim] >= ledger.worthBytesMin)
                immutable[victim] = active[victim]
                active[victim] = 0
            }
        }

        mutating func write(_ bytes: Int, to database: Int) {
            if ledger.begin(bytes: bytes, used: used) {
                used += bytes
                begun.append((database, bytes))
            } else {
                waiting.append((ledger.wait(bytes: bytes), database, bytes))
            }
        }

        /// Whoever is first in line tries again; nobody else is let through.
        mutating func letGo() {
            for other in waiting.dropFirst() {
                let overtakes = ledger.mayBegin(other.ticket, used: used)
                #expect(!overtakes)
            }
            guard let first = waiting.first, ledger.mayBegin(first.ticket, used: used) else { return }
            waiting.removeFirst()
            used += first.bytes
            begun.append((first.database, first.bytes))
        }

        /// A write that was let through is in its memtable.
        mutating func land(_ index: Int) {
            let write = begun.remove(at: index)
            active[write.database] += write.bytes
            ledger.done(bytes: write.bytes)
        }

        mutating func finishFlush(of database: Int) {
            if isStuck[database] { return }
            immutable[database] = 0
        }
    }

    @Test(arguments: 0..<200) func everySchedule(number: Int) {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        func pick(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
        let databases = 1 + pick(12)
        let bytesMax = 1 << 20
        var world = World(databases: databases, bytesMax: bytesMax)
        let largest = [bytesMax / 8, bytesMax / 2, 2 * bytesMax][pick(3)]
        for _ in 0..<600 {
            switch pick(10) {
            case 0..<4: world.write(1 + pick(largest), to: pick(databases))
            case 4..<6: if !world.begun.isEmpty { world.land(pick(world.begun.count)) }
            case 6..<8: world.finishFlush(of: pick(databases))
            case 8:
                world.look()
                world.letGo()
            default: if number % 4 == 0, pick(20) == 0 { world.isStuck[pick(databases)] = true }
            }
            guard number % 4 != 0 else { continue }
            // One that alone is larger than the budget is let through when nothing else is there.
            let reserved = world.begun.reduce(0) { $0 + $1.bytes }
            #expect(
                world.held + reserved <= max(world.ledger.hardBytesMax, 2 * largest) + world.ledger.worthBytesMin
                    * databases,
                "seed \(seed)")
        }
        // Once writing out gets on, everybody is let go.
        var rounds = 0
        while !world.waiting.isEmpty {
            while !world.begun.isEmpty { world.land(0) }
            for database in 0..<databases { world.finishFlush(of: database) }
            world.look()
            world.letGo()
            rounds += 1
            guard rounds < 10_000 else {
                Issue.record("a write waits for ever, seed \(seed)")
                return
            }
        }
    }

    /// What is left in databases that nobody writes to makes room for those that are.
    @Test func idleOnesAreWrittenOut() {
        var ledger = MemtableLedger(bytesMax: 1_000, worthBytesMin: 10)
        func holding(_ active: Int, isStuck: Bool = false) -> MemtableLedger.Holding {
            MemtableLedger.Holding(active: active, total: active, isStuck: isStuck)
        }
        ledger.measured([1: holding(200), 2: holding(190), 3: holding(100), 4: holding(5)])
        #expect(ledger.victims() == [], "half of the budget is not exceeded")
        ledger.measured([1: holding(200), 2: holding(190), 3: holding(300), 4: holding(5)])
        #expect(ledger.victims() == [3])
        ledger.measured([1: holding(200), 2: holding(190), 3: holding(300, isStuck: true), 4: holding(5)])
        #expect(ledger.victims() == [], "what cannot be written out is not, and the others are few")
        _ = ledger.wait(bytes: 800)
        #expect(ledger.victims() == [1], "somebody needs the room")
    }
}
