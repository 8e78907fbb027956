/// The slot of a key, 0…16383: CRC16/XMODEM mod 16384, as in the Redis Cluster specification.
///
/// When the key holds `{tag}` with a non-empty tag, only the first such tag is hashed, so keys that
/// share a tag share a slot.
public struct HashSlot: RawRepresentable, Hashable, Sendable, Comparable {
    public static let count = 16_384

    public let rawValue: UInt16

    /// Traps where `rawValue` is not below ``count``.
    @inlinable public init(rawValue: UInt16) {
        precondition(rawValue < 16_384, "a hash slot is below 16384")
        self.rawValue = rawValue
    }

    /// The slot of `key`, hash tag respected.
    public init(key: UnsafeRawBufferPointer) {
        self.init(rawValue: CRC16.checksum(HashSlot.hashedPart(of: key)) & 16_383)
    }

    public init(key: some Sequence<UInt8>) {
        if let slot = key.withContiguousStorageIfAvailable({ HashSlot(key: UnsafeRawBufferPointer($0)) }) {
            self = slot
        } else {
            self = Array(key).withUnsafeBytes { HashSlot(key: $0) }
        }
    }

    /// The bytes between the first `{` and the next `}`, or the whole key where there is none between them.
    static func hashedPart(of key: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard let open = key.firstIndex(of: UInt8(ascii: "{")),
            let close = key[(open + 1)...].firstIndex(of: UInt8(ascii: "}")), close > open + 1
        else { return key }
        return UnsafeRawBufferPointer(rebasing: key[(open + 1)..<close])
    }

    @inlinable public static func < (left: HashSlot, right: HashSlot) -> Bool { left.rawValue < right.rawValue }
}

/// CRC16/XMODEM: polynomial 0x1021, initial value 0, neither reflected nor inverted.
enum CRC16 {
    static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt16 {
        table.withUnsafeBufferPointer { table in
            var crc: UInt16 = 0
            for byte in bytes { crc = (crc << 8) ^ table[Int((crc >> 8) ^ UInt16(byte))] }
            return crc
        }
    }

    private static let table: [UInt16] = (0..<256).map { byte in
        var crc = UInt16(byte) << 8
        for _ in 0..<8 { crc = crc & 0x8000 != 0 ? (crc << 1) ^ 0x1021 : crc << 1 }
        return crc
    }
}
