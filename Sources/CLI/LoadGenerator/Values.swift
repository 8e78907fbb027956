import Core

/// Makes values: random bytes, which do not compress, the same ones for the same seed; with verification behind a header.
///
/// The header says whose value it is: `"kvb1"`, CRC-32C of all bytes behind it, the key's number, the sequence of the
/// write (each 64 bits, little endian).
struct ValueWriter: ~Copyable {
    static let magic: UInt32 = 0x3162_766B
    static let headerBytes = 24
    private static let crcOffset = 4
    private static let checkedOffset = 8

    /// Random bytes that values are cut from: longer than the longest value by ``poolRoom``.
    private let pool: UnsafeMutableRawBufferPointer
    /// Places in the pool where a value may begin.
    private static let poolRoom = 1 << 16
    private let isVerified: Bool

    init(_ size: ValueSize, isVerified: Bool, seed: UInt64) {
        self.isVerified = isVerified
        let words = (size.range.upperBound + Self.poolRoom) / 8 + 1
        pool = .allocate(byteCount: words * 8, alignment: 8)
        var random = SplitMix64(seed: seed)
        for index in 0..<words { pool.storeBytes(of: random.next(), toByteOffset: index * 8, as: UInt64.self) }
    }

    deinit { pool.deallocate() }

    /// Writes the value of `byteCount` bytes that write `sequence` stores under key `number`: always the same one.
    func write(_ byteCount: Int, key number: UInt64, sequence: UInt64, to target: UnsafeMutableRawPointer) {
        guard byteCount > 0 else { return }
        let start = Int(truncatingIfNeeded: SplitMix64.mix(sequence ^ number) & UInt64(Self.poolRoom - 1))
        target.copyMemory(from: pool.baseAddress! + start, byteCount: byteCount)
        guard isVerified, byteCount >= Self.headerBytes else { return }
        target.storeBytes(of: Self.magic.littleEndian, as: UInt32.self)
        target.storeBytes(of: number.littleEndian, toByteOffset: 8, as: UInt64.self)
        target.storeBytes(of: sequence.littleEndian, toByteOffset: 16, as: UInt64.self)
        let checked = UnsafeRawBufferPointer(start: target + Self.checkedOffset, count: byteCount - Self.checkedOffset)
        target.storeBytes(of: CRC32C.checksum(checked).littleEndian, toByteOffset: Self.crcOffset, as: UInt32.self)
    }
}

/// Reads a value of ``ValueWriter`` as it arrives, in pieces of any length.
struct ValueReader {
    /// The first bytes: magic and CRC, key, sequence.
    private var header: (UInt64, UInt64, UInt64) = (0, 0, 0)
    private var byteCount = 0
    private var crc = CRC32C()

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        var rest = bytes[...]
        if byteCount < ValueWriter.headerBytes {
            let count = min(rest.count, ValueWriter.headerBytes - byteCount)
            let start = byteCount
            withUnsafeMutableBytes(of: &header) { target in
                target.baseAddress!.advanced(by: start).copyMemory(from: bytes.baseAddress!, byteCount: count)
            }
            let unchecked = min(count, max(0, 8 - byteCount))
            crc.update(UnsafeRawBufferPointer(rebasing: rest.prefix(count).dropFirst(unchecked)))
            rest = rest.dropFirst(count)
            byteCount += count
        }
        guard !rest.isEmpty else { return }
        crc.update(UnsafeRawBufferPointer(rebasing: rest))
        byteCount += rest.count
    }

    /// Whose value it was; nil where it is damaged, or none of ``ValueWriter``'s.
    var origin: (key: UInt64, sequence: UInt64)? {
        guard byteCount >= ValueWriter.headerBytes,
            UInt32(truncatingIfNeeded: header.0.littleEndian) == ValueWriter.magic,
            UInt32(truncatingIfNeeded: header.0.littleEndian >> 32) == crc.value
        else { return nil }
        return (header.1.littleEndian, header.2.littleEndian)
    }
}
