public import NIOCore

/// One HTTP/1.1 request to a node.
public struct CurlRequest: Sendable {
    public enum Method: Sendable { case get, post, put, delete }

    public var method: Method
    /// Absolute, scheme `http`; any other scheme is refused.
    public var url: String
    public var headers: [(name: String, value: String)]
    /// Of a POST or PUT; shared with the caller, not copied as a whole when it is large.
    public var body: ByteBuffer
    /// The answer may have at most this many bytes of content, or it is given up with `.bodyTooLarge`.
    public var responseBytesMax: Int
    /// For everything from the connect to the last byte of the answer.
    public var timeout: Duration
    public var connectTimeout: Duration

    public init(
        _ method: Method, _ url: String, headers: [(name: String, value: String)] = [], body: ByteBuffer = ByteBuffer(),
        responseBytesMax: Int, timeout: Duration, connectTimeout: Duration
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.responseBytesMax = responseBytesMax
        self.timeout = timeout
        self.connectTimeout = connectTimeout
    }
}

/// A whole answer, of any status: redirects are not followed and error statuses are not errors here.
public struct CurlResponse: Sendable {
    public var status: Int
    /// In the order in which they came, names lower case.
    public var headers: [(name: String, value: String)]
    public var body: ByteBuffer

    /// The first field of that name; `name` is lower case.
    public func header(_ name: String) -> String? {
        headers.first { $0.name == name }?.value
    }
}

/// Why a request has no answer.
public struct CurlError: Error, Sendable, CustomStringConvertible {
    /// What kind of failure it is. Extensible: match the ones you know.
    public enum Code: Sendable, Hashable {
        case couldNotResolve
        case couldNotConnect
        case timedOut
        /// The connection ended before the answer did.
        case connectionLost
        case bodyTooLarge
        case unsupportedURL
        case cancelled
        /// Too many requests wait already; nothing was sent.
        case overloaded
        case shutDown
        /// Any other `CURLcode`.
        case other
    }

    public var code: Code
    public var message: String
    /// libcurl's own code; 0 where the failure is not libcurl's.
    public var curlCode: UInt32

    init(_ code: Code, _ message: String, curlCode: UInt32 = 0) {
        self.code = code
        self.message = message
        self.curlCode = curlCode
    }

    public var description: String { message }
}
