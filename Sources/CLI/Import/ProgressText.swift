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
        guard let fraction = fraction(counts) else { return String(text.prefix(width)) }
        let percent = String(Int(fraction * 100))
        text = String(repeating: " ", count: max(0, 3 - percent.count)) + percent + "%  " + text
        let room = min(width - text.count - 4, 40)
        guard room >= 5 else { return String(text.prefix(width)) }
        let filled = Int(fraction * Double(room))
        let done = String(repeating: "=", count: max(0, filled - 1)) + (filled > 0 ? ">" : "")
        return "[\(done)\(String(repeating: " ", count: room - filled))]  \(text)"
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

/// Numbers for people.
public enum Format {
    /// `1,234,567`
    public static func count(_ number: UInt64) -> String {
        let digits = Array(String(number))
        var text = ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { text += "," }
            text.append(digit)
        }
        return text
    }

    /// `512 B`, `1.5 KiB`, `12.0 MiB`
    public static func bytes(_ number: UInt64) -> String {
        guard number >= 1_024 else { return "\(number) B" }
        var (value, unit) = (Double(number), 0)
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        // 1023.95 would be written as 1024.0.
        while value >= 1_023.95 && unit < units.count - 1 {
            value /= 1_024
            unit += 1
        }
        return "\(decimal(value)) \(units[unit])"
    }

    /// One digit after the point.
    public static func decimal(_ number: Double) -> String {
        let tenths = UInt64((number * 10).rounded())
        return "\(count(tenths / 10)).\(tenths % 10)"
    }

    /// `0:07`, `12:34`, `1:02:03`
    public static func duration(_ seconds: Double) -> String {
        let whole = UInt64(max(0, min(seconds, 359_999)).rounded())
        func two(_ number: UInt64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let (hours, minutes) = (whole / 3_600, whole / 60 % 60)
        return hours > 0 ? "\(hours):\(two(minutes)):\(two(whole % 60))" : "\(minutes):\(two(whole % 60))"
    }
}
