/// How keys are called, by their numbers.
///
/// The default is YCSB's order: neighbours in number lie far apart, so that new keys and ranges are spread over the
/// key space. Two numbers never share a name.
public struct KeyNames: Sendable, Equatable {
    /// Bytes of a name: the prefix and 16 hex digits.
    public var byteCount: Int { prefix.count + 16 }
    let prefix: [UInt8]
    let isOrdered: Bool

    /// Bytes of a prefix at most.
    public static let prefixBytesMax = 64

    /// - Parameters:
    ///   - prefix: letters, digits and `-._~/:`, so that it needs no percent-encoding; at most ``prefixBytesMax`` bytes.
    ///   - isOrdered: the names are in the order of the numbers.
    public init(prefix: String = "user", isOrdered: Bool = false) {
        precondition(Self.isValid(prefix: prefix))
        self.prefix = Array(prefix.utf8)
        self.isOrdered = isOrdered
    }

    public static func isValid(prefix: String) -> Bool {
        prefix.utf8.count <= prefixBytesMax
            && prefix.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                    UInt8(ascii: "~"), UInt8(ascii: "/"), UInt8(ascii: ":"):
                    true
                default: false
                }
            }
    }

    public func name(of number: UInt64) -> String {
        var bytes = prefix
        withUnsafeTemporaryAllocation(byteCount: 16, alignment: 1) { digits in
            writeDigits(of: number, digits.baseAddress!)
            bytes.append(contentsOf: digits)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Writes ``byteCount`` bytes at `target`.
    func write(_ number: UInt64, to target: UnsafeMutableRawPointer) {
        prefix.withUnsafeBytes { target.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        writeDigits(of: number, target + prefix.count)
    }

    private func writeDigits(of number: UInt64, _ target: UnsafeMutableRawPointer) {
        // A bijection, see SplitMix64.
        let shown = isOrdered ? number : SplitMix64.mix(number &+ 0x9E37_79B9_7F4A_7C15)
        target.storeBytes(of: Self.digits(of: UInt32(truncatingIfNeeded: shown >> 32)), as: UInt64.self)
        target.storeBytes(of: Self.digits(of: UInt32(truncatingIfNeeded: shown)), toByteOffset: 8, as: UInt64.self)
    }

    /// Eight hex digits, as they stand in memory, all at once.
    private static func digits(of number: UInt32) -> UInt64 {
        // A byte for each of its eight nibbles, the highest one first in memory.
        var nibbles = UInt64(number)
        nibbles = (nibbles | nibbles << 16) & 0x0000_FFFF_0000_FFFF
        nibbles = (nibbles | nibbles << 8) & 0x00FF_00FF_00FF_00FF
        nibbles = ((nibbles | nibbles << 4) & 0x0F0F_0F0F_0F0F_0F0F).bigEndian
        // Adding 6 carries into the upper half of the bytes that are letters.
        let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101
        return nibbles + 0x3030_3030_3030_3030 + letters &* UInt64(UInt8(ascii: "a") - UInt8(ascii: "9") - 1)
    }
}
