import Core
import HTTPServer
import LSM
import NIOCore
import NIOHTTP1
import Observability
import ServiceSupport
import Shard
import Sharding
import Wire

/// Requests for `/kv/{key}` on one event loop.
final class KeyHandler {
    private static let allowedMethods = "GET, HEAD, PUT, DELETE"
    /// Conditions on writes are refused rather than ignored: a client that sends one relies on it.
    private static func isCondition(_ name: String) -> Bool {
        switch name.utf8.count {
        case 8: name.lowercased() == "if-match"
        case 13: name.lowercased() == "if-none-match"
        case 17: name.lowercased() == "if-modified-since"
        case 19: name.lowercased() == "if-unmodified-since"
        default: false
        }
    }

    private let node: Node
    private let eventLoop: any EventLoop
    private var view: NodeView
    /// By position in the view's topology.
    private var gatherers: [WriteGatherer?] = []
    private var nextReplica = 0

    init(node: Node, view: NodeView, eventLoop: any EventLoop) {
        self.node = node
        self.view = view
        self.eventLoop = eventLoop
        use(view)
    }

    /// Goes by `view` from now on. Replicas that stay keep their gatherers, and those what they have gathered.
    func use(_ view: NodeView) {
        let kept = gatherers
        self.view = view
        gatherers = view.replicas.map { replica in
            guard let replica else { return nil }
            return kept.first { $0?.replica === replica }
                ?? WriteGatherer(replica: replica, eventLoop: eventLoop, metrics: node.metrics)
        }
    }

    /// - Parameter bytes: of the request's target; `target` was made from them.
    func handle(
        _ request: HTTPRequest, _ target: KeyTarget, _ bytes: UnsafeRawBufferPointer, _ exchange: HTTPExchange
    ) throws(Problem) {
        let query = try RoutedQuery(target.query, in: bytes)
        if target.query != nil { try QueryParameters(request.query).allowOnly(RoutedQuery.parameterNames) }
        let problem = try target.withKey(in: bytes) { key -> Problem? in
            let position = view.topology.position(of: HashSlot(key: key))
            guard let replica = view.replicas[position] else {
                if view.absences[position] != nil {
                    return redirectWhileAbsent(position, query, target, bytes, exchange)
                }
                node.metrics.redirects.increment()
                query.redirect(
                    exchange, .permanent, fields: ownerFields(position, isRead: request.method.isRead), target,
                    of: bytes)
                return nil
            }
            switch request.method {
            case .GET, .HEAD:
                read(key, replica, request, exchange)
            case .PUT, .DELETE:
                guard view.leads[position] else {
                    node.metrics.redirects.increment()
                    query.redirect(
                        exchange, .temporary, fields: view.redirectFields[position][0], target, of: bytes)
                    return nil
                }
                return write(key, position, request, exchange)
            default:
                exchange.respond(
                    HTTPResponse(methodNotAllowed: request.method.rawValue, allowed: KeyHandler.allowedMethods))
            }
            return nil
        }
        if let problem { throw problem }
    }

    /// Whether this node takes writes of the key in `target`; false also where that names no key.
    func takesWrites(_ target: KeyTarget, _ bytes: UnsafeRawBufferPointer) -> Bool {
        do throws(Problem) {
            let position = try target.withKey(in: bytes) { view.topology.position(of: HashSlot(key: $0)) }
            return view.leads[position] && view.replicas[position] != nil
        } catch {
            return false
        }
    }

    /// Where a shard that is not here is served: writes at its leader, reads at its replicas in turn.
    private func ownerFields(_ position: Int, isRead: Bool) -> [UInt8] {
        let fields = view.redirectFields[position]
        guard isRead else { return fields[0] }
        nextReplica &+= 1
        return fields[nextReplica % fields.count]
    }

    /// The replica belongs here but is not served now: its leader serves the key.
    private func redirectWhileAbsent(
        _ position: Int, _ query: RoutedQuery, _ target: KeyTarget, _ bytes: UnsafeRawBufferPointer,
        _ exchange: HTTPExchange
    ) -> Problem? {
        let shard = view.topology.shards[position].name
        guard !view.leads[position] else {
            return Problem(.unavailable, "This node leads \(shard) and cannot serve it now: see /readyz.")
        }
        node.metrics.redirects.increment()
        query.redirect(exchange, .temporary, fields: view.redirectFields[position][0], target, of: bytes)
        return nil
    }

    // MARK: Reading

    private func read(
        _ key: UnsafeRawBufferPointer, _ replica: ShardReplica, _ request: HTTPRequest, _ exchange: HTTPExchange
    ) {
        do throws(KVError) {
            var blocks = false
            try replica.database.read(key: key, tier: .memory) { lookup in
                switch lookup {
                case .value(let version, let bytes):
                    node.metrics.hits.increment()
                    KeyHandler.answerRead(exchange, version, bytes, condition: KeyHandler.condition(of: request))
                case .missing:
                    node.metrics.misses.increment()
                    exchange.respond(KeyHandler.missing)
                case .wouldBlock:
                    blocks = true
                }
            }
            if blocks { readFromDisk(ByteBuffer(bytes: key), replica, request, exchange) }
        } catch {
            exchange.respond(HTTPResponse(problem: Problem(error)))
        }
    }

    /// The value is not in memory: a thread that may block fetches it.
    private func readFromDisk(
        _ key: ByteBuffer, _ replica: ShardReplica, _ request: HTTPRequest, _ exchange: HTTPExchange
    ) {
        let condition = KeyHandler.condition(of: request)
        let metrics = node.metrics
        metrics.diskReads.increment()
        node.readers.run(on: exchange.eventLoop) {
            var found: (Version, ByteBuffer)?
            try replica.read(key: key, tier: .disk) { lookup in
                if case .value(let version, let bytes) = lookup { found = (version, ByteBuffer(bytes: bytes)) }
            }
            return found
        }.whenComplete { result in
            switch result {
            case .success(.some((let version, let value))):
                metrics.hits.increment()
                value.withUnsafeReadableBytes {
                    KeyHandler.answerRead(exchange, version, $0, condition: condition)
                }
            case .success(nil):
                metrics.misses.increment()
                exchange.respond(KeyHandler.missing)
            case .failure(let error):
                exchange.respond(HTTPResponse(problem: Problem(error)))
            }
        }
    }

    /// The `if-none-match` of a read; nil where there is none.
    private static func condition(of request: HTTPRequest) -> String? {
        guard request.headers.contains(name: "if-none-match") else { return nil }
        return request.headers[canonicalForm: "if-none-match"].joined(separator: ",")
    }

    private static func answerRead(
        _ exchange: HTTPExchange, _ version: Version, _ value: UnsafeRawBufferPointer, condition: String?
    ) {
        if let condition, condition == "*" || condition.contains("\"\(version.hexDigits)\"") {
            return exchange.respond(status: 304, contentLength: nil) { $0.writeVersionFields(version) }
        }
        exchange.respond(status: 200, contentLength: value.count) { buffer in
            buffer.writeStaticString("content-type: application/octet-stream\r\n")
            buffer.writeVersionFields(version)
        } body: { buffer in
            buffer.writeBytes(value)
        }
    }

    private static let missing = HTTPResponse(
        problem: Problem(.notFound, "No value is stored under this key on this replica."))

    // MARK: Writing

    private func write(
        _ key: UnsafeRawBufferPointer, _ position: Int, _ request: HTTPRequest, _ exchange: HTTPExchange
    ) -> Problem? {
        if let name = request.headers.first(where: { KeyHandler.isCondition($0.name) })?.name {
            return Problem(.unsupported, "Conditional writes are not supported: send it without \(name).")
        }
        let operation: WriteOperation =
            request.method == .PUT
            ? .put(key: ByteBuffer(bytes: key), value: request.body) : .delete(key: ByteBuffer(bytes: key))
        gatherers[position]?.add(operation, exchange)
        return nil
    }
}

extension HTTPMethod {
    fileprivate var isRead: Bool { self == .GET || self == .HEAD }
}

extension ByteBuffer {
    /// `etag` and `kv-version`.
    mutating func writeVersionFields(_ version: Version) {
        writeStaticString("etag: \"")
        writeHexDigits(version.rawValue)
        writeStaticString("\"\r\nkv-version: ")
        writeHexDigits(version.rawValue)
        writeStaticString("\r\n")
    }

    private mutating func writeHexDigits(_ value: UInt64) {
        // Each nibble becomes a byte of its own, then a digit, eight at a time.
        writeInteger(ByteBuffer.hexDigits(UInt32(truncatingIfNeeded: value >> 32)))
        writeInteger(ByteBuffer.hexDigits(UInt32(truncatingIfNeeded: value)))
    }

    /// The eight hex digits of `value` as bytes, most significant first.
    private static func hexDigits(_ value: UInt32) -> UInt64 {
        var nibbles = UInt64(value)
        nibbles = (nibbles | nibbles << 16) & 0x0000_FFFF_0000_FFFF
        nibbles = (nibbles | nibbles << 8) & 0x00FF_00FF_00FF_00FF
        nibbles = (nibbles | nibbles << 4) & 0x0F0F_0F0F_0F0F_0F0F
        let letters = ((nibbles &+ 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101
        return nibbles &+ 0x3030_3030_3030_3030 &+ letters &* 39
    }
}
