public import HTTPServer
import NIOCore
public import Wire

/// Seconds a client is told to wait where the answer is 503.
let retryAfterSeconds = 1

extension HTTPResponse {
    /// The problem as an answer: its status, its document, and `retry-after` where that is 503.
    public init(problem: Problem, headers: [(name: String, value: String)] = []) {
        var fields = [(name: "content-type", value: MediaType.problem)]
        if problem.kind.status == 503 { fields.append((name: "retry-after", value: "\(retryAfterSeconds)")) }
        self.init(
            status: problem.kind.status, headers: fields + headers, body: ByteBuffer(string: problem.json + "\n"))
    }

    /// 405, with the methods that are allowed in `allow`.
    /// - Parameter allowed: e.g. `GET, HEAD`.
    public init(methodNotAllowed method: String, allowed: String) {
        self.init(
            problem: Problem(.methodNotAllowed, "\(method) is not allowed here: use \(allowed)."),
            headers: [(name: "allow", value: allowed)])
    }

    /// 404 for a path that names nothing.
    /// - Parameter path: as it was sent.
    public init(unknownPath path: some StringProtocol) {
        let shown = path.utf8.count > 100 ? path.prefix(100) + "…" : String(path)
        self.init(problem: Problem(.unknownPath, "There is nothing at \(shown)."))
    }

    /// 200 with JSON that is already encoded.
    public init(json: [UInt8]) {
        var body = ByteBuffer()
        body.reserveCapacity(json.count + 1)
        body.writeBytes(json)
        body.writeInteger(UInt8(ascii: "\n"))
        self.init(status: 200, headers: [(name: "content-type", value: MediaType.json)], body: body)
    }

    /// 200 with one of Wire's documents; 500 where it cannot be encoded.
    public init(document: some Encodable) {
        do {
            self.init(json: try DocumentCoding.encode(document))
        } catch {
            self.init(problem: Problem(.internalError, "The document cannot be encoded: \(error)."))
        }
    }

    /// 200 with a line of text, for `/healthz` and the like.
    public init(text: String) { self.init(text: text + "\n", mediaType: "text/plain; charset=utf-8") }

    /// 200 with text as it is.
    public init(text: String, mediaType: String) {
        self.init(status: 200, headers: [(name: "content-type", value: mediaType)], body: ByteBuffer(string: text))
    }
}

extension Problem {
    /// What a client is told about a request that the server itself refused.
    public init(_ rejection: HTTPRejection) {
        switch rejection {
        case .malformed(let reason):
            self.init(.badRequest, "The request is not HTTP as RFC 9112 has it: \(reason).")
        case .timedOut:
            self.init(.requestTimeout, "The request did not arrive whole in time: send it faster or in pieces.")
        case .bodyTooLarge(let limit):
            self.init(.valueTooLarge, "The content is larger than the \(limit) bytes that are allowed here.")
        case .targetTooLong(let limit):
            self.init(.targetTooLong, "The request target is longer than \(limit) bytes.")
        case .unknownExpectation(let expectation):
            self.init(.expectationFailed, "\"\(expectation)\" is not an expectation this server knows.")
        case .unknownTransferCoding(let coding):
            self.init(.unsupported, "The transfer coding \"\(coding)\" is not supported: send chunked alone.")
        case .headersTooLarge(let limit):
            self.init(.headersTooLarge, "The header fields are larger than \(limit) bytes together.")
        case .overloaded:
            self.init(.overloaded, "Too much is in flight: try again later.")
        }
    }
}
