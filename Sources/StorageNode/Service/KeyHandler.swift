import Configuration
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
    private static let allowedMethods = "GET, HEAD, PUT, DELETE, POST"
    private static let incrementParameter = "incr"
    private static let ttlParameter = "ttl"
    private static let incrementParameters = RoutedQuery.parameterNames + [incrementParameter]
    private static let putParameters = RoutedQuery.parameterNames + [ttlParameter]

    private let node: Node
    private let eventLoop: any EventLoop
    private let defaultAck: AckLevel
    private var view: NodeView
    /// By position in the view's topology.
    private var gatherers: [WriteGatherer?] = []
    private var nextReplica = 0
    private var recentQueries = RecentQueries<Demands>()

    init(node: Node, view: NodeView, eventLoop: any EventLoop) {
        self.node = node
        self.view = view
        self.eventLoop = eventLoop
        defaultAck = node.configuration.replication.defaultAck
        use(view)
    }

    /// Goes by `view` from now on. Replicas that stay keep their gatherers, and those what they have gathered.
    func use(_ view: NodeView) {
        let kept = gatherers
        self.view = view
        gatherers = view.replicas.map { replica in
            guard let replica else { return nil }
            return kept.first { $0?.replica === replica }
                ?? WriteGatherer(replica: replica, eventLoop: eventLoop, metrics: node.metrics) { [weak self] write in
                    self?.redirectToLeader(write)
                }
        }
    }

    /// What the query of a request for a key says.
    private struct Demands {
        var query: RoutedQuery
        var guarantees = Guarantees()
        /// What a POST adds to a counter.
        var increment: Int64?
        /// How long the value of a PUT lives, in milliseconds; nil for ever.
        var ttl: UInt64?
    }

    /// A request for a key, on its way through the methods below.
    private struct Request {
        var request: HTTPRequest
        var target: KeyTarget
        /// Of the request's target; `target` was made from them.
        var bytes: UnsafeRawBufferPointer
        var demands: Demands
        var exchange: HTTPExchange
        /// False where a read has waited for its version already.
        var mayWait: Bool
    }

    /// - Parameter bytes: of the request's target; `target` was made from them.
    func handle(
        _ request: HTTPRequest, _ target: KeyTarget, _ bytes: UnsafeRawBufferPointer, _ exchange: HTTPExchange,
        mayWait: Bool = true
    ) throws(Problem) {
        let asked = Request(
            request: request, target: target, bytes: bytes, demands: try demands(of: request, target, bytes),
            exchange: exchange, mayWait: mayWait)
        let problem = try target.withKey(in: bytes) { key -> Problem? in
            let position = view.topology.position(of: HashSlot(key: key))
            guard let replica = view.replicas[position] else { return redirectElsewhere(position, asked) }
            switch request.method {
            case .GET, .HEAD:
                return read(key, position, replica, asked)
            case .PUT, .DELETE, .POST:
                guard view.leads[position] else { return redirectToLeader(position, asked) }
                return write(key, position, asked)
            default:
                exchange.respond(
                    HTTPResponse(methodNotAllowed: request.method.rawValue, allowed: KeyHandler.allowedMethods))
                return nil
            }
        }
        if let problem { throw problem }
    }

    private func demands(
        of request: HTTPRequest, _ target: KeyTarget, _ bytes: UnsafeRawBufferPointer
    ) throws(Problem) -> Demands {
        guard let place = target.query else { return try Demands(query: RoutedQuery(nil, in: bytes)) }
        let query = UnsafeRawBufferPointer(rebasing: bytes[place])
        return try recentQueries.value(of: query, request.method) { () throws(Problem) in
            var demands = try Demands(query: RoutedQuery(place, in: bytes))
            try KeyHandler.read(QueryParameters(request.query), of: request.method, into: &demands)
            return demands
        }
    }

    private static func read(
        _ parameters: QueryParameters, of method: HTTPMethod, into demands: inout Demands
    ) throws(Problem) {
        switch method {
        case .POST:
            try refuseTTL(parameters, "A counter keeps the life that its value has: set it with PUT and ttl.")
            try parameters.allowOnly(incrementParameters)
            demands.increment = try parameters.integer(incrementParameter)
        case .PUT:
            try parameters.allowOnly(putParameters)
            demands.ttl = try parameters.text(ttlParameter).map(ttl)
        default:
            try refuseTTL(parameters, "Only a PUT takes ttl: it says how long the value lives.")
            try parameters.allowOnly(RoutedQuery.parameterNames)
        }
        demands.guarantees = try Guarantees(parameters)
        try demands.guarantees.check(isRead: method.isRead)
    }

    private static func refuseTTL(_ parameters: QueryParameters, _ detail: String) throws(Problem) {
        if parameters.bytes(ttlParameter) != nil { throw Problem(.badRequest, detail) }
    }

    private static func ttl(_ text: String) throws(Problem) -> UInt64 {
        guard let milliseconds = DurationText.milliseconds(text), (1...Limits.ttlMillisecondsMax).contains(milliseconds)
        else {
            throw Problem(
                .badRequest,
                "ttl=\(text.prefix(64)) is not allowed: give a whole number and a unit (ms, s, m, h, d) from 1ms to "
                    + "\(Limits.ttlMillisecondsMax / 86_400_000)d, as in 30s.")
        }
        return milliseconds
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

    // MARK: Redirecting

    /// Where a shard that is not here is served: writes at its leader, reads at its replicas in turn.
    private func ownerFields(_ position: Int, _ asked: Request) -> [UInt8] {
        let fields = view.redirectFields[position]
        guard asked.request.method.isRead, asked.demands.guarantees.consistency != .leader else { return fields[0] }
        nextReplica &+= 1
        return fields[nextReplica % fields.count]
    }

    /// No replica of the shard is served here.
    private func redirectElsewhere(_ position: Int, _ asked: Request) -> Problem? {
        // It belongs here but is not served now: its leader serves the key, where that is another node.
        if view.absences[position] != nil || view.leads[position] { return redirectToLeader(position, asked) }
        node.metrics.redirects.increment()
        asked.demands.query.redirect(
            asked.exchange, .permanent, fields: ownerFields(position, asked), asked.target, of: asked.bytes)
        return nil
    }

    private func redirectToLeader(_ position: Int, _ asked: Request) -> Problem? {
        // Never to itself.
        guard !view.leads[position] else { return view.leaderOutOfService(at: position) }
        node.metrics.redirects.increment()
        asked.demands.query.redirect(
            asked.exchange, .temporary, fields: view.redirectFields[position][0], asked.target, of: asked.bytes)
        return nil
    }

    /// A write that was not made, because the leadership has moved since it came in.
    private func redirectToLeader(_ write: GatheredWrite) {
        let request = HTTPRequest(method: .PUT, target: write.target)
        let problem = request.withTargetBytes { bytes -> Problem? in
            guard let target = KeyTarget(bytes) else { return Problem(.internalError, "The target names no key.") }
            do throws(Problem) {
                let asked = Request(
                    request: request, target: target, bytes: bytes,
                    demands: Demands(query: try RoutedQuery(target.query, in: bytes)), exchange: write.exchange,
                    mayWait: false)
                let position = try target.withKey(in: bytes) { view.topology.position(of: HashSlot(key: $0)) }
                return redirectToLeader(position, asked)
            } catch {
                return error
            }
        }
        if let problem { write.exchange.respond(HTTPResponse(problem: problem)) }
    }

    // MARK: Reading

    private func read(
        _ key: UnsafeRawBufferPointer, _ position: Int, _ replica: ShardReplica, _ asked: Request
    ) -> Problem? {
        let leads = view.leads[position]
        let lag = leads ? nil : replica.freshness.lagMilliseconds
        do throws(Problem) {
            let fields = try ReadFields(asked.request.headers)
            let decision = ReadDecision(
                asked.demands.guarantees, minVersion: fields.minVersion,
                at: ReadDecision.Situation(
                    leads: leads, isLeader: replica.role.isLeader, isJoining: replica.isJoining,
                    lagMilliseconds: lag, mayWait: asked.mayWait),
                newest: replica.newestVersion)
            switch decision {
            case .answer:
                let answer = ReadAnswer(
                    exchange: asked.exchange, condition: KeyHandler.condition(of: asked.request, fields), lag: lag)
                return lookUp(key, position, replica, answer, asked)
            case .redirectToLeader, .leaderIsChanging:
                return redirectToLeader(position, asked)
            case .waitForVersion(let version):
                guard wait(for: version, replica, asked) else { return redirectToLeader(position, asked) }
            case .refuseVersion(let version):
                return Problem(
                    .versionUnknown,
                    "The leader of \(view.topology.shards[position].name) has no version \(version.hexDigits): it is of "
                        + "another shard, or was lost in a failover; read again without \(KVHeader.minVersion).")
            }
            return nil
        } catch {
            return error
        }
    }

    /// How long a read waits for the version it demands, before it is sent to the leader.
    private static let versionWait = TimeAmount.milliseconds(100)

    /// Handles the read again when the replica has the version, or when it has waited long enough.
    /// - Returns: false where too many wait already.
    private func wait(for version: Version, _ replica: ShardReplica, _ asked: Request) -> Bool {
        let (eventLoop, exchange) = (eventLoop, asked.exchange)
        // With a target of its own: what the connection read is not held for as long as this waits.
        let request = HTTPRequest(
            method: asked.request.method, target: asked.request.target, headers: asked.request.headers)
        let handler = NIOLoopBound(self, eventLoop: eventLoop)
        let timer = NIOLoopBoundBox<Scheduled<Void>?>(nil, eventLoop: eventLoop)
        do throws(KVError) {
            let wait = try replica.log.waitForVersion(version) { _ in
                eventLoop.execute {
                    timer.value?.cancel()
                    handler.value.resume(request, exchange)
                }
            }
            switch wait {
            case .ready: eventLoop.execute { handler.value.resume(request, exchange) }
            case .waiting(let token):
                timer.value = eventLoop.scheduleTask(in: KeyHandler.versionWait) {
                    if replica.log.cancelWait(token) { handler.value.resume(request, exchange) }
                }
            }
            return true
        } catch {
            return false
        }
    }

    private func resume(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        request.withTargetBytes { bytes in
            guard let target = KeyTarget(bytes) else { return }
            do throws(Problem) {
                try handle(request, target, bytes, exchange, mayWait: false)
            } catch {
                exchange.respond(HTTPResponse(problem: error))
            }
        }
    }

    private func lookUp(
        _ key: UnsafeRawBufferPointer, _ position: Int, _ replica: ShardReplica, _ answer: ReadAnswer, _ asked: Request
    ) -> Problem? {
        do throws(KVError) {
            var blocks = false
            try replica.read(key: key, tier: .memory) { lookup in
                switch lookup {
                case .value(let value):
                    node.metrics.hits.increment()
                    answer.found(value.version, value.bytes, left: replica.millisecondsLeft(of: value))
                case .missing:
                    node.metrics.misses.increment()
                    answer.missing()
                case .wouldBlock:
                    blocks = true
                }
            }
            if blocks { readFromDisk(ByteBuffer(bytes: key), replica, answer, asked.request) }
            return nil
        } catch {
            // What is damaged here is whole on the leader.
            guard error.code == .corrupted, !view.leads[position] else { return Problem(ofRead: error) }
            return redirectToLeader(position, asked)
        }
    }

    /// The value is not in memory: a thread that may block fetches it.
    private func readFromDisk(
        _ key: ByteBuffer, _ replica: ShardReplica, _ answer: ReadAnswer, _ request: HTTPRequest
    ) {
        let metrics = node.metrics
        let handler = NIOLoopBound(self, eventLoop: eventLoop)
        metrics.diskReads.increment()
        node.readers.run(on: answer.exchange.eventLoop) {
            var found: (Version, ByteBuffer, left: UInt64?)?
            let failure = key.withUnsafeReadableBytes { key -> KVError? in
                do throws(KVError) {
                    try replica.read(key: key, tier: .disk) { lookup in
                        guard case .value(let value) = lookup else { return }
                        found = (value.version, ByteBuffer(bytes: value.bytes), replica.millisecondsLeft(of: value))
                    }
                    return nil
                } catch {
                    return error
                }
            }
            if let failure { throw failure }
            return found
        }.whenComplete { result in
            switch result {
            case .success(.some((let version, let value, let left))):
                metrics.hits.increment()
                value.withUnsafeReadableBytes { answer.found(version, $0, left: left) }
            case .success(nil):
                metrics.misses.increment()
                answer.missing()
            case .failure(let error):
                handler.value.answerFailedRead(error, request, answer.exchange)
            }
        }
    }

    /// What is damaged here is whole on the leader.
    private func answerFailedRead(_ error: any Error, _ request: HTTPRequest, _ exchange: HTTPExchange) {
        var problem: Problem? = Problem(ofRead: error)
        if problem == .damagedRead {
            problem = request.withTargetBytes { bytes in
                guard let target = KeyTarget(bytes) else { return problem }
                do throws(Problem) {
                    let asked = Request(
                        request: request, target: target, bytes: bytes,
                        demands: try demands(of: request, target, bytes),
                        exchange: exchange, mayWait: false)
                    let position = try target.withKey(in: bytes) { view.topology.position(of: HashSlot(key: $0)) }
                    return view.leads[position] ? problem : redirectToLeader(position, asked)
                } catch {
                    return error
                }
            }
        }
        if let problem { exchange.respond(HTTPResponse(problem: problem)) }
    }

    /// The `if-none-match` of a read; nil where there is none.
    private static func condition(of request: HTTPRequest, _ fields: ReadFields) -> String? {
        guard fields.hasCondition else { return nil }
        return request.headers[canonicalForm: "if-none-match"].joined(separator: ",")
    }

    // MARK: Writing

    private func write(_ key: UnsafeRawBufferPointer, _ position: Int, _ asked: Request) -> Problem? {
        let request = asked.request
        guard let gatherer = gatherers[position] else { return nil }
        let operation: WriteOperation
        let demand: AckDemand?
        do throws(Problem) {
            operation = try KeyHandler.operation(key, asked)
            demand = try AckDemand(asked.demands.guarantees, defaultAck: defaultAck, view.topology.shards[position])
            if demand != nil { try AckDemand.reserve(gatherer.replica) }
        } catch {
            return error
        }
        gatherer.add(
            operation, GatheredWrite(exchange: asked.exchange, target: request.target, demand: demand))
        return nil
    }

    /// - Throws: `bad-request` where a condition cannot be read, or a POST does not say what to add.
    private static func operation(
        _ key: UnsafeRawBufferPointer, _ asked: Request
    ) throws(Problem) -> WriteOperation {
        let condition = try WriteCondition(asked.request.headers)
        let operation: WriteOperation
        switch asked.request.method {
        case .PUT:
            let (key, value) = (ByteBuffer(bytes: key), asked.request.body)
            operation =
                asked.demands.ttl.map { .expiringPut(key: key, value: value, milliseconds: $0) }
                ?? .put(key: key, value: value)
        case .DELETE: operation = .delete(key: ByteBuffer(bytes: key))
        default:
            guard let increment = asked.demands.increment, asked.request.body.readableBytes == 0 else {
                throw Problem(
                    .badRequest, "A POST to a key adds to a counter: send ?\(incrementParameter)=N and no body.")
            }
            operation = .increment(key: ByteBuffer(bytes: key), by: increment)
        }
        return condition.map { .conditional($0, operation) } ?? operation
    }
}

extension HTTPMethod {
    fileprivate var isRead: Bool { self == .GET || self == .HEAD }
}

extension ByteBuffer {
    private static let versionFields: StaticString = "etag: \"0000000000000000\"\r\nkv-version: 0000000000000000\r\n"
    /// Where the digits stand in them.
    private static let versionOffsets = (tag: 7, version: 38)

    /// `etag` and `kv-version`.
    mutating func writeVersionFields(_ version: Version) {
        // Each nibble becomes a byte of its own, then a digit, eight at a time.
        let high = ByteBuffer.hexDigits(UInt32(truncatingIfNeeded: version.rawValue >> 32)).bigEndian
        let low = ByteBuffer.hexDigits(UInt32(truncatingIfNeeded: version.rawValue)).bigEndian
        let fields = UnsafeRawBufferPointer(
            start: ByteBuffer.versionFields.utf8Start, count: ByteBuffer.versionFields.utf8CodeUnitCount)
        writeWithUnsafeMutableBytes(minimumWritableBytes: fields.count) { target in
            target.copyMemory(from: fields)
            let (tag, version) = ByteBuffer.versionOffsets
            target.storeBytes(of: high, toByteOffset: tag, as: UInt64.self)
            target.storeBytes(of: low, toByteOffset: tag + 8, as: UInt64.self)
            target.storeBytes(of: high, toByteOffset: version, as: UInt64.self)
            target.storeBytes(of: low, toByteOffset: version + 8, as: UInt64.self)
            return fields.count
        }
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
