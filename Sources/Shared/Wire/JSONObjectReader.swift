public import Core
public import NIOCore

/// Reads the objects of NDJSON lines, RFC 8259, member by member and without a document in between.
///
/// Strings come out as slices of the buffer that is read wherever they hold no escape. What it reads is untrusted: it
/// never reads past its line, and holds nothing that a line could make large.
///
///     var reader = JSONObjectReader(bytes, line, of: buffer)
///     try reader.begin()
///     while let name = try reader.nextMember() { … try reader.string(name) … }
///     try reader.end()
public struct JSONObjectReader {
    /// A member's name, to be matched against the ones that are known.
    public struct Name {
        fileprivate let bytes: ByteBuffer

        /// - Parameter text: ASCII.
        @inline(__always) public static func ~= (text: StaticString, name: Name) -> Bool {
            guard name.bytes.readableBytes == text.utf8CodeUnitCount else { return false }
            return name.bytes.withUnsafeReadableBytes {
                $0.elementsEqual(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
            }
        }

        public var text: String { String(buffer: bytes) }
    }

    /// The whole buffer's readable bytes; only those of the line are read.
    private let bytes: UnsafeRawBufferPointer
    private let buffer: ByteBuffer
    private let line: Range<Int>
    private var index: Int
    private var isFirst = true

    /// - Parameters:
    ///   - bytes: the readable bytes of `buffer`, valid as long as this reader is used.
    ///   - line: the place of the line in `bytes`, without its LF.
    ///   - buffer: what strings are slices of.
    public init(_ bytes: UnsafeRawBufferPointer, _ line: Range<Int>, of buffer: ByteBuffer) {
        precondition(line.lowerBound >= 0 && line.upperBound <= bytes.count)
        self.bytes = bytes
        self.buffer = buffer
        self.line = line
        index = line.lowerBound
    }

    // MARK: Objects

    /// Reads the start of the object.
    public mutating func begin() throws(KVError) {
        skipSpace()
        try expect(UInt8(ascii: "{"), "an object")
    }

    /// The name of the next member, up to its colon; nil behind the last one.
    public mutating func nextMember() throws(KVError) -> Name? {
        skipSpace()
        if isFirst {
            isFirst = false
            if take(UInt8(ascii: "}")) { return nil }
        } else if !take(UInt8(ascii: ",")) {
            try expect(UInt8(ascii: "}"), "a comma or the end of the object")
            return nil
        }
        skipSpace()
        let name = Name(bytes: try text("the name of a member"))
        skipSpace()
        try expect(UInt8(ascii: ":"), "a colon")
        skipSpace()
        return name
    }

    /// Makes sure that nothing follows the object.
    public mutating func end() throws(KVError) {
        skipSpace()
        guard index == line.upperBound else { throw defect("something follows the object") }
    }

    // MARK: Values

    /// The content of a string as UTF-8, escapes resolved.
    public mutating func string(_ name: Name) throws(KVError) -> ByteBuffer {
        guard peek == UInt8(ascii: "\"") else {
            throw defect("a string as the value of \"\(name.text)\" is expected")
        }
        return try text("a string")
    }

    /// Bytes that a string gives as base64, RFC 4648 section 4, with padding.
    public mutating func base64(_ name: Name) throws(KVError) -> ByteBuffer {
        guard let decoded = Base64.decode(try string(name)) else {
            throw KVError(.invalidData, "\"\(name.text)\" is not base64 (RFC 4648 section 4, with padding)")
        }
        return decoded
    }

    /// A string, or an array of strings.
    /// - Parameter countMax: more are refused.
    public mutating func strings(_ name: Name, countMax: Int) throws(KVError) -> [ByteBuffer] {
        guard peek == UInt8(ascii: "[") else { return [try string(name)] }
        index += 1
        var texts: [ByteBuffer] = []
        skipSpace()
        if take(UInt8(ascii: "]")) { return texts }
        while true {
            skipSpace()
            guard texts.count < countMax else {
                throw KVError(.invalidData, "\"\(name.text)\" has more than \(countMax) elements")
            }
            texts.append(try string(name))
            skipSpace()
            if take(UInt8(ascii: "]")) { return texts }
            try expect(UInt8(ascii: ","), "a comma or the end of the array")
        }
    }

    /// A whole number of 64 bits.
    public mutating func integer(_ name: Name) throws(KVError) -> Int64 {
        let start = index
        while let byte = peek, byte == UInt8(ascii: "-") || (0x30...0x39).contains(byte) { index += 1 }
        let digits = String(decoding: UnsafeRawBufferPointer(rebasing: bytes[start..<index]), as: UTF8.self)
        let unsigned = digits.first == "-" ? digits.dropFirst() : digits[...]
        guard let number = Int64(digits), unsigned == "0" || unsigned.first != "0", !isInsideNumber else {
            index = start
            throw defect("a whole number of 64 bits as the value of \"\(name.text)\" is expected")
        }
        return number
    }

    private var isInsideNumber: Bool {
        peek == UInt8(ascii: ".") || peek == UInt8(ascii: "e") || peek == UInt8(ascii: "E")
    }

    /// The literal `true`, and nothing else.
    public mutating func literalTrue(_ name: Name) throws(KVError) {
        let word: StaticString = "true"
        guard line.upperBound - index >= word.utf8CodeUnitCount,
            bytes[index..<index + word.utf8CodeUnitCount].elementsEqual(
                UnsafeRawBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount))
        else { throw defect("true as the value of \"\(name.text)\" is expected") }
        index += word.utf8CodeUnitCount
    }

    // MARK: Characters

    @inline(__always) private var peek: UInt8? { index < line.upperBound ? bytes[index] : nil }

    @inline(__always) private mutating func take(_ byte: UInt8) -> Bool {
        guard peek == byte else { return false }
        index += 1
        return true
    }

    @inline(__always) private mutating func skipSpace() {
        while let byte = peek, byte == 0x20 || byte == 0x09 || byte == 0x0D || byte == 0x0A { index += 1 }
    }

    @inline(__always) private mutating func expect(_ byte: UInt8, _ what: StaticString) throws(KVError) {
        guard take(byte) else { throw defect("\(what) is expected") }
    }

    @inline(never) private func defect(_ what: String) -> KVError {
        KVError(.invalidData, "not JSON: \(what) at byte \(index - line.lowerBound + 1)")
    }

    private mutating func text(_ what: StaticString) throws(KVError) -> ByteBuffer {
        try expect(UInt8(ascii: "\""), what)
        let start = index
        var isASCII = true
        index = JSONScan.plainEnd(bytes, from: index, to: line.upperBound, isASCII: &isASCII)
        guard peek == UInt8(ascii: "\"") else { return try escapedText(from: start) }
        let content = start..<index
        if !isASCII, !UTF8Text.isValid(UnsafeRawBufferPointer(rebasing: bytes[content])) { throw notUTF8 }
        index += 1
        // In bounds: the bytes are those of the buffer.
        return buffer.getSlice(at: buffer.readerIndex + content.lowerBound, length: content.count) ?? ByteBuffer()
    }

    private var notUTF8: KVError { defect("the string before is not UTF-8 (use base64 for other bytes)") }

    /// The content of a string that starts at `start` and holds something other than plain characters.
    private mutating func escapedText(from start: Int) throws(KVError) -> ByteBuffer {
        var content = ByteBuffer(bytes: bytes[start..<index])
        while true {
            switch peek {
            case UInt8(ascii: "\""):
                guard content.withUnsafeReadableBytes(UTF8Text.isValid) else { throw notUTF8 }
                index += 1
                return content
            case UInt8(ascii: "\\"):
                index += 1
                try escape(&content)
            case nil: throw defect("a string does not end")
            default: throw defect("a control character must be escaped")
            }
            var isASCII = true
            let end = JSONScan.plainEnd(bytes, from: index, to: line.upperBound, isASCII: &isASCII)
            content.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[index..<end]))
            index = end
        }
    }

    private mutating func escape(_ content: inout ByteBuffer) throws(KVError) {
        guard let byte = peek else { throw defect("a string does not end") }
        index += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): content.writeInteger(byte)
        case UInt8(ascii: "b"): content.writeInteger(UInt8(0x08))
        case UInt8(ascii: "f"): content.writeInteger(UInt8(0x0C))
        case UInt8(ascii: "n"): content.writeInteger(UInt8(0x0A))
        case UInt8(ascii: "r"): content.writeInteger(UInt8(0x0D))
        case UInt8(ascii: "t"): content.writeInteger(UInt8(0x09))
        case UInt8(ascii: "u"):
            var code = try hexDigits()
            if (0xD800..<0xDC00).contains(code) {
                guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else {
                    throw defect("half of a surrogate pair")
                }
                let low = try hexDigits()
                guard (0xDC00..<0xE000).contains(low) else { throw defect("half of a surrogate pair") }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code), let encoded = UTF8.encode(scalar) else {
                throw defect("half of a surrogate pair")
            }
            content.writeBytes(encoded)
        default: throw defect("an unknown escape")
        }
    }

    private mutating func hexDigits() throws(KVError) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            let digit: UInt8
            switch peek {
            case .some(let byte) where (0x30...0x39).contains(byte): digit = byte - 0x30
            case .some(let byte) where (0x41...0x46).contains(byte): digit = byte - 0x41 + 10
            case .some(let byte) where (0x61...0x66).contains(byte): digit = byte - 0x61 + 10
            default: throw defect("four hex digits are expected")
            }
            code = code << 4 | UInt32(digit)
            index += 1
        }
        return code
    }
}

/// Looks through the content of JSON strings, eight bytes at a time.
enum JSONScan {
    fileprivate static let ones: UInt64 = 0x0101_0101_0101_0101
    fileprivate static let highs: UInt64 = 0x8080_8080_8080_8080

    /// The place of the first quote, backslash or control character in `bytes`, from `start` on; `end` where there is
    /// none before that.
    /// - Parameter isASCII: set to false where a byte before that place is not ASCII.
    static func plainEnd(
        _ bytes: UnsafeRawBufferPointer, from start: Int, to end: Int, isASCII: inout Bool
    ) -> Int {
        var index = start
        var seen: UInt64 = 0
        defer { if seen & highs != 0 { isASCII = false } }
        while index + 8 <= end {
            let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self))
            // Exact for the lowest byte that is marked; a borrow can only mark bytes behind it.
            let control = (word &- ones &* 0x20) & ~word
            let quote = word ^ (ones &* 0x22)
            let backslash = word ^ (ones &* 0x5C)
            let marks = (control | ((quote &- ones) & ~quote) | ((backslash &- ones) & ~backslash)) & highs
            guard marks == 0 else {
                let offset = marks.trailingZeroBitCount & ~7
                seen |= word & ((1 << UInt64(offset)) &- 1)
                return index + offset >> 3
            }
            seen |= word
            index += 8
        }
        while index < end {
            let byte = bytes[index]
            if byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { break }
            seen |= UInt64(byte)
            index += 1
        }
        return index
    }
}

extension JSONScan {
    /// The place of the first LF in `bytes`, from `start` on; their end where there is none.
    static func lineEnd(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        var index = start
        while index + 8 <= bytes.count {
            let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self))
            let lineFeed = word ^ (ones &* 0x0A)
            let marks = (lineFeed &- ones) & ~lineFeed & highs
            if marks != 0 { return index + marks.trailingZeroBitCount >> 3 }
            index += 8
        }
        while index < bytes.count, bytes[index] != UInt8(ascii: "\n") { index += 1 }
        return index
    }
}

/// UTF-8 as Unicode 15 has it, table 3-7: neither overlong forms nor surrogates.
enum UTF8Text {
    static func isValid(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var index = 0
        while index < bytes.count {
            if bytes[index] < 0x80 {
                index += 1
                continue
            }
            guard let length = sequenceLength(bytes, at: index) else { return false }
            index += length
        }
        return true
    }

    /// How many bytes the character at `index`, which is not ASCII, has; nil where it is none.
    static func sequenceLength(_ bytes: UnsafeRawBufferPointer, at index: Int) -> Int? {
        let second: ClosedRange<UInt8>
        let length: Int
        switch bytes[index] {
        case 0xC2...0xDF: (second, length) = (0x80...0xBF, 2)
        case 0xE0: (second, length) = (0xA0...0xBF, 3)
        case 0xED: (second, length) = (0x80...0x9F, 3)
        case 0xE1...0xEF: (second, length) = (0x80...0xBF, 3)
        case 0xF0: (second, length) = (0x90...0xBF, 4)
        case 0xF1...0xF3: (second, length) = (0x80...0xBF, 4)
        case 0xF4: (second, length) = (0x80...0x8F, 4)
        default: return nil
        }
        guard index + length <= bytes.count, second.contains(bytes[index + 1]) else { return nil }
        for further in index + 2..<max(index + length, index + 2) where bytes[further] & 0xC0 != 0x80 { return nil }
        return length
    }
}

/// RFC 4648 section 4, with padding, and strict: no other characters, and no bits that decode to nothing.
enum Base64 {
    private static let invalid: UInt8 = 0xFF
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: invalid, count: 256)
        for (value, digit) in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8.enumerated() {
            values[Int(digit)] = UInt8(value)
        }
        return values
    }()

    static func decode(_ text: ByteBuffer) -> ByteBuffer? {
        let length = text.readableBytes
        guard length > 0 else { return ByteBuffer() }
        guard length % 4 == 0 else { return nil }
        var decoded = ByteBuffer()
        var isValid = true
        decoded.writeWithUnsafeMutableBytes(minimumWritableBytes: length / 4 * 3) { output in
            text.withUnsafeReadableBytes { input in
                values.withUnsafeBufferPointer { values in
                    let padding =
                        input[length - 1] == UInt8(ascii: "=") ? input[length - 2] == UInt8(ascii: "=") ? 2 : 1 : 0
                    let whole = padding > 0 ? length - 4 : length
                    var (index, position) = (0, 0)
                    var seen: UInt8 = 0
                    while index < whole {
                        let (a, b) = (values[Int(input[index])], values[Int(input[index + 1])])
                        let (c, d) = (values[Int(input[index + 2])], values[Int(input[index + 3])])
                        seen |= (a | b) | (c | d)
                        output[position] = a << 2 | b >> 4
                        output[position + 1] = b << 4 | c >> 2
                        output[position + 2] = c << 6 | d
                        index += 4
                        position += 3
                    }
                    if padding > 0 {
                        let (a, b) = (values[Int(input[index])], values[Int(input[index + 1])])
                        let c = padding == 1 ? values[Int(input[index + 2])] : 0
                        seen |= a | b | c
                        if (padding == 2 ? b & 15 : c & 3) != 0 { seen = invalid }
                        output[position] = a << 2 | b >> 4
                        if padding == 1 { output[position + 1] = b << 4 | c >> 2 }
                        position += 3 - padding
                    }
                    isValid = seen & 0xC0 == 0
                    return position
                }
            }
        }
        return isValid ? decoded : nil
    }
}
