import Core
public import HTTPServer
public import NIOCore
import NIOHTTP1
public import Wire

/// The short forms of the project's Go ancestor: `/get?key=`, `/set?key=&value=` and `/purge`. The first two are batches
/// of one operation, answered in plain text wherever the key is served.
public enum ShortForm: Sendable {
    case get(BatchOperation, BatchRequest)
    case set(BatchOperation, BatchRequest)
    case purge

    /// The largest form that a POST to `/set` may have: every byte percent-encoded.
    public static func bodyBytesMax(valueBytesMax: Int) -> Int { 3 * (Limits.keyBytesMax + valueBytesMax) + 1_024 }

    /// Whether a target may be one of these.
    public static func isSet(_ target: String) -> Bool { target == "/set" || target.hasPrefix("/set?") }

    /// What a request for one of these paths comes to.
    public enum Asked: Sendable {
        case form(ShortForm)
        case refused(HTTPResponse)
    }

    /// nil where the path is another.
    /// - Throws: `bad-request` where a parameter is missing, not known or badly encoded.
    public static func asked(by request: HTTPRequest) throws(Problem) -> Asked? {
        switch request.path {
        case "/get":
            guard request.method == .GET else { return .refused(.init(methodNotAllowed: request, "GET")) }
            let (parameters, asked) = try read(request, names: ["key"])
            return .form(.get(BatchOperation(key: try bytes("key", parameters), action: .get), asked))
        case "/set":
            guard request.method == .GET || request.method == .POST else {
                return .refused(.init(methodNotAllowed: request, "GET, POST"))
            }
            let (parameters, asked) = try read(request, names: ["key", "value"])
            let (key, value) = (try bytes("key", parameters), try bytes("value", parameters))
            return .form(.set(BatchOperation(key: key, action: .put(value)), asked))
        case "/purge":
            guard request.method == .POST else { return .refused(.init(methodNotAllowed: request, "POST")) }
            try QueryParameters(request.query).allowOnly([])
            return .form(.purge)
        default: return nil
        }
    }

    /// The parameters of the query and, of a POST, of the form in its body.
    private static func read(
        _ request: HTTPRequest, names: [String]
    ) throws(Problem) -> (QueryParameters, BatchRequest) {
        var parameters = try QueryParameters(request.query)
        if request.method == .POST, request.body.readableBytes > 0 {
            let type = request.headers.first(name: "content-type") ?? formType
            guard type.prefix(while: { $0 != ";" && $0 != " " }).lowercased() == formType else {
                throw Problem(.badRequest, "A POST to /set takes \(formType), not \(type.prefix(64)).")
            }
            try parameters.add(request.body.readableBytesView)
        }
        try parameters.allowOnly(names + ["proxy"] + Guarantees.writeParameterNames)
        return (parameters, BatchRequest(guarantees: try Guarantees(parameters)))
    }

    private static let formType = "application/x-www-form-urlencoded"

    private static func bytes(_ name: String, _ parameters: QueryParameters) throws(Problem) -> ByteBuffer {
        guard let bytes = parameters.bytes(name) else {
            throw Problem(.badRequest, "There is no parameter \"\(name)\".")
        }
        return ByteBuffer(bytes: bytes)
    }
}

extension BatchOperation {
    /// The operation as the body of a batch.
    public var asBatch: (body: ByteBuffer, lines: [(operation: BatchOperation, line: Range<Int>)]) {
        var body = ByteBuffer()
        write(into: &body)
        return (body, [(operation: self, line: 0..<body.readableBytes - 1)])
    }
}

extension HTTPResponse {
    /// The answer to `/get` or `/set`.
    /// - Parameter shardIndex: `idx` of the key's shard.
    public init(shortForm result: BatchResult, shardIndex: Int) {
        var body = ByteBuffer()
        let version: Version?
        var status = 200
        switch result {
        case .found(let value, let found, _):
            body.writeStaticString("Value: ")
            body.writeImmutableBuffer(value)
            version = found
        case .written(let written), .counted(_, let written):
            body.writeString("Key set successfully on shard \(shardIndex)\n")
            version = written
        case .failed(let failure) where failure.is(.notFound):
            // As the ancestor has it, which scripts look for, but with a status that says it as well.
            body.writeStaticString("Value: , error = no such key\n")
            (version, status) = (nil, 404)
        case .failed(let failure):
            self.init(failure)
            return
        }
        let fields = version.map { version in
            [(name: "etag", value: "\"\(version.hexDigits)\""), (name: KVHeader.version, value: version.hexDigits)]
        }
        self.init(status: status, headers: [(name: "content-type", value: "text/plain")] + (fields ?? []), body: body)
    }

    /// What an operation failed with, as the answer to its request.
    init(_ failure: BatchResult.Failure) {
        var headers = [(name: "content-type", value: MediaType.problem)]
        if failure.status == 503 { headers.append((name: "retry-after", value: "\(retryAfterSeconds)")) }
        if let version = failure.version { headers.append((name: KVHeader.version, value: version.hexDigits)) }
        let document =
            "{\"type\":\(JSONText.quote(failure.type)),\"status\":\(failure.status),"
            + "\"detail\":\(JSONText.quote(failure.detail))}\n"
        self.init(status: failure.status, headers: headers, body: ByteBuffer(string: document))
    }

    /// The answer to `/purge`.
    public init(purged count: Int) { self.init(text: "Purged \(count) keys") }

    fileprivate init(methodNotAllowed request: HTTPRequest, _ allowed: String) {
        self.init(methodNotAllowed: request.method.rawValue, allowed: allowed)
    }
}
