public import NIOCore
public import NIOHTTP1

/// A whole request: head and body have arrived and are within the limits.
public struct HTTPRequest: Sendable {
    public let method: HTTPMethod
    /// The request target as it was sent, origin form: path and query.
    public let target: String
    public let headers: HTTPHeaders
    public var body: ByteBuffer

    public init(method: HTTPMethod, target: String, headers: HTTPHeaders = [:], body: ByteBuffer = ByteBuffer()) {
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
    }

    /// The target up to its `?`, still percent-encoded.
    public var path: Substring { target[..<(queryMark ?? target.endIndex)] }

    /// What follows the first `?`, still percent-encoded; nil where there is none.
    public var query: Substring? { queryMark.map { target[target.index(after: $0)...] } }

    private var queryMark: String.Index? { target.utf8.firstIndex(of: UInt8(ascii: "?")) }
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
