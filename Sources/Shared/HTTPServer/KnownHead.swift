import Glibc
import NIOCore
import NIOHTTP1

/// A request's head that the decoder has read and the server accepted, kept to recognise it when it comes again.
///
/// A client sends the same head over and over on a connection: only the target differs, and the length of the body. So a
/// head whose other bytes equal those of one that was read before means the same, and need not be read again.
struct KnownHead {
    /// What the decoder made of it.
    struct Meaning {
        let method: HTTPMethod
        let headers: HTTPHeaders
        /// The body's `content-length`; 0 where there is none.
        let declaredBytes: Int
    }

    /// Larger heads are not kept, so that idle connections stay small.
    private static let bytesMax = 1_024
    private static let targetBytesMax = 1_024
    private static let lengthDigitsMax = 9
    private static let lengthField: StaticString = "content-length"

    let meaning: Meaning
    /// The method and a space.
    private let start: [UInt8]
    /// What follows the target, up to the digits of the body's length; all of it where there are none.
    private let beforeLength: [UInt8]
    /// What follows those digits; empty where there are none.
    private let afterLength: [UInt8]

    /// Where the parts of one request lie in the bytes that were compared.
    struct Match {
        let target: Range<Int>
        let bodyStart: Int
        let bodyBytes: Int
        var end: Int { bodyStart + bodyBytes }
    }

    /// - Parameters:
    ///   - head: the whole head with its blank line, as it arrived.
    ///   - target: as the decoder read it.
    init?(_ head: UnsafeRawBufferPointer, target: String, meaning: Meaning) {
        let start = Array((meaning.method.rawValue + " ").utf8)
        let target = Array(target.utf8)
        guard head.count <= KnownHead.bytesMax, head.starts(with: start),
            head.dropFirst(start.count).starts(with: target)
        else { return nil }
        let rest = Array(head[(start.count + target.count)...])
        guard rest.starts(with: Array(" HTTP/1.1\r\n".utf8)) else { return nil }
        self.meaning = meaning
        self.start = start
        if let digits = KnownHead.lengthDigits(in: rest, declaredBytes: meaning.declaredBytes) {
            beforeLength = Array(rest[..<digits.lowerBound])
            afterLength = Array(rest[digits.upperBound...])
        } else {
            beforeLength = rest
            afterLength = []
        }
    }

    /// Where the digits of the length stand; nil where there are none, or they are not as everybody writes them.
    private static func lengthDigits(in rest: [UInt8], declaredBytes: Int) -> Range<Int>? {
        let value = Array(String(declaredBytes).utf8)
        let field = Array("\r\n\(lengthField): ".utf8)
        let end = rest.count - field.count - value.count
        guard declaredBytes > 0, end > 0 else { return nil }
        let name = (0..<end).first { offset in
            zip(rest[offset...], field).allSatisfy { $0 == $1 || ($0 | 0x20 == $1 && $1 >= UInt8(ascii: "a")) }
        }
        guard let start = name.map({ $0 + field.count }), rest[start...].starts(with: value) else { return nil }
        let digits = start..<start + value.count
        return rest[digits.upperBound] == UInt8(ascii: "\r") ? digits : nil
    }

    /// Where the parts of the request at the start of `bytes` are; nil where its head is another one, or it has not
    /// arrived whole.
    func match(_ bytes: UnsafeRawBufferPointer) -> Match? {
        guard let first = KnownHead.end(of: start, in: bytes, from: 0),
            let last = KnownHead.endOfTarget(in: bytes, from: first),
            var end = KnownHead.end(of: beforeLength, in: bytes, from: last)
        else { return nil }
        var bodyBytes = meaning.declaredBytes
        if !afterLength.isEmpty {
            guard let length = KnownHead.length(in: bytes, at: &end),
                let after = KnownHead.end(of: afterLength, in: bytes, from: end)
            else { return nil }
            (bodyBytes, end) = (length, after)
        }
        guard bytes.count - end >= bodyBytes else { return nil }
        return Match(target: first..<last, bodyStart: end, bodyBytes: bodyBytes)
    }

    /// The header fields of a request with a body of `bodyBytes`.
    func headers(bodyBytes: Int) -> HTTPHeaders {
        guard bodyBytes != meaning.declaredBytes else { return meaning.headers }
        return HTTPHeaders(
            meaning.headers.map { name, value in
                (name, name.isEqualCaseInsensitiveASCII(to: KnownHead.lengthField) ? String(bodyBytes) : value)
            })
    }

    private static func end(of part: [UInt8], in bytes: UnsafeRawBufferPointer, from start: Int) -> Int? {
        guard bytes.count - start >= part.count else { return nil }
        let isEqual = part.withUnsafeBytes { part in
            part.isEmpty || memcmp(bytes.baseAddress! + start, part.baseAddress!, part.count) == 0
        }
        return isEqual ? start + part.count : nil
    }

    /// The end of a path of bytes that stand for themselves in one (RFC 3986 section 3.3); anything else is left to the
    /// decoder, here because a blank does not follow.
    private static func endOfTarget(in bytes: UnsafeRawBufferPointer, from start: Int) -> Int? {
        let limit = min(bytes.count, start + targetBytesMax)
        guard start < limit, bytes[start] == UInt8(ascii: "/") else { return nil }
        var end = start + 1
        while end < limit, isPlain(bytes[end]) { end += 1 }
        return end
    }

    /// Letters, digits and `!$%&'()*+,-./:;=?@_~`.
    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x21, 0x24...0x3b, 0x3d, 0x3f...0x5a, 0x5f, 0x61...0x7a, 0x7e: true
        default: false
        }
    }

    /// A length as everybody writes it; moves `position` behind it.
    private static func length(in bytes: UnsafeRawBufferPointer, at position: inout Int) -> Int? {
        var length = 0
        var end = position
        while end < bytes.count, case let digit = bytes[end] &- UInt8(ascii: "0"), digit < 10 {
            guard end - position < lengthDigitsMax, length > 0 || digit > 0 else { return nil }
            length = length * 10 + Int(digit)
            end += 1
        }
        guard end > position else { return nil }
        position = end
        return length
    }
}
