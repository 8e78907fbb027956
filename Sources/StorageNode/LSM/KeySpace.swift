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

/// A value as it is stored: flags, version, bytes.
///
///     0   flags    UInt8    zero; other values are reserved, a record that has them is refused as corrupt
///     1   version  UInt64   big endian
///     9   value
public struct StoredValue {
    public static let headerBytes = 9

    public let version: Version
    /// Valid only as long as the bytes it was decoded from.
    public let bytes: UnsafeRawBufferPointer

    /// Nil where `record` is too short or carries flags that this version does not know.
    @inlinable public init?(decoding record: UnsafeRawBufferPointer) {
        guard record.count >= StoredValue.headerBytes, record[0] == 0 else { return nil }
        version = Version(
            rawValue: UInt64(bigEndian: record.loadUnaligned(fromByteOffset: 1, as: UInt64.self)))
        bytes = UnsafeRawBufferPointer(rebasing: record[StoredValue.headerBytes...])
    }
}
