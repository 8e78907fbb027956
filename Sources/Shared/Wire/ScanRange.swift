public import Sharding

/// The keys that a scan goes over: those with `prefix` in the half-open range `lower ≤ key < upper` of bytes.
///
/// `start` is where the scan begins and `end` where it ends. Upwards `start` is the lower end and belongs to the range,
/// `end` does not. In reverse the same kind of range is read from its upper end: `start` does not belong to it, `end`
/// does. An empty `start` or `end` is none.
public struct ScanRange: Sendable, Hashable {
    /// One byte more than a key: what lies right behind the longest key is such a bound.
    public static let boundBytesMax = 4_096 + 1

    public let prefix: [UInt8]
    public let start: [UInt8]
    public let end: [UInt8]
    public let isReverse: Bool
    /// The first key that may be in it.
    public let lower: [UInt8]
    /// The first key behind it; nil for the end of the key space.
    public let upper: [UInt8]?

    public init(prefix: [UInt8] = [], start: [UInt8] = [], end: [UInt8] = [], isReverse: Bool = false) {
        (self.prefix, self.start, self.end, self.isReverse) = (prefix, start, end, isReverse)
        let (least, bound) = isReverse ? (end, start) : (start, end)
        let successor = ScanRange.successor(ofPrefix: prefix)
        lower = ScanRange.isBefore(prefix, least) ? least : prefix
        upper = bound.isEmpty || successor.map({ ScanRange.isBefore($0, bound) }) ?? false ? successor : bound
    }

    public var isEmpty: Bool { upper.map { !ScanRange.isBefore(lower, $0) } ?? false }

    /// What is left of it from `next` on, a `start`.
    public func from(_ next: [UInt8]) -> ScanRange {
        ScanRange(prefix: prefix, start: next, end: end, isReverse: isReverse)
    }

    /// The `start` of a scan that goes on right behind `key`.
    public func next(after key: some Collection<UInt8>) -> [UInt8] { isReverse ? Array(key) : Array(key) + [0] }

    /// The slot of every key in the range where a hash tag that they share decides it; nil where they may have several.
    public var slot: HashSlot? {
        guard let open = lower.firstIndex(of: UInt8(ascii: "{")),
            let close = lower[open...].firstIndex(of: UInt8(ascii: "}")), close > open + 1, let upper
        else { return nil }
        let prefix = Array(lower[...close])
        guard let successor = ScanRange.successor(ofPrefix: prefix), !ScanRange.isBefore(successor, upper) else {
            return nil
        }
        return HashSlot(key: prefix)
    }

    /// The first of all keys behind those with the prefix; nil where there is none.
    static func successor(ofPrefix prefix: [UInt8]) -> [UInt8]? {
        guard let last = prefix.lastIndex(where: { $0 < 0xFF }) else { return nil }
        var successor = Array(prefix[...last])
        successor[last] += 1
        return successor
    }

    private static func isBefore(_ left: [UInt8], _ right: [UInt8]) -> Bool { left.lexicographicallyPrecedes(right) }
}

/// The query of a scan: names of its parameters, and what they take.
public enum ScanQuery {
    public static let limitDefault = 100
    public static let limitMax = 10_000

    public static let prefix = "prefix"
    public static let start = "start"
    public static let end = "end"
    public static let limit = "limit"
    public static let reverse = "reverse"
    public static let keysOnly = "keys_only"
    /// Goes on without shards that do not answer.
    public static let partial = "partial"
    /// Of one shard only, by its name; for who merges.
    public static let shard = "shard"
    /// With ``shard``: what a page of frames may have, in bytes.
    public static let bytes = "bytes"

    /// The target of a page of one shard.
    /// - Parameter demands: further parameters, encoded.
    public static func target(
        shard name: String, _ range: ScanRange, limit: Int, bytesMax: Int, keysOnly: Bool, demands: [String] = []
    ) -> String {
        var query = ["\(shard)=\(PercentCoding.encode(name.utf8))"]
        if !range.prefix.isEmpty { query.append("\(prefix)=\(PercentCoding.encode(range.prefix))") }
        if !range.start.isEmpty { query.append("\(start)=\(PercentCoding.encode(range.start))") }
        if !range.end.isEmpty { query.append("\(end)=\(PercentCoding.encode(range.end))") }
        query.append("\(self.limit)=\(limit)")
        query.append("\(bytes)=\(bytesMax)")
        if range.isReverse { query.append("\(reverse)=true") }
        if keysOnly { query.append("\(self.keysOnly)=true") }
        return "\(APIPath.scan)?\((query + demands).joined(separator: "&"))"
    }
}
