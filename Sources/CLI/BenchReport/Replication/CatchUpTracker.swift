/// Finds how fast a follower catches up, from where it is seen to stand.
///
/// Its time begins when it was last seen where it stood at first, so waiting for it to be started does not count, and
/// ends when it is first seen to have everything.
public struct CatchUpTracker: Sendable {
    private let first: UInt64
    private let target: UInt64
    private let keysPerBatch: Double
    private var begun: UInt64
    private var hasMoved = false
    private var ended: UInt64?

    /// - Parameters:
    ///   - first: the follower's lsn at the end of the writes.
    ///   - target: the leader's.
    ///   - keysPerBatch: of the writes between them, on average.
    ///   - nanoseconds: when that was.
    public init(first: UInt64, target: UInt64, keysPerBatch: Double, at nanoseconds: UInt64) {
        self.first = first
        self.target = target
        self.keysPerBatch = keysPerBatch
        begun = nanoseconds
        if first >= target { ended = nanoseconds }
    }

    public mutating func observe(lsn: UInt64, at nanoseconds: UInt64) {
        guard ended == nil else { return }
        if lsn > first { hasMoved = true }
        if !hasMoved { begun = nanoseconds }
        if lsn >= target { ended = nanoseconds }
    }

    public var isDone: Bool { ended != nil }

    /// Keys that it lacked at first.
    public var keysBehind: UInt64 { UInt64((Double(target - min(first, target)) * keysPerBatch).rounded()) }

    /// What there is to say; without a time where it lacked nothing, or has not caught up.
    public var result: ReplicationRunReport.CatchUp {
        let seconds = ended.map { Double($0 - begun) / 1e9 }.flatMap { $0 > 0 && first < target ? $0 : nil }
        return ReplicationRunReport.CatchUp(
            keysBehind: keysBehind, isDone: isDone, seconds: seconds,
            keysPerSecond: seconds.map { Double(keysBehind) / $0 })
    }
}
