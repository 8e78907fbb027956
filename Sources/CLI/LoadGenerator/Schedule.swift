/// When the operations of an open loop are due: at a fixed rate, whatever became of those before.
///
/// Latencies count from these moments, so an operation that had to wait here because all connections were busy has waited.
/// The operations that are due and not begun are never held: they follow from the moment and from how many have begun.
struct Schedule {
    /// Nanoseconds of the monotonic clock.
    let start: UInt64
    /// Nanoseconds from one operation to the next.
    private let interval: Double
    /// Operations that have been taken.
    private(set) var taken: UInt64 = 0

    /// - Parameters:
    ///   - rate: operations per second, above 0.
    ///   - offset: how far into the first interval the first operation is due, 0 to 1: threads take turns.
    init(rate: Double, start: UInt64, offset: Double = 0) {
        precondition(rate > 0)
        interval = 1e9 / rate
        self.start = start + UInt64(interval * offset)
    }

    /// When the next operation is due.
    var next: UInt64 { due(taken) }

    /// Takes the next operation where it is due at `now`; the moment from which its latency counts.
    mutating func take(now: UInt64) -> UInt64? {
        let due = next
        guard due <= now else { return nil }
        taken += 1
        return due
    }

    private func due(_ index: UInt64) -> UInt64 { start + UInt64(Double(index) * interval) }
}
