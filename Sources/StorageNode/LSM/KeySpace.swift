public import Core

/// How the one column family is divided: the first byte of every RocksDB key.
///
/// One column family keeps write batches parseable and lets a follower store its position in the same atomic
/// write as its data.
public enum KeySpace {
    /// Records of the shard itself: positions and terms.
    public static let reserved: UInt8 = 0x00
    /// `user` and then the key bytes of the client.
    public static let user: UInt8 = 0x01
}

/// A value as it is stored: flags, version, when it expires, bytes.
///
///     0   flags    UInt8    bit 0: an expiry follows the version; the others are zero, a record that has them is
///                           refused as corrupt
///     1   version  UInt64   big endian
///     9   expires  UInt64   big endian, milliseconds since the Unix epoch; only with bit 0
///     9 or 17   value
///
/// A value that has expired is still here until a compaction drops it: whoever answers with it asks
/// ``isExpired(at:)`` first, with the time of the shard's ``ExpiryClock``.
public struct StoredValue {
    public static let headerBytes = 9
    /// Of a value that expires.
    public static let expiringHeaderBytes = 17
    static let plainFlags: UInt8 = 0
    static let expiringFlags: UInt8 = 1

    public let version: Version
    /// When it is gone, in milliseconds since the Unix epoch; nil for never.
    public let expiresMilliseconds: UInt64?
    /// Valid only as long as the bytes it was decoded from.
    public let bytes: UnsafeRawBufferPointer

    public init(version: Version, expiresMilliseconds: UInt64? = nil, bytes: UnsafeRawBufferPointer) {
        self.version = version
        self.expiresMilliseconds = expiresMilliseconds
        self.bytes = bytes
    }

    /// Nil where `record` is too short or carries flags that this version does not know.
    public init?(decoding record: UnsafeRawBufferPointer) {
        guard record.count >= StoredValue.headerBytes else { return nil }
        version = Version(
            rawValue: UInt64(bigEndian: record.loadUnaligned(fromByteOffset: 1, as: UInt64.self)))
        if record[0] == StoredValue.plainFlags {
            expiresMilliseconds = nil
            bytes = UnsafeRawBufferPointer(rebasing: record[StoredValue.headerBytes...])
            return
        }
        guard record[0] == StoredValue.expiringFlags, record.count >= StoredValue.expiringHeaderBytes else {
            return nil
        }
        expiresMilliseconds = UInt64(
            bigEndian: record.loadUnaligned(fromByteOffset: StoredValue.headerBytes, as: UInt64.self))
        bytes = UnsafeRawBufferPointer(rebasing: record[StoredValue.expiringHeaderBytes...])
    }

    /// Whether it is gone by then: for everybody but those who handle records as they are, it does not exist.
    /// - Parameter milliseconds: since the Unix epoch.
    public func isExpired(at milliseconds: UInt64) -> Bool {
        guard let expiresMilliseconds else { return false }
        return expiresMilliseconds <= milliseconds
    }
}
