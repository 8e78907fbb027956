import Core
import LSM
import NIOCore

/// The shard's own records in the reserved key space.
///
///     0x00 'p'              position    term, lsn, version: three UInt64, big endian. First record of every batch.
///     0x00 't' term (BE)    term start  the lsn of the term's first batch, and the version of the batch before it:
///                                       two UInt64, big endian. In that batch only. Older data has the lsn alone.
///
/// The position travels in the same atomic write as the data, so a replica's position never disagrees with its
/// content; and since every batch carries one, the write-ahead log describes itself.
enum SystemRecords {
    static let positionKey: [UInt8] = [KeySpace.reserved, UInt8(ascii: "p")]
    static let positionBytes = 24
    /// What position and term start take in a batch, at most.
    static let batchOverheadBytes = 80

    /// What every term-start key begins with.
    static let termStartPrefix: [UInt8] = [KeySpace.reserved, UInt8(ascii: "t")]

    static func termStartKey(_ term: UInt64) -> [UInt8] {
        termStartPrefix + withUnsafeBytes(of: term.bigEndian) { Array($0) }
    }

    static func decodePosition(_ bytes: UnsafeRawBufferPointer) -> LogPosition? {
        guard bytes.count == positionBytes else { return nil }
        return LogPosition(
            term: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
            lsn: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
            version: Version(rawValue: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self))))
    }

    static func isPositionKey(_ key: UnsafeRawBufferPointer) -> Bool {
        key.count == 2 && key[0] == KeySpace.reserved && key[1] == UInt8(ascii: "p")
    }

    /// The term of a term-start key; nil for any other key.
    static func termOfTermStart(_ key: UnsafeRawBufferPointer) -> UInt64? {
        guard key.count == 10, key[0] == KeySpace.reserved, key[1] == UInt8(ascii: "t") else { return nil }
        return UInt64(bigEndian: key.loadUnaligned(fromByteOffset: 2, as: UInt64.self))
    }

    /// Of a term-start record; `previousVersion` is nil in records of the older format. Nil for any other value.
    static func decodeTermStart(
        _ value: UnsafeRawBufferPointer
    ) -> (firstLsn: UInt64, previousVersion: Version?)? {
        guard value.count == 8 || value.count == 16 else { return nil }
        let firstLsn = UInt64(bigEndian: value.loadUnaligned(as: UInt64.self))
        guard value.count == 16 else { return (firstLsn, nil) }
        let version = UInt64(bigEndian: value.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        return (firstLsn, Version(rawValue: version))
    }
}

extension WriteBatchBuilder {
    mutating func putPosition(_ position: LogPosition) {
        let fields = (position.term.bigEndian, position.lsn.bigEndian, position.version.rawValue.bigEndian)
        SystemRecords.positionKey.withUnsafeBytes { key in
            withUnsafeBytes(of: fields) { value in putRaw(key: key, value: value) }
        }
    }

    mutating func putTermStart(_ start: TermStart) {
        let fields = (start.firstLsn.bigEndian, start.previousVersion.rawValue.bigEndian)
        SystemRecords.termStartKey(start.term).withUnsafeBytes { key in
            withUnsafeBytes(of: fields) { value in putRaw(key: key, value: value) }
        }
    }
}
