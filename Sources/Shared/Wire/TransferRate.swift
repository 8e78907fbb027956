/// How fast bytes arrive, over the last seconds. Pure.
package struct TransferRate: Sendable {
    package static let windowMilliseconds: UInt64 = 5_000
    private static let samplesMax = 64

    private var samples: [(milliseconds: UInt64, bytes: UInt64)] = []

    package init() {}

    /// - Parameter bytes: all there are at this moment.
    package mutating func note(bytes: UInt64, now: UInt64) {
        samples.removeAll { now >= $0.milliseconds + TransferRate.windowMilliseconds }
        // Under many small parts every second sample suffices.
        if samples.count >= TransferRate.samplesMax {
            samples = samples.enumerated().filter { $0.offset % 2 == 0 }.map(\.element)
        }
        samples.append((now, bytes))
    }

    package func bytesPerSecond(now: UInt64) -> UInt64 {
        let recent = samples.filter { now < $0.milliseconds + TransferRate.windowMilliseconds }
        guard let first = recent.first, let last = recent.last, last.bytes > first.bytes else { return 0 }
        return (last.bytes - first.bytes) * 1_000 / max(1, max(now, last.milliseconds) - first.milliseconds)
    }

    package func progress(done: UInt64, total: UInt64, now: UInt64) -> SnapshotProgress {
        let rate = bytesPerSecond(now: now)
        return SnapshotProgress(
            bytesDone: done, bytesTotal: total, bytesPerSecond: rate,
            secondsLeft: rate > 0 ? Double(total - min(done, total)) / Double(rate) : nil)
    }
}
