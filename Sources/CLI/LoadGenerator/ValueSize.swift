import Glibc

/// How long values are, in bytes.
public enum ValueSize: Sendable, Hashable {
    case fixed(Int)
    /// Each length as often as any other.
    case uniform(ClosedRange<Int>)
    /// Most are near the lower end: as YCSB's, zipfian.
    case zipfian(ClosedRange<Int>)
    /// Around the middle, the ends being three standard deviations away.
    case normal(ClosedRange<Int>)

    /// What a server takes by default.
    public static let bytesMax = 16 << 20

    /// `100`, `10-1000`, `zipfian:10-1000`, `normal:10-1000`; nil for anything else, or above ``bytesMax``.
    public init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard let last = parts.last, parts.count <= 2 else { return nil }
        let ends = last.split(separator: "-", omittingEmptySubsequences: false).map(Self.bytes)
        guard ends.count <= 2, let first = ends[0], let end = ends[ends.count - 1], first <= end else { return nil }
        switch (parts.count == 2 ? parts[0] : "", ends.count) {
        case ("", 1): self = .fixed(first)
        case ("", 2): self = .uniform(first...end)
        case ("zipfian", 2): self = .zipfian(first...end)
        case ("normal", 2): self = .normal(first...end)
        default: return nil
        }
    }

    private static func bytes(_ text: Substring) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
            let bytes = Int(text), bytes <= bytesMax
        else { return nil }
        return bytes
    }

    public var range: ClosedRange<Int> {
        switch self {
        case .fixed(let bytes): bytes...bytes
        case .uniform(let range), .zipfian(let range), .normal(let range): range
        }
    }
}

/// Draws lengths.
struct ValueSizes {
    private let size: ValueSize
    private let zipfian: Zipfian?

    init(_ size: ValueSize) {
        self.size = size
        zipfian = if case .zipfian(let range) = size { Zipfian(count: UInt64(range.count)) } else { nil }
    }

    func draw(_ random: inout SplitMix64) -> Int {
        switch size {
        case .fixed(let bytes): return bytes
        case .uniform(let range): return range.lowerBound + Int(random.below(UInt64(range.count)))
        case .zipfian(let range): return range.lowerBound + Int(zipfian!.draw(&random))
        case .normal(let range):
            // Box and Muller 1958.
            let radius = (-2 * log(1 - random.fraction())).squareRoot()
            let deviation = radius * cos(2 * .pi * random.fraction())
            let (middle, width) = (Double(range.lowerBound + range.upperBound) / 2, Double(range.count - 1) / 6)
            return min(max(Int((middle + deviation * width).rounded()), range.lowerBound), range.upperBound)
        }
    }
}
