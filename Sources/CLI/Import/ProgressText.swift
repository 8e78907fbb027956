import TerminalText

/// How an import that is running looks on a terminal and in a log.
public struct ProgressText: Sendable {
    /// Observations that the rate is taken over.
    private static let windowMax = 16

    private struct Sample {
        let seconds: Double
        let written: UInt64
        let position: UInt64
    }

    /// Bytes of the file; nil where that is not known.
    private let total: UInt64?
    private var samples: [Sample] = []

    public init(total: UInt64?) { self.total = total }

    /// Notes where the import stands `seconds` after its start.
    public mutating func observe(_ counts: ImportCounts, seconds: Double) {
        samples.append(Sample(seconds: seconds, written: counts.written, position: counts.position))
        if samples.count > Self.windowMax { samples.removeFirst() }
    }

    /// `[=====>    ]  53%  1,234,567 keys  48,200/s  ETA 0:12`, at most `width` characters.
    public func bar(_ counts: ImportCounts, width: Int) -> String {
        var text = "\(Format.count(counts.written)) keys  \(Format.count(UInt64(rate)))/s"
        if counts.skipped + counts.failed > 0 { text += "  \(Format.count(counts.skipped + counts.failed)) bad" }
        if let eta { text += "  ETA \(Format.duration(eta))" }
        return ProgressBar.render(fraction(counts), text, width: width)
    }

    /// `1,234,567 keys (53%), 48,200/s, ETA 0:12`.
    public func line(_ counts: ImportCounts) -> String {
        var text = "\(Format.count(counts.written)) keys"
        if let fraction = fraction(counts) { text += " (\(Int(fraction * 100))%)" }
        text += ", \(Format.count(UInt64(rate)))/s"
        if counts.skipped + counts.failed > 0 { text += ", \(Format.count(counts.skipped + counts.failed)) bad" }
        if let eta { text += ", ETA \(Format.duration(eta))" }
        return text
    }

    private func fraction(_ counts: ImportCounts) -> Double? {
        guard let total, total > 0 else { return nil }
        return min(1, Double(counts.position) / Double(total))
    }

    /// Keys per second over the last observations.
    private var rate: Double {
        guard let first = samples.first, let last = samples.last, last.seconds > first.seconds else { return 0 }
        return Double(last.written - first.written) / (last.seconds - first.seconds)
    }

    /// Seconds to the end of the file; nil where nothing can be said.
    private var eta: Double? {
        guard let total, let first = samples.first, let last = samples.last, last.position > first.position,
            last.seconds > first.seconds, total >= last.position
        else { return nil }
        let bytesPerSecond = Double(last.position - first.position) / (last.seconds - first.seconds)
        return Double(total - last.position) / bytesPerSecond
    }
}
