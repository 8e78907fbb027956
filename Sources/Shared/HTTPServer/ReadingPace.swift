import NIOCore

/// Whether a peer takes its answers fast enough, so that one that trickles does not hold their memory for as long as it
/// likes.
///
/// The peer has a credit of time, which passes. Every byte it takes gives some of it back, never more than there was:
/// who takes `bytesPerSecondMin` or more keeps all of it.
struct ReadingPace {
    /// A peer slower than this is closed once its credit is used up.
    static let bytesPerSecondMin = 65_536

    /// From here on the time runs: `now` where the credit is whole.
    private var since: NIODeadline
    private var pendingBytes = 0

    init(now: NIODeadline) { since = now }

    /// Notes that `pendingBytes` are not yet with the socket.
    mutating func note(pendingBytes: Int, now: NIODeadline) {
        let taken = max(0, self.pendingBytes - pendingBytes)
        self.pendingBytes = pendingBytes
        let (seconds, rest) = taken.quotientAndRemainder(dividingBy: ReadingPace.bytesPerSecondMin)
        let earned =
            TimeAmount.seconds(Int64(seconds))
            + .nanoseconds(Int64(rest) * 1_000_000_000 / Int64(ReadingPace.bytesPerSecondMin))
        since = min(now, since + earned)
    }

    /// Nothing is held back by the peer any more.
    mutating func reset(now: NIODeadline) { self = ReadingPace(now: now) }

    func isTooSlow(now: NIODeadline, credit: TimeAmount) -> Bool { now - since > credit }
}
