import Core
import NIOCore
import Testing
import Wire

@testable import ReplicatorService

/// Frames that a replicator has in memory.
@Suite struct ReplicationBudgetTests {
    private static func position(_ lsn: UInt64) -> LogPosition {
        lsn == 0 ? .start : LogPosition(term: 1, lsn: lsn, version: Version(rawValue: lsn))
    }

    private func segment(_ lsns: ClosedRange<UInt64>, batchBytes: Int, _ budget: ReplicationBudget) throws -> LogSegment
    {
        var bytes = makeFrame(Self.position(lsns.lowerBound), batchBytes: batchBytes)
        for lsn in lsns.dropFirst() {
            bytes.writeImmutableBuffer(makeFrame(Self.position(lsn), batchBytes: batchBytes))
        }
        return try LogSegment(
            verifying: bytes, after: Self.position(lsns.lowerBound - 1), leaderTerm: 1, budget: budget)
    }

    /// Parts and copies count as long as they are there.
    @Test func countsWhatIsThere() throws {
        let budget = ReplicationBudget(ReplicationLimits())
        do {
            var whole: LogSegment? = try segment(1...10, batchBytes: 1_000, budget)
            let used = budget.usedBytes
            #expect(used >= 10_000)
            let part = whole?.suffix(after: Self.position(5))
            whole = nil
            #expect(budget.usedBytes == used, "the part keeps all bytes alive")
            let joined = LogSegment.joined([try segment(1...5, batchBytes: 1_000, budget), try #require(part)])
            #expect(joined.frameCount == 10 && budget.usedBytes > used)
        }
        #expect(budget.usedBytes == 0)
    }

    /// A node that does not answer holds its part, and leaves the others theirs.
    @Test func aStoppedNodeHoldsItsPartOnly() {
        let limits = ReplicationLimits()
        let budget = ReplicationBudget(limits)
        let stopped = NodeAddress(host: "127.0.0.1", port: 1)
        let other = NodeAddress(host: "127.0.0.1", port: 2)
        let bytes = 10 << 20
        let begun = (0..<32).filter { _ in budget.beginLargePush(bytes, to: stopped, isInTurn: false) }.count
        #expect(begun == limits.largePushesBytesMax / bytes)
        #expect(budget.beginLargePush(bytes, to: other, isInTurn: false))
        #expect(budget.beginLargePush(bytes, to: stopped, isInTurn: true), "bounded by its turn")
        for _ in 0...begun { budget.endLargePush(bytes, to: stopped) }
        #expect(budget.beginLargePush(limits.largePushesBytesMax + 1, to: stopped, isInTurn: false), "one always may")
        #expect(!budget.beginLargePush(1, to: stopped, isInTurn: false))
    }

    /// Nobody is fed, so that nobody waits for a frame larger than the window's share: 32 shards of these were 512 MiB.
    @Test func aWindowKeepsNoLargeFrameForAStoppedFollower() throws {
        var limits = ReplicationLimits()
        limits.windowBytesMax = 100_000
        let budget = ReplicationBudget(limits)
        var feed = ShardFeed(limits: limits)
        var random = SplitMix64(seed: 1)
        feed.adopt(.start, isWanted: false)
        let clock = LeaderClock(term: 1, lsn: 1, milliseconds: 1)
        _ = feed.handle(
            .read(after: .start, .segment(try segment(1...1, batchBytes: 1 << 20, budget), clock)), now: .zero,
            random: &random)
        #expect(budget.usedBytes > 1 << 20, "a follower may want it")
        feed.releaseUnwanted()
        #expect(budget.usedBytes == 0)
    }
}
