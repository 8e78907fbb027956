import Core
import DistribKVClient
import FoundationEssentials
import NIOCore

/// Reads the objects of an NDJSON import: known members only, so one that is misspelt or of another type is told by name.
struct JSONRecord {
    private enum Member: String, CaseIterable {
        case key
        case keyBase64 = "key_base64"
        case value
        case valueBase64 = "value_base64"
        /// Of a removal; `true`, and then there is no value.
        case deleted
        /// What the write was once, in files that a node has saved; read over.
        case version

        static let list = allCases.map(\.rawValue).joined(separator: ", ")
    }

    private let bytes: UnsafeRawBufferPointer
    private var index = 0
    private var key: [UInt8]?
    private var value: [UInt8]?
    private var isDeleted = false

    static func parse(_ line: ByteBuffer) throws(KVError) -> KVWrite {
        // `withUnsafeReadableBytes` rethrows untyped: the result carries the error out.
        let result = line.withUnsafeReadableBytes { bytes -> Result<KVWrite, KVError> in
            var record = JSONRecord(bytes: bytes)
            do throws(KVError) { return .success(try record.parse()) } catch { return .failure(error) }
        }
        return try result.get()
    }

    private init(bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    private mutating func parse() throws(KVError) -> KVWrite {
        skipSpace()
        try expect(UInt8(ascii: "{"), "an object")
        skipSpace()
        if peek != UInt8(ascii: "}") {
            try member()
            while true {
                skipSpace()
                guard peek == UInt8(ascii: ",") else { break }
                index += 1
                try member()
            }
        }
        try expect(UInt8(ascii: "}"), "a comma or the end of the object")
        skipSpace()
        guard index == bytes.count else { throw defect("something follows the object") }
        guard let key else { throw KVError(.invalidData, "there is no member \"key\" or \"key_base64\"") }
        if isDeleted {
            guard value == nil else { throw KVError(.invalidData, "\"deleted\" and a value exclude each other") }
            return KVWrite(key: key, value: nil)
        }
        guard let value else {
            throw KVError(.invalidData, "there is no member \"value\", \"value_base64\" or \"deleted\"")
        }
        return KVWrite(key: key, value: ByteBuffer(bytes: value))
    }

    private mutating func member() throws(KVError) {
        skipSpace()
        let name = String(decoding: try string("the name of a member"), as: UTF8.self)
        guard let member = Member(rawValue: name) else {
            throw KVError(.invalidData, "there is no member \"\(name)\" in an import: use \(Member.list)")
        }
        skipSpace()
        try expect(UInt8(ascii: ":"), "a colon")
        skipSpace()
        if member == .deleted { return try deletion() }
        let text = try string("a string as the value of \"\(name)\"")
        switch member {
        case .deleted, .version: break
        case .key: try Self.set(&key, text, name)
        case .keyBase64: try Self.set(&key, Self.base64(text, name), name)
        case .value: try Self.set(&value, text, name)
        case .valueBase64: try Self.set(&value, Self.base64(text, name), name)
        }
    }

    private mutating func deletion() throws(KVError) {
        let word = "true".utf8
        guard bytes[index...].starts(with: word) else { throw defect("true as the value of \"deleted\" is expected") }
        index += word.count
        isDeleted = true
    }

    private static func set(_ slot: inout [UInt8]?, _ bytes: [UInt8], _ name: String) throws(KVError) {
        guard slot == nil else { throw KVError(.invalidData, "\"\(name)\" gives something that is already given") }
        slot = bytes
    }

    private static func base64(_ text: [UInt8], _ name: String) throws(KVError) -> [UInt8] {
        guard let data = Data(base64Encoded: Data(text)) else {
            throw KVError(.invalidData, "\"\(name)\" is not base64 (RFC 4648 section 4, with padding)")
        }
        return [UInt8](data)
    }
}

// MARK: - Characters

extension JSONRecord {
    private var peek: UInt8? { index < bytes.count ? bytes[index] : nil }

    private func defect(_ what: String) -> KVError { KVError(.invalidData, "not JSON: \(what) at byte \(index + 1)") }

    private mutating func skipSpace() {
        while let byte = peek, [0x20, 0x09, 0x0D, 0x0A].contains(byte) { index += 1 }
    }

    private mutating func expect(_ byte: UInt8, _ what: String) throws(KVError) {
        guard peek == byte else { throw defect("\(what) is expected") }
        index += 1
    }

    /// The content of a string as UTF-8, escapes resolved.
    private mutating func string(_ what: String) throws(KVError) -> [UInt8] {
        try expect(UInt8(ascii: "\""), what)
        var content: [UInt8] = []
        while true {
            let start = index
            while let byte = peek, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { index += 1 }
            content.append(contentsOf: bytes[start..<index])
            switch peek {
            case UInt8(ascii: "\""):
                index += 1
                guard String(validating: content, as: UTF8.self) != nil else {
                    throw defect("the string before is not UTF-8 (use base64 for other bytes)")
                }
                return content
            case UInt8(ascii: "\\"):
                index += 1
                try escape(&content)
            case nil: throw defect("a string does not end")
            default: throw defect("a control character must be escaped")
            }
        }
    }

    private mutating func escape(_ content: inout [UInt8]) throws(KVError) {
        guard let byte = peek else { throw defect("a string does not end") }
        index += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): content.append(byte)
        case UInt8(ascii: "b"): content.append(0x08)
        case UInt8(ascii: "f"): content.append(0x0C)
        case UInt8(ascii: "n"): content.append(0x0A)
        case UInt8(ascii: "r"): content.append(0x0D)
        case UInt8(ascii: "t"): content.append(0x09)
        case UInt8(ascii: "u"):
            var code = try hexDigits()
            if (0xD800..<0xDC00).contains(code) {
                guard index + 1 < bytes.count, bytes[index] == UInt8(ascii: "\\"), bytes[index + 1] == UInt8(ascii: "u")
                else { throw defect("half of a surrogate pair") }
                index += 2
                let low = try hexDigits()
                guard (0xDC00..<0xE000).contains(low) else { throw defect("half of a surrogate pair") }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw defect("half of a surrogate pair") }
            content.append(contentsOf: UTF8.encode(scalar).map(Array.init) ?? [])
        default: throw defect("an unknown escape")
        }
    }

    private mutating func hexDigits() throws(KVError) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = peek, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw defect("four hex digits are expected")
            }
            code = code << 4 | UInt32(digit)
            index += 1
        }
        return code
    }
}
