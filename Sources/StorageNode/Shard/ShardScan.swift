public import Core
import LSM
import NIOCore
public import Wire

/// What a page of one shard may hold.
public struct ScanLimits: Sendable, Hashable {
    public var records: Int
    /// Of frames. A record that does not fit by itself is in the page without its value.
    public var bytes: Int
    /// Records that are looked at, those that are passed over included: that bounds the time of a page.
    public var examined: Int

    public static let examinedDefault = 200_000

    public init(records: Int, bytes: Int, examined: Int = ScanLimits.examinedDefault) {
        self.records = records
        self.bytes = bytes
        self.examined = examined
    }
}

/// Records of one replica, all of one moment.
public struct ShardScanPage: Sendable, Hashable {
    public var page: ScanPage
    public var records = 0
    /// Of the newest record in it; zero for none.
    public var newestVersion = Version.zero
}

extension ShardReplica {
    /// A page of the records in `range`, without those that have expired. Blocks.
    ///
    /// Throws `KVError` as ``Database/scan(_:isLong:_:)`` does.
    /// - Parameter belongs: whether a key is the shard's; others are passed over.
    public func scan(
        _ range: ScanRange, _ limits: ScanLimits, keysOnly: Bool, belongs: (UnsafeRawBufferPointer) -> Bool
    ) throws(KVError) -> ShardScanPage {
        let bounds = ScanBounds(lower: range.lower, upper: range.upper, isReverse: range.isReverse)
        var builder = ShardScanBuilder(range, limits, keysOnly: keysOnly, now: expiries.now())
        try damaged.noting(.scan) { () throws(KVError) in
            try database.scan(bounds, isLong: limits.records > ShardScanBuilder.shortRecordsMax) { key, value in
                builder.take(key, value, belongs: belongs(key))
            }
        }
        return builder.result
    }
}

/// Fills a page.
private struct ShardScanBuilder {
    /// Up to here a scan is short.
    static let shortRecordsMax = 500
    /// Reserved for a start; more as it fills.
    private static let reservedBytesMax = 256 << 10

    private let range: ScanRange
    private let limits: ScanLimits
    private let keysOnly: Bool
    /// What has expired by then is not there; one moment for all of the page.
    private let now: UInt64
    private(set) var result = ShardScanPage(page: ScanPage(frames: ByteBuffer(), next: nil))
    private var examined = 0

    init(_ range: ScanRange, _ limits: ScanLimits, keysOnly: Bool, now: UInt64) {
        self.range = range
        self.limits = limits
        self.keysOnly = keysOnly
        self.now = now
        result.page.frames.reserveCapacity(
            min(limits.bytes, limits.records * 64, ShardScanBuilder.reservedBytesMax))
    }

    /// - Returns: whether there is room for more.
    mutating func take(_ key: UnsafeRawBufferPointer, _ value: StoredValue, belongs: Bool) -> Bool {
        guard belongs, !value.isExpired(at: now) else { return passOver(key) }
        let bytes = ScanFrame.bytes(key: key.count, value: keysOnly ? 0 : value.bytes.count)
        let isFull = result.page.frames.readableBytes + bytes > limits.bytes
        guard result.records < limits.records, !isFull || result.records == 0 else {
            // It is there, and the next page begins with it or before it.
            result.page.next = startAt(key)
            return false
        }
        let content: ScanFrame.Content = isFull ? .oversized : keysOnly ? .keyOnly : .value(value.bytes)
        ScanFrame.write(
            key: key, content, version: value.version, ttlMilliseconds: value.expiresMilliseconds.map { $0 - now },
            into: &result.page.frames)
        result.records += 1
        result.newestVersion = max(result.newestVersion, value.version)
        guard isFull else { return passOver(key) }
        result.page.next = range.next(after: key)
        return false
    }

    /// Counts a record that was looked at.
    private mutating func passOver(_ key: UnsafeRawBufferPointer) -> Bool {
        examined += 1
        guard examined >= limits.examined else { return true }
        result.page.next = range.next(after: key)
        return false
    }

    /// The `start` of a page that begins with `key`.
    private func startAt(_ key: UnsafeRawBufferPointer) -> [UInt8] {
        // Downwards the start does not belong to the range: what lies right behind it does.
        range.isReverse ? Array(key) + [0] : Array(key)
    }
}
