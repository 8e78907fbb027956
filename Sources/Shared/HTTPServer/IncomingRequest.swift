import NIOCore
import NIOHTTP1

/// The request that is arriving on a connection: its head, and its body so far.
struct IncomingRequest {
    enum Verdict {
        /// `declaredBytes` is the `content-length`, 0 where there is none.
        case accept(declaredBytes: Int, expectsContinue: Bool)
        case refuse(HTTPRejection)
    }

    private(set) var head: HTTPRequestHead?
    private(set) var since = NIODeadline.distantFuture
    private(set) var body = ByteBuffer()
    private(set) var receivedBytes = 0
    private(set) var bodyBytesMax = 0
    private var declaredBytes = 0
    var reservedBytes = 0
    /// Its answer is already decided; what else arrives of it is dropped.
    var refused = false

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
        var fieldBytes = 0
        var hosts = 0
        var expectation: String?
        var contentLengths = 0
        var transferEncoded = false
        for (name, value) in head.headers {
            fieldBytes += name.utf8.count + value.utf8.count + 4
            switch name.utf8.count {
            case 4 where name.isEqualCaseInsensitiveASCII(to: "host"): hosts += 1
            case 6 where name.isEqualCaseInsensitiveASCII(to: "expect"): expectation = value
            case 14 where name.isEqualCaseInsensitiveASCII(to: "content-length"):
                contentLengths += 1
                guard let length = Int(value), length >= 0, value.utf8.allSatisfy({ $0 != UInt8(ascii: "+") }) else {
                    return .refuse(.malformed("content-length is not a number"))
                }
                declaredBytes = length
            case 17 where name.isEqualCaseInsensitiveASCII(to: "transfer-encoding"): transferEncoded = true
            default: break
            }
        }
        guard fieldBytes <= configuration.headerBytesMax else {
            return .refuse(.headersTooLarge(limit: configuration.headerBytesMax))
        }
        guard hosts == 1 || (hosts == 0 && head.version.minor == 0) else {
            return .refuse(.malformed(hosts == 0 ? "the host field is missing" : "there is more than one host field"))
        }
        guard contentLengths <= 1, !(contentLengths == 1 && transferEncoded) else {
            // Two ways to read the length of one message: request smuggling, RFC 9112 section 11.2.
            return .refuse(.malformed("the length of the body is ambiguous"))
        }
        guard originFormStart(of: head.uri) != nil else {
            return .refuse(.malformed("the request target is neither a path nor an http URL"))
        }
        guard declaredBytes <= bodyBytesMax else { return .refuse(.bodyTooLarge(limit: bodyBytesMax)) }
        if let expectation, !expectation.isEqualCaseInsensitiveASCII(to: "100-continue") {
            return .refuse(.unknownExpectation(expectation))
        }
        let hasBody = declaredBytes > 0 || transferEncoded
        return .accept(
            declaredBytes: declaredBytes, expectsContinue: expectation != nil && hasBody && head.version.minor > 0)
    }

    mutating func append(_ bytes: ByteBuffer) {
        if receivedBytes == 0 {
            body = bytes
            if declaredBytes > bytes.readableBytes { body.reserveCapacity(declaredBytes) }
        } else {
            body.writeImmutableBuffer(bytes)
        }
        receivedBytes += bytes.readableBytes
    }

    /// The target in origin form, also where it was sent as a URL (RFC 9112 section 3.2.2).
    func target(of head: HTTPRequestHead) -> String {
        guard let start = originFormStart(of: head.uri), start != head.uri.startIndex else { return head.uri }
        let origin = head.uri[start...]
        return origin.first == "/" ? String(origin) : "/" + origin
    }

    private func originFormStart(of uri: String) -> String.Index? {
        if uri.utf8.first == UInt8(ascii: "/") || uri == "*" { return uri.startIndex }
        let scheme = "http://"
        guard uri.utf8.count > scheme.utf8.count, uri.prefix(scheme.utf8.count).lowercased() == scheme else { return nil }
        let authority = uri.index(uri.startIndex, offsetBy: scheme.utf8.count)
        return uri[authority...].firstIndex { $0 == "/" || $0 == "?" } ?? uri.endIndex
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
