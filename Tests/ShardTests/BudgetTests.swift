import Core
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import Shard

/// Memory that all shards of a process share.
@Suite struct BudgetTests {
    private static func position(_ lsn: UInt64) -> LogPosition {
        LogPosition(term: 1, lsn: lsn, version: Version(rawValue: lsn))
    }

    /// Whoever has most gives, and keeps its fair share as long as that suffices.
    @Test(arguments: 0..<100) func framesOfRandomSizes(number: Int) {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        let bytesMax = 1_000
        var holdings = (0..<(1 + random.next() % 20)).map { (id: $0, bytes: 0) }
        for _ in 0..<500 {
            let taker = Int(random.next() % UInt64(holdings.count))
            holdings[taker].bytes += Int(random.next() % 400)
            var rounds = 0
            while let giver = FrameShares.giver(holdings, bytesMax: bytesMax) {
                let index = Int(giver.id)
                let largest = holdings.map(\.bytes).max() ?? 0
                #expect(holdings[index].bytes == largest, "seed \(seed)")
                #expect(
                    giver.bytes > 0 && holdings[index].bytes - giver.bytes >= bytesMax / holdings.count - 1,
                    "seed \(seed)")
                holdings[index].bytes -= giver.bytes
                rounds += 1
                guard rounds <= holdings.count else {
                    Issue.record("more rounds than rings, seed \(seed)")
                    return
                }
            }
            #expect(holdings.reduce(0) { $0 + $1.bytes } <= bytesMax, "seed \(seed)")
        }
    }

    @Test func logsShareTheirFrames() {
        let budget = FrameBudget(bytesMax: 1 << 20)
        let logs = (0..<4).map { _ in
            CommitLog(position: .start, ringBytesMax: 16 << 20, waitersMax: 1, budget: budget)
        }
        func publish(_ log: CommitLog, _ lsn: UInt64, bytes: Int) {
            log.publish([
                CommitLog.Batch(
                    position: Self.position(lsn), frame: ByteBuffer(repeating: 0, count: bytes), sequence: lsn)
            ])
        }
        for lsn in 1...20 { publish(logs[0], UInt64(lsn), bytes: 32_000) }
        #expect(logs[0].position(at: 1) != nil, "idle shards leave room")
        for lsn in 1...10 { for log in logs.dropFirst() { publish(log, UInt64(lsn), bytes: 16_000) } }
        #expect(budget.usedBytes <= 1 << 20)
        #expect(budget.usedBytes == logs.reduce(0) { $0 + $1.frameBytes.load(ordering: .relaxed) })
        #expect(logs[0].position(at: 1) == nil, "who has most gives")
        for log in logs.dropFirst() { #expect(log.position(at: 1) != nil, "a fair share stays") }
        // What was given up is answered from the disk, without a gap.
        guard case .needsDisk = logs[0].read(after: .start, bytesMax: 1 << 20) else {
            Issue.record("frames that are gone were given")
            return
        }
    }

    @Test func aLogThatEndsHoldsNothing() {
        let budget = FrameBudget(bytesMax: 1 << 20)
        do {
            let log = CommitLog(position: .start, ringBytesMax: 16 << 20, waitersMax: 1, budget: budget)
            log.publish([
                CommitLog.Batch(position: Self.position(1), frame: ByteBuffer(repeating: 0, count: 9_000), sequence: 1)
            ])
            #expect(budget.usedBytes >= 9_000)
        }
        #expect(budget.usedBytes == 0)
    }

    /// Within its share a shard is never refused, all together never have more than the budget, and nothing is lost of it.
    @Test(arguments: 0..<100) func inboxesOfRandomLoads(number: Int) {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        let budget = InboxBudget(bytesMax: 10_000)
        let shards = 1 + Int(random.next() % 10)
        for _ in 0..<shards { budget.join() }
        let share = budget.shareBytes
        var accounts = Array(repeating: InboxAccount(), count: shards)
        for _ in 0..<2_000 {
            let shard = Int(random.next() % UInt64(shards))
            if random.next() % 3 == 0 {
                let bytes = Int(random.next() % UInt64(accounts[shard].held + 1))
                budget.takeBack(accounts[shard].release(bytes, share: share))
                budget.changed(by: -bytes)
            } else {
                let bytes = Int(random.next() % 800)
                let isWithinShare = accounts[shard].held + bytes <= share
                let isTaken = accounts[shard].add(bytes, share: share, lend: budget.lend)
                if isTaken { budget.changed(by: bytes) }
                #expect(isTaken || !isWithinShare, "seed \(seed)")
            }
            #expect(budget.usedBytes == accounts.reduce(0) { $0 + $1.held }, "seed \(seed)")
            #expect(budget.usedBytes <= budget.bytesMax, "seed \(seed)")
        }
        for account in accounts { budget.leave(account) }
        #expect(budget.usedBytes == 0)
        #expect(budget.lend(budget.bytesMax / 2), "what was lent is back")
    }

    /// One shard is flooded; another one is served.
    @Test func aFloodStopsNobodyElse() throws {
        let budget = InboxBudget(bytesMax: 1 << 20)
        let flooded = WriterInbox(shard: "a", bytesMax: 64 << 20, operationsMax: 65_536, budget: budget)
        let other = WriterInbox(shard: "b", bytesMax: 64 << 20, operationsMax: 65_536, budget: budget)
        let item = WriterInbox.Item.write(Submission(operations: [], isAtomic: false) { _ in })
        let load = WriterInbox.Load(bytes: 50_000, operations: 1)
        var refusal: KVError?
        for _ in 0..<100 where refusal == nil {
            do throws(KVError) { _ = try flooded.add(item, load) } catch { refusal = error }
        }
        #expect(refusal?.code == .overloaded)
        for _ in 0..<5 { _ = try other.add(item, load) }
        // What is done is free again.
        _ = flooded.take()
        flooded.settle()
        for _ in 0..<10 { _ = try flooded.add(item, load) }
    }
}
