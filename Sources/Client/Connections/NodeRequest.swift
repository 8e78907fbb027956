public import Core
public import NIOCore
public import NIOHTTP1
import Wire

/// A whole HTTP/1.1 request to one node.
///
/// `host`, `content-length`, `connection` and `transfer-encoding` are the connection's to write; a request that
/// names one of them, or whose target or header fields hold bytes that would end their line, is refused.
public struct NodeRequest: Sendable {
    public var method: HTTPMethod
    /// Origin form: path and query, percent-encoded.
    public var target: String
    public var headers: [(name: String, value: String)]
    /// nil for a request without content.
    public var body: ByteBuffer?
    /// The node answers it as soon as it has it: others may be sent behind it on one connection, whose answers come in order.
    public var isBrief = false

    public init(
        method: HTTPMethod, target: String, headers: [(name: String, value: String)] = [], body: ByteBuffer? = nil
    ) {
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
    }

    /// Whether applying the request twice leaves what applying it once leaves, RFC 9110 section 9.2.2.
    ///
    /// PUT and DELETE are: the store takes them unconditionally. A PUT applied twice yields two versions of the same
    /// value, of which the later one is reported. A request with a condition (`If-Match`, `If-None-Match`) is not:
    /// its second application sees the first.
    public var isIdempotent: Bool {
        switch method {
        case .GET, .HEAD, .OPTIONS: true
        case .PUT, .DELETE:
            !headers.contains { $0.name.lowercased() == "if-match" || $0.name.lowercased() == "if-none-match" }
        default: false
        }
    }
}

/// A whole response of a node. Redirects and error statuses are responses too.
public struct NodeResponse: Sendable {
    public var status: Int
    public var headers: HTTPHeaders
    public var body: ByteBuffer

    public init(status: Int, headers: HTTPHeaders = [:], body: ByteBuffer = ByteBuffer()) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// `KV-Version`; nil where it is missing or not 16 hex digits.
    public var version: Version? { headers.first(name: KVHeader.version).flatMap { Version(hexDigits: $0) } }

    /// `KV-Expires-In`; nil where the value does not expire.
    public var expiresIn: TimeAmount? {
        guard let text = headers.first(name: KVHeader.expiresIn), let milliseconds = DurationText.milliseconds(text),
            milliseconds <= Limits.ttlMillisecondsMax
        else { return nil }
        return .milliseconds(Int64(milliseconds))
    }

    /// `KV-Epoch`; nil where it is missing or not a number.
    public var epoch: UInt64? { headers.first(name: KVHeader.epoch).flatMap { UInt64($0) } }

    public var isRedirect: Bool { status == 307 || status == 308 }
}

/// Why a request got no response, and whether the node may have seen it.
public struct NodeFailure: Error, Sendable {
    /// How far the request came.
    public enum Delivery: Sendable, Hashable {
        /// No byte of it left this process, or the node said that it did not process it.
        case notSent
        /// It was handed to the connection: the node may have processed it, not at all or whole.
        case possiblySent
    }

    public var address: NodeAddress
    public var delivery: Delivery
    /// Codes: `unavailable` (no connection, or it broke), `timedOut`, `overloaded` (a limit of this client),
    /// `invalidData` (the answer is not HTTP or over the body limit), `invalidArgument`, `cancelled` (shut down).
    public var error: KVError

    public init(address: NodeAddress, delivery: Delivery, error: KVError) {
        self.address = address
        self.delivery = delivery
        self.error = error
    }

    /// Whether sending `request` again cannot apply it once more than asked for.
    public func isSafeToRetry(_ request: NodeRequest) -> Bool { delivery == .notSent || request.isIdempotent }
}

extension NodeFailure: CustomStringConvertible {
    public var description: String { error.description }
}
