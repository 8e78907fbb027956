public import NIOCore
public import NIOHTTP1

/// A whole request: head and body have arrived and are within the limits.
public struct HTTPRequest: Sendable {
    public let method: HTTPMethod
    public let headers: HTTPHeaders
    public var body: ByteBuffer
    @usableFromInline let storedTarget: Target

    @usableFromInline enum Target: Sendable {
        case text(String)
        /// ASCII, lent by what the connection read: no memory of its own.
        case bytes(ByteBuffer)
    }

    public init(method: HTTPMethod, target: String, headers: HTTPHeaders = [:], body: ByteBuffer = ByteBuffer()) {
        self.method = method
        storedTarget = .text(target)
        self.headers = headers
        self.body = body
    }

    /// - Parameter target: ASCII.
    init(method: HTTPMethod, target: ByteBuffer, headers: HTTPHeaders) {
        self.method = method
        storedTarget = .bytes(target)
        self.headers = headers
        body = ByteBuffer()
    }

    /// The request target as it was sent, origin form: path and query. Made anew where its bytes are all there is:
    /// ``withTargetBytes(_:)`` costs less.
    public var target: String {
        switch storedTarget {
        case .text(let text): text
        case .bytes(let bytes): String(buffer: bytes)
        }
    }

    /// Lends the bytes of the target.
    @inlinable public func withTargetBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        switch storedTarget {
        case .bytes(let bytes): return bytes.withUnsafeReadableBytes(body)
        case .text(let text):
            if let result = text.utf8.withContiguousStorageIfAvailable({ body(UnsafeRawBufferPointer($0)) }) {
                return result
            }
            // A target that the server read is always contiguous; one bridged from elsewhere may not be.
            return Array(text.utf8).withUnsafeBytes(body)
        }
    }

    /// The target up to its `?`, still percent-encoded.
    public var path: Substring {
        let target = target
        return target[..<(HTTPRequest.queryMark(in: target) ?? target.endIndex)]
    }

    /// What follows the first `?`, still percent-encoded; nil where there is none.
    public var query: Substring? {
        let target = target
        return HTTPRequest.queryMark(in: target).map { target[target.index(after: $0)...] }
    }

    private static func queryMark(in target: String) -> String.Index? { target.utf8.firstIndex(of: UInt8(ascii: "?")) }
}

/// A whole response. `content-length`, `date` and `connection` are the server's to write.
public struct HTTPResponse: Sendable {
    public var status: Int
    public var headers: [(name: String, value: String)]
    public var body: ByteBuffer

    public init(status: Int, headers: [(name: String, value: String)] = [], body: ByteBuffer = ByteBuffer()) {
        self.status = status
        self.headers = headers
        self.body = body
    }
}

/// Why the server itself answers a request, before any handler saw it.
public enum HTTPRejection: Sendable, Hashable {
    /// 400: not HTTP as RFC 9112 has it.
    case malformed(String)
    /// 408: the body did not arrive in time. A connection whose head does not is closed without an answer.
    case timedOut
    /// 413: the body is larger than the handler takes here.
    case bodyTooLarge(limit: Int)
    /// 414
    case targetTooLong(limit: Int)
    /// 501: a transfer coding besides chunked.
    case unknownTransferCoding(String)
    /// 417: an `Expect` other than `100-continue`.
    case unknownExpectation(String)
    /// 431
    case headersTooLarge(limit: Int)
    /// 503: no more bytes of bodies, or no more connections, may be held now.
    case overloaded
}

/// Answers the requests of one event loop. Every call arrives on that loop, and none may block it.
public protocol HTTPHandler: AnyObject {
    /// The largest body, in bytes, that is read for this request; asked once the head has arrived.
    func bodyBytesMax(method: HTTPMethod, target: String) -> Int

    /// Whether the answer depends on the body; asked only where the peer waits to hear whether it is wanted
    /// (`Expect: 100-continue`). Where it does not, ``handle(_:_:)`` is called at once, with an empty body, and the
    /// connection is closed behind the answer, because the peer may send the body all the same.
    func needsBody(method: HTTPMethod, target: String) -> Bool

    /// Answers `request` through `exchange`, now or later, exactly once.
    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange)

    /// The answer to a request that the server refused; its connection is closed after it.
    func response(to rejection: HTTPRejection) -> HTTPResponse

    /// Appends header fields, each with its CRLF, that every answer carries.
    func writeCommonFields(into buffer: inout ByteBuffer)
}

extension HTTPHandler {
    public func needsBody(method: HTTPMethod, target: String) -> Bool { true }
}
