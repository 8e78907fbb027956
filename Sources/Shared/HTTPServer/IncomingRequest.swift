import NIOCore
import NIOHTTP1

/// The request that is arriving on a connection: its head, and its body so far.
struct IncomingRequest {
    enum Verdict {
        /// `declaredBytes` is the `content-length`, 0 where there is none.
        case accept(declaredBytes: Int, expectsContinue: Bool)
        case refuse(HTTPRejection)
    }

    /// A sender slower than this is cut off once the request timeout has passed.
    private static let bodyBytesPerSecondMin = 65_536

    private(set) var head: HTTPRequestHead?
    /// The body's time runs from here.
    var since = NIODeadline.distantFuture
    private(set) var body = ByteBuffer()
    private(set) var receivedBytes = 0
    private(set) var bodyBytesMax = 0
    /// The peer offered to leave HTTP after this request. The decoder reads nothing behind such an offer.
    private(set) var offersUpgrade = false
    /// Its head says how many bytes follow, and nothing else is expected of either side.
    private(set) var endsByLength = false
    private var declaredBytes = 0
    var reservedBytes = 0

    /// Checks the head against RFC 9112 and the limits.
    mutating func begin(
        _ head: HTTPRequestHead, bodyBytesMax: Int, configuration: HTTPServerConfiguration, now: NIODeadline
    ) -> Verdict {
        self.head = head
        self.since = now
        self.bodyBytesMax = bodyBytesMax
        guard head.uri.utf8.count <= configuration.targetBytesMax else {
            return .refuse(.targetTooLong(limit: configuration.targetBytesMax))
        }
        var fields = Fields()
        for (name, value) in head.headers {
            if let rejection = fields.add(name, value) { return .refuse(rejection) }
        }
        offersUpgrade = fields.upgrade
        if let rejection = fields.rejection(version: head.version, configuration: configuration) {
            return .refuse(rejection)
        }
        guard isPlausibleTarget(of: head) else {
            return .refuse(.malformed("the request target is neither a path nor an http URL of one host"))
        }
        declaredBytes = fields.contentLength ?? 0
        guard declaredBytes <= bodyBytesMax else { return .refuse(.bodyTooLarge(limit: bodyBytesMax)) }
        if let expectation = fields.expectation, !expectation.isEqualCaseInsensitiveASCII(to: "100-continue") {
            return .refuse(.unknownExpectation(expectation))
        }
        endsByLength = !fields.chunked && !offersUpgrade && fields.expectation == nil
        let hasBody = declaredBytes > 0 || fields.chunked
        return .accept(
            declaredBytes: declaredBytes,
            expectsContinue: fields.expectation != nil && hasBody && head.version.minor > 0)
    }

    /// All of the body is still to come.
    var isAtItsStart: Bool { head != nil && receivedBytes == 0 }

    mutating func append(_ bytes: ByteBuffer) {
        if receivedBytes == 0 {
            body = bytes
            if declaredBytes > bytes.readableBytes { body.reserveCapacity(declaredBytes) }
        } else {
            body.writeImmutableBuffer(bytes)
        }
        receivedBytes += bytes.readableBytes
    }

    /// True where the body should have arrived by `now`.
    func isLate(now: NIODeadline, timeout: TimeAmount) -> Bool {
        now - since > timeout + .seconds(Int64(receivedBytes / IncomingRequest.bodyBytesPerSecondMin))
    }

    // MARK: Target

    /// The target in origin form, also where it was sent as a URL (RFC 9112 section 3.2.2).
    func target(of head: HTTPRequestHead) -> String {
        let uri = head.uri
        guard uri.utf8.first != UInt8(ascii: "/"), let start = absoluteFormPath(of: uri) else { return uri }
        let origin = uri[start...]
        return origin.utf8.first == UInt8(ascii: "/") ? String(origin) : "/" + origin
    }

    private func isPlausibleTarget(of head: HTTPRequestHead) -> Bool {
        let uri = head.uri
        if head.method == .CONNECT { return false }
        if uri.utf8.first == UInt8(ascii: "/") { return true }
        return absoluteFormPath(of: uri) != nil || (uri == "*" && head.method == .OPTIONS)
    }

    /// Where path or query of an absolute URL starts; nil where it is none, or its authority names no host.
    private func absoluteFormPath(of uri: String) -> String.Index? {
        let scheme = "http://"
        let bytes = uri.utf8
        guard bytes.count > scheme.utf8.count else { return nil }
        let authority = bytes.index(bytes.startIndex, offsetBy: scheme.utf8.count)
        guard uri[..<authority].lowercased() == scheme else { return nil }
        let path = bytes[authority...].firstIndex { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "?") }
        let end = path ?? bytes.endIndex
        // No user information either: RFC 9110 section 4.2.4 takes it for an attempt to deceive.
        guard end != authority, bytes[authority..<end].allSatisfy(isHostByte) else { return nil }
        return end
    }
}

/// What the header fields of one request say about its framing.
private struct Fields {
    private var bytes = 0
    private var hosts = 0
    private(set) var contentLength: Int?
    /// The codings of all fields together, as they stand; nil where there are none.
    private var transferEncoding: String?
    private(set) var upgrade = false
    private(set) var expectation: String?

    mutating func add(_ name: String, _ value: String) -> HTTPRejection? {
        bytes += name.utf8.count + value.utf8.count + 4
        switch name.utf8.count {
        case 4 where name.isEqualCaseInsensitiveASCII(to: "host"):
            hosts += 1
            guard trimmed(value).utf8.allSatisfy(isHostByte) else { return .malformed("the host field is not a host") }
        case 6 where name.isEqualCaseInsensitiveASCII(to: "expect"):
            expectation = list(expectation, trimmed(value))
        case 7 where name.isEqualCaseInsensitiveASCII(to: "upgrade"):
            upgrade = true
        case 14 where name.isEqualCaseInsensitiveASCII(to: "content-length"):
            guard contentLength == nil else { return Fields.ambiguous }
            let digits = trimmed(value)
            guard let length = Int(digits), digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else {
                return .malformed("content-length is not a number")
            }
            contentLength = length
        case 17 where name.isEqualCaseInsensitiveASCII(to: "transfer-encoding"):
            transferEncoding = list(transferEncoding, trimmed(value))
        default: break
        }
        return nil
    }

    func rejection(version: HTTPVersion, configuration: HTTPServerConfiguration) -> HTTPRejection? {
        guard bytes <= configuration.headerBytesMax else {
            return .headersTooLarge(limit: configuration.headerBytesMax)
        }
        guard hosts == 1 || (hosts == 0 && version.minor == 0) else {
            return .malformed(hosts == 0 ? "the host field is missing" : "there is more than one host field")
        }
        guard let transferEncoding else { return nil }
        guard contentLength == nil, version.minor > 0 else { return Fields.ambiguous }
        return transferEncoding.isEqualCaseInsensitiveASCII(to: "chunked") ? nil : rejection(of: transferEncoding)
    }

    var chunked: Bool { transferEncoding != nil }

    /// RFC 9112 section 6.1: where chunked is not the last coding, or is there twice, nobody can tell where the body
    /// ends; where another comes before it, the body could be found but not read.
    private func rejection(of codings: String) -> HTTPRejection {
        let codings = codings.split(separator: ",", omittingEmptySubsequences: false).map { coding in
            trimmed(String(coding.drop { $0 == " " || $0 == "\t" }))
        }
        guard let last = codings.last, last.isEqualCaseInsensitiveASCII(to: "chunked"),
            codings.dropLast().allSatisfy({ !$0.isEmpty && !$0.isEqualCaseInsensitiveASCII(to: "chunked") })
        else { return Fields.ambiguous }
        return .unknownTransferCoding(codings[0])
    }

    /// Several fields of a name are one list, RFC 9110 section 5.3.
    private func list(_ before: String?, _ value: String) -> String { before.map { "\($0),\(value)" } ?? value }

    /// The decoder leaves white space at the end of a value.
    private func trimmed(_ value: String) -> String {
        guard let last = value.utf8.last, last == UInt8(ascii: " ") || last == UInt8(ascii: "\t") else { return value }
        let end = value.utf8.lastIndex { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\t") }
        return end.map { String(value[...$0]) } ?? ""
    }

    /// Two ways to read the length of one message: request smuggling, RFC 9112 section 11.2.
    private static let ambiguous = HTTPRejection.malformed("the length of the body is ambiguous")
}

/// RFC 3986 section 3.2.2, generously: what no host and port can contain is left out.
private func isHostByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x21...0x7e:
        switch byte {
        case UInt8(ascii: "/"), UInt8(ascii: "?"), UInt8(ascii: "#"), UInt8(ascii: "@"), UInt8(ascii: "\\"),
            UInt8(ascii: ","), UInt8(ascii: "\""), UInt8(ascii: "<"), UInt8(ascii: ">"):
            false
        default: true
        }
    default: false
    }
}

extension String {
    /// `lowercased` is in lower case and ASCII.
    func isEqualCaseInsensitiveASCII(to lowercased: StaticString) -> Bool {
        guard utf8.count == lowercased.utf8CodeUnitCount else { return false }
        var expected = lowercased.utf8Start
        for byte in utf8 {
            let folded = byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") ? byte | 0x20 : byte
            if folded != expected.pointee { return false }
            expected += 1
        }
        return true
    }
}
