import CCRC32C

/// CRC-32C (Castagnoli), the checksum of log frames: RFC 3720 appendix B.4, reflected polynomial 0x82F63B78.
///
/// With the CPU's own instruction where it has one; else slicing by eight, eight table look-ups for eight bytes.
public struct CRC32C: Sendable {
    private var state: UInt32 = ~0

    public init() {}

    public var value: UInt32 { ~state }

    /// The checksum of `bytes`.
    public static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        var crc = CRC32C()
        crc.update(bytes)
        return crc.value
    }

    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        guard CRC32C.isInHardware else { return updateInSoftware(bytes) }
        guard let start = bytes.baseAddress else { return }
        state = ccrc32c_update(state, start, bytes.count)
    }

    private static let isInHardware = ccrc32c_is_supported()

    /// For tests as well, which compare the two.
    package mutating func updateInSoftware(_ bytes: UnsafeRawBufferPointer) {
        CRC32C.tables.withUnsafeBufferPointer { tables in
            var crc = state
            var index = 0
            while index + 8 <= bytes.count {
                let word =
                    UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)) ^ UInt64(crc)
                crc =
                    tables[7 * 256 + Int(word & 0xFF)] ^ tables[6 * 256 + Int((word >> 8) & 0xFF)]
                    ^ tables[5 * 256 + Int((word >> 16) & 0xFF)] ^ tables[4 * 256 + Int((word >> 24) & 0xFF)]
                    ^ tables[3 * 256 + Int((word >> 32) & 0xFF)] ^ tables[2 * 256 + Int((word >> 40) & 0xFF)]
                    ^ tables[256 + Int((word >> 48) & 0xFF)] ^ tables[Int(word >> 56)]
                index += 8
            }
            while index < bytes.count {
                crc = tables[Int((crc ^ UInt32(bytes[index])) & 0xFF)] ^ (crc >> 8)
                index += 1
            }
            state = crc
        }
    }

    /// The checksum of two pieces one after the other, from the checksums of each.
    ///
    /// Appending zero bytes to the first multiplies its checksum by powers of x modulo the polynomial; see
    /// `crc32_combine` of zlib.
    public static func combine(_ first: UInt32, _ second: UInt32, secondBytes: UInt64) -> UInt32 {
        // Bit 31 stands for x to the 0, bit 23 for x to the 8: one byte.
        var shift: UInt32 = 1 << 31
        var power: UInt32 = 1 << 23
        var bytes = secondBytes
        while bytes > 0 {
            if bytes & 1 == 1 { shift = multiply(shift, power) }
            power = multiply(power, power)
            bytes >>= 1
        }
        return multiply(shift, first) ^ second
    }

    /// The product of two polynomials modulo that of the checksum.
    private static func multiply(_ left: UInt32, _ right: UInt32) -> UInt32 {
        var product: UInt32 = 0
        var shifted = right
        for bit in 0..<32 {
            if left & (1 << (31 - UInt32(bit))) != 0 { product ^= shifted }
            shifted = shifted & 1 == 1 ? (shifted >> 1) ^ polynomial : shifted >> 1
        }
        return product
    }

    private static let polynomial: UInt32 = 0x82F6_3B78

    /// Eight tables of 256 entries, one after the other.
    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 8 * 256)
        for byte in 0..<256 {
            var crc = UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ polynomial : crc >> 1 }
            tables[byte] = crc
        }
        for slice in 1..<8 {
            for byte in 0..<256 {
                let previous = tables[(slice - 1) * 256 + byte]
                tables[slice * 256 + byte] = tables[Int(previous & 0xFF)] ^ (previous >> 8)
            }
        }
        return tables
    }()
}
