public import NIOCore

/// How bytes become the content of a JSON string, RFC 8259 section 7, and numbers their digits.
public enum JSONString {
    /// Text that is longer than that is written as base64 where escapes would more than double it: that bounds a line.
    public static let escapedFreelyBytesMax = 1 << 20

    enum Form: Equatable {
        /// As they are.
        case plain
        /// With escapes, that many bytes altogether.
        case escaped(length: Int)
        case base64

        init(of bytes: UnsafeRawBufferPointer) {
            let plain = JSONString.plainCount(bytes)
            guard plain < bytes.count else {
                self = .plain
                return
            }
            guard let length = JSONString.escapedLength(bytes, from: plain),
                bytes.count <= JSONString.escapedFreelyBytesMax || length <= 2 * bytes.count
            else {
                self = .base64
                return
            }
            self = length == bytes.count ? .plain : .escaped(length: length)
        }
    }

    // MARK: Looking

    /// How many bytes at the start are ASCII that needs no escape; up to seven fewer where another follows.
    private static func plainCount(_ bytes: UnsafeRawBufferPointer) -> Int {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let highs: UInt64 = 0x8080_8080_8080_8080
        var index = 0
        while index + 8 <= bytes.count {
            let word = bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            // The high bit of a byte is set: where it is below 0x20, where it is the character, where it is no ASCII.
            // A borrow may set it in a byte behind such a one too, which does no harm.
            let control = word &- ones &* 0x20
            let quote = (word ^ (ones &* UInt64(UInt8(ascii: "\"")))) &- ones
            let backslash = (word ^ (ones &* UInt64(UInt8(ascii: "\\")))) &- ones
            guard (control | quote | backslash | word) & highs == 0 else { return index }
            index += 8
        }
        while index < bytes.count {
            let byte = bytes[index]
            guard byte >= 0x20, byte < 0x80, escapedBytes(of: byte) == 1 else { return index }
            index += 1
        }
        return index
    }

    /// The length with escapes; nil where the bytes are not UTF-8 (Unicode 15, table 3-7).
    /// - Parameter start: everything before is plain.
    private static func escapedLength(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int? {
        var length = start
        var index = start
        while index < bytes.count {
            let byte = bytes[index]
            if byte < 0x80 {
                length += escapedBytes(of: byte)
                index += 1
                continue
            }
            guard let count = UTF8Text.sequenceLength(bytes, at: index) else { return nil }
            index += count
            length += count
        }
        return length
    }

    private static func escapedBytes(of byte: UInt8) -> Int {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), 0x0A, 0x0D, 0x09: 2
        case 0..<0x20: 6
        default: 1
        }
    }

    // MARK: Writing

    private static let hexDigits: StaticString = "0123456789abcdef"
    private static let base64Digits: StaticString = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    static func writeEscaped(_ bytes: UnsafeRawBufferPointer, length: Int, into buffer: inout ByteBuffer) {
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: length) { output in
            var position = 0
            func write(_ byte: UInt8) {
                output[position] = byte
                position += 1
            }
            for byte in bytes {
                guard byte < 0x80, escapedBytes(of: byte) > 1 else {
                    write(byte)
                    continue
                }
                write(UInt8(ascii: "\\"))
                switch byte {
                case 0x0A: write(UInt8(ascii: "n"))
                case 0x0D: write(UInt8(ascii: "r"))
                case 0x09: write(UInt8(ascii: "t"))
                case 0..<0x20:
                    for digit in "u00".utf8 { write(digit) }
                    write(hexDigits.utf8Start[Int(byte >> 4)])
                    write(hexDigits.utf8Start[Int(byte & 15)])
                default: write(byte)
                }
            }
            assert(position == length)
            return position
        }
    }

    /// Writes the digits of RFC 4648 section 4, with padding.
    public static func writeBase64(_ bytes: UnsafeRawBufferPointer, into buffer: inout ByteBuffer) {
        let length = (bytes.count + 2) / 3 * 4
        let digits = base64Digits.utf8Start
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: length) { output in
            var (input, position) = (0, 0)
            while input < bytes.count {
                let second = input + 1 < bytes.count ? bytes[input + 1] : 0
                let third = input + 2 < bytes.count ? bytes[input + 2] : 0
                let group = Int(bytes[input]) << 16 | Int(second) << 8 | Int(third)
                output[position] = digits[group >> 18]
                output[position + 1] = digits[group >> 12 & 63]
                output[position + 2] = input + 1 < bytes.count ? digits[group >> 6 & 63] : UInt8(ascii: "=")
                output[position + 3] = input + 2 < bytes.count ? digits[group & 63] : UInt8(ascii: "=")
                input += 3
                position += 4
            }
            return length
        }
    }

    /// 16 lower-case digits.
    static func writeHex(_ value: UInt64, into buffer: inout ByteBuffer) {
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: 16) { output in
            for index in 0..<16 { output[index] = hexDigits.utf8Start[Int(value >> UInt64(60 - 4 * index) & 15)] }
            return 16
        }
    }

    static func writeDecimal(_ value: UInt64, into buffer: inout ByteBuffer) {
        // 20 digits are the most that 64 bits have.
        withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { digits in
            var (rest, index) = (value, 20)
            repeat {
                index -= 1
                digits[index] = UInt8(ascii: "0") + UInt8(rest % 10)
                rest /= 10
            } while rest > 0
            buffer.writeBytes(UnsafeRawBufferPointer(rebasing: digits[index...]))
        }
    }
}
