/// A reading of a shard's hybrid logical clock: unique and rising within the shard.
///
/// The upper 48 bits are milliseconds since the Unix epoch, the lower 16 bits a counter, so a version
/// says roughly when its write happened and still orders writes of the same millisecond.
/// Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases", 2014.
public struct Version: RawRepresentable, Hashable, Sendable, Comparable {
    public let rawValue: UInt64

    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The version before every write.
    @inlinable public static var zero: Version { Version(rawValue: 0) }

    /// Milliseconds since the Unix epoch.
    @inlinable public var milliseconds: UInt64 { rawValue >> 16 }

    @inlinable public static func < (left: Version, right: Version) -> Bool { left.rawValue < right.rawValue }

    /// The 16 lower-case hex digits of `ETag` and `KV-Version`, most significant first.
    public var hexDigits: String {
        let digits = String(rawValue, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Reads exactly 16 hex digits, of either case; nil for anything else.
    public init?(hexDigits: some StringProtocol) {
        guard hexDigits.utf8.count == 16,
            hexDigits.utf8.allSatisfy({ $0 != UInt8(ascii: "+") && $0 != UInt8(ascii: "-") }),
            let value = UInt64(hexDigits, radix: 16)
        else { return nil }
        self.init(rawValue: value)
    }
}

extension Version: CustomStringConvertible {
    public var description: String { hexDigits }
}

/// Hands out the versions of one shard.
///
/// Invariant: every version handed out is greater than all handed out before and all observed, whatever
/// the wall clock does. Not synchronised: the shard's write actor owns it.
public struct HybridLogicalClock: Sendable {
    public private(set) var last: Version

    public init(last: Version = .zero) { self.last = last }

    /// The next version.
    /// - Parameter wallMilliseconds: the wall clock now, in milliseconds since the Unix epoch.
    @inlinable public mutating func next(wallMilliseconds: UInt64) -> Version {
        tick(wallMilliseconds)
    }

    @usableFromInline mutating func tick(_ wallMilliseconds: UInt64) -> Version {
        last = Version(rawValue: max(wallMilliseconds << 16, last.rawValue + 1))
        return last
    }

    /// Moves past a version that another clock handed out.
    public mutating func observe(_ version: Version) { last = max(last, version) }
}
