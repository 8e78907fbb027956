import Synchronization

/// A token bucket, kept as the time at which what was taken is paid for (the generic cell rate algorithm of ATM).
///
/// Pure. Nothing is refused: who takes what is not there yet is told how long to wait, in the order of asking.
struct TokenBucket: Sendable {
    let bytesPerSecond: Int
    /// How much may go at once after a pause, as the time it takes at the rate.
    private let burst: Duration
    private var paidAt: Duration

    /// - Parameter bytesPerSecond: at least 1.
    init(bytesPerSecond: Int, burst: Duration = .milliseconds(100), now: Duration = .zero) {
        precondition(bytesPerSecond > 0, "a bucket without tokens would let nothing pass, ever")
        self.bytesPerSecond = bytesPerSecond
        self.burst = burst
        paidAt = now - burst
    }

    /// Takes tokens for `bytes`; returns how long to wait before they may be used.
    mutating func take(_ bytes: Int, now: Duration) -> Duration {
        let start = max(paidAt, now - burst)
        paidAt = start + .seconds(Double(bytes) / Double(bytesPerSecond))
        return max(.zero, start - now)
    }
}

/// The pace of all snapshots that a process carries, together.
final class SnapshotPacer: Sendable {
    private let bucket: Mutex<TokenBucket?>
    private let start = ContinuousClock.now

    /// - Parameter bytesPerSecondMax: nil for no limit.
    init(bytesPerSecondMax: Int?) {
        bucket = Mutex(bytesPerSecondMax.map { TokenBucket(bytesPerSecond: max(1, $0)) })
    }

    /// Waits until `bytes` may be carried. Throws `CancellationError`, nothing else.
    func pass(_ bytes: Int) async throws {
        let wait = bucket.withLock { $0?.take(bytes, now: ContinuousClock.now - start) } ?? .zero
        if wait > .zero { try await Task.sleep(for: wait) }
    }
}
