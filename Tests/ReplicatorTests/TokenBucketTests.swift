import Testing

@testable import ReplicatorService

@Suite struct TokenBucketTests {
    @Test func theRateHoldsOverAnyTime() {
        var bucket = TokenBucket(bytesPerSecond: 1_000_000)
        var now = Duration.zero
        var bytes = 0
        for _ in 0..<200 {
            now += bucket.take(50_000, now: now)
            bytes += 50_000
        }
        // The last part may go when what was taken before it is paid for, less the burst.
        #expect(now >= .seconds(Double(bytes - 50_000) / 1e6) - .milliseconds(101))
        #expect(now <= .seconds(Double(bytes) / 1e6))
    }

    @Test func aPauseSavesUpNoMoreThanTheBurst() {
        var bucket = TokenBucket(bytesPerSecond: 1_000)
        #expect(bucket.take(100, now: .zero) == .zero)
        let later = Duration.seconds(3_600)
        #expect(bucket.take(100, now: later) == .zero)
        #expect(bucket.take(1_000, now: later) == .zero)
        #expect(bucket.take(1, now: later) >= .milliseconds(999))
    }

    @Test func thoseWhoAskTogetherWaitInOrder() {
        var bucket = TokenBucket(bytesPerSecond: 1_000)
        _ = bucket.take(100, now: .zero)
        let waits = (0..<5).map { _ in bucket.take(500, now: .zero) }
        #expect(waits == waits.sorted() && waits[4] - waits[0] == .seconds(2))
    }

    @Test func rangesShrinkWithTheRate() {
        var limits = ReplicationLimits()
        #expect(limits.snapshotRangeBytes == limits.snapshotRangeBytesMax)
        limits.snapshotBytesPerSecondMax = 1_000
        #expect(limits.snapshotRangeBytes == 500)
        limits.snapshotBytesPerSecondMax = 1
        #expect(limits.snapshotRangeBytes == 1)
        limits.snapshotBytesPerSecondMax = 1 << 40
        #expect(limits.snapshotRangeBytes == limits.snapshotRangeBytesMax)
    }
}
