import Core
import NIOCore
import NIOHTTP1

/// One connection to a node: writes requests, matches responses to them in order. Confined to its event loop.
///
/// Invariants: `exchanges` are the requests written and not answered, in order, and the last `unflushed` of them have
/// not left this process; an exchange without a promise has been given up on and its response is read and dropped; a
/// connection that gave up on one takes no new request, and closes once nobody waits for it; while `isGathering`, all of
/// them are brief and none has left this process.
final class NodeConnection: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private struct Exchange {
        let deadline: NIODeadline
        var promise: EventLoopPromise<NodeResponse>?
    }

    private enum State { case active, draining, closed }

    /// Bodies from here on are written as they are, smaller ones are copied behind their head: one write less.
    private static let copiedBodyBytesMax = 16 << 10

    private let address: NodeAddress
    private let encoding: RequestEncoding
    private let channel: any Channel
    private let configuration: NodeConnectionsConfiguration
    private let responses: ResponseBudget
    /// nil until the connection is made, and after it is closed.
    private var pool: NodePool?

    private var state = State.active
    private var context: ChannelHandlerContext?
    private var exchanges = CircularBuffer<Exchange>()
    /// Exchanges with a promise.
    private var awaited = 0
    private var unflushed = 0
    private var output: ByteBuffer
    private var isFlushScheduled = false
    private var isGathering = false
    private var isReading = false
    private var responseHead: HTTPResponseHead?
    private var responseBody: ByteBuffer?
    /// Fires at or before the earliest deadline in flight, or before the connection has been idle for too long. It is
    /// left alone by requests that end in time, so that most requests cost no timer.
    private var timer: (deadline: NIODeadline, task: Scheduled<Void>)?
    private var idleSince = NIODeadline.now()
    /// What the channel reported before it closed.
    private var channelError: (any Error)?

    init(
        address: NodeAddress, encoding: RequestEncoding, channel: any Channel,
        configuration: NodeConnectionsConfiguration, responses: ResponseBudget
    ) {
        self.address = address
        self.encoding = encoding
        self.channel = channel
        self.configuration = configuration
        self.responses = responses
        self.output = channel.allocator.buffer(capacity: 1_024)
    }

    var hasRoom: Bool { state == .active && exchanges.count < configuration.pipeliningDepthMax }
    /// Whether one brief request more can leave with those that this turn of the event loop has gathered.
    var gathersMore: Bool {
        isGathering && state == .active && exchanges.count < configuration.briefRequestsAtOnceMax
    }
    var isIdle: Bool { exchanges.isEmpty }
    var load: Int { exchanges.count }
    var closeFuture: EventLoopFuture<Void> { channel.closeFuture }

    /// From here on the connection takes requests of `pool`.
    func start(in pool: NodePool) {
        self.pool = pool
        idleSince = .now()
        armTimer(idleSince + configuration.idleTimeout)
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
    }
}

// MARK: - Writing

extension NodeConnection {
    /// Writes a request; only while there is room, or it is brief and ``gathersMore``.
    func send(_ pending: PendingRequest) {
        assert(hasRoom || gathersMore)
        guard let context else {
            return pending.fail(.notSent, address, KVError(.unavailable, "the connection to \(address) is closed"))
        }
        if exchanges.isEmpty { isGathering = pending.request.isBrief && configuration.briefRequestsAtOnceMax > 1 }
        exchanges.append(Exchange(deadline: pending.deadline, promise: pending.promise))
        awaited += 1
        unflushed += 1
        context.write(Self.decoderHint(pending.request.method), promise: nil)
        encoding.writeHead(of: pending.request, into: &output)
        if let body = pending.request.body {
            if body.readableBytes <= Self.copiedBodyBytesMax {
                output.writeImmutableBuffer(body)
            } else {
                writeOutput(context)
                context.write(Self.wrapOutboundOut(.body(.byteBuffer(body))), promise: nil)
            }
        }
        armTimer(pending.deadline)
        if isReading {
            // `channelReadComplete` flushes once for every request this read led to.
        } else if exchanges.count == 1, !isGathering {
            flush(context)
        } else if !isFlushScheduled {
            isFlushScheduled = true
            context.eventLoop.assumeIsolated().execute { [self] in
                isFlushScheduled = false
                if let context = self.context, unflushed > 0 { flush(context) }
            }
        }
    }

    private func flush(_ context: ChannelHandlerContext) {
        isGathering = false
        writeOutput(context)
        unflushed = 0
        context.flush()
    }

    private func writeOutput(_ context: ChannelHandlerContext) {
        guard output.readableBytes > 0 else { return }
        context.write(Self.wrapOutboundOut(.body(.byteBuffer(output))), promise: nil)
        output.clear()
    }

    /// Tells the response decoder the method: see ``RequestByteSink``.
    private static func decoderHint(_ method: HTTPMethod) -> NIOAny {
        let head = method == .HEAD ? headHint : otherHint
        return wrapOutboundOut(.head(head))
    }

    private static let headHint = HTTPRequestHead(version: .http1_1, method: .HEAD, uri: "/")
    private static let otherHint = HTTPRequestHead(version: .http1_1, method: .GET, uri: "/")
}

// MARK: - Reading

extension NodeConnection {
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        isReading = true
        guard state != .closed else { return }
        switch Self.unwrapInboundIn(data) {
        case .head(let head): responseHead = head
        case .body(let bytes): append(bytes)
        case .end: finishResponse()
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        if state != .closed, unflushed > 0 { flush(context) }
        context.fireChannelReadComplete()
    }

    private func append(_ bytes: ByteBuffer) {
        guard exchanges.first?.promise != nil else { return }
        guard responses.take(bytes.readableBytes) else {
            failFirst(KVError(.overloaded, "too many bytes of answers are on their way here: try again later"))
            return terminate(
                KVError(.unavailable, "the connection to \(address) was closed: there was no room for its answer"))
        }
        if responseBody == nil {
            responseBody = bytes
        } else {
            responseBody?.writeImmutableBuffer(bytes)
        }
        guard responseBody?.readableBytes ?? 0 > configuration.responseBodyBytesMax else { return }
        let message = "the answer of \(address) is larger than \(configuration.responseBodyBytesMax) bytes"
        failFirst(KVError(.invalidData, message))
        terminate(KVError(.unavailable, "the connection to \(address) was closed: the answer before was too large"))
    }

    private func finishResponse() {
        guard let head = responseHead, exchanges.count > unflushed, let exchange = exchanges.popFirst() else {
            return terminate(KVError(.invalidData, "\(address) sent an answer before it was asked"))
        }
        let response = NodeResponse(
            status: Int(head.status.code), headers: head.headers, body: responseBody ?? Self.noBytes)
        responseHead = nil
        dropBody()
        if exchange.promise != nil { awaited -= 1 }
        if !head.isKeepAlive {
            // RFC 9112 section 9.6: the node processes no request after the one it answered with `close`.
            terminate(
                KVError(.unavailable, "\(address) closed the connection before the request's turn"),
                deliveryOfFlushed: .notSent)
        } else if state == .draining && awaited == 0 {
            terminate(KVError(.timedOut, "\(address) did not answer in time"))
        } else {
            if exchanges.isEmpty {
                idleSince = .now()
                armTimer(idleSince + configuration.idleTimeout)
            }
            pool?.serveWaiters()
        }
        exchange.promise?.succeed(response)
    }

    private static let noBytes = ByteBuffer()
}

// MARK: - Ending

extension NodeConnection {
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error {
        case is HTTPParserError, is NIOHTTPDecoderError:
            terminate(KVError(.invalidData, "\(address) answered no HTTP: is it a node of the cluster?", cause: error))
        default:
            channelError = error
            context.close(promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        terminate(KVError(.unavailable, "\(address) closed the connection before it answered", cause: channelError))
        context.fireChannelInactive()
    }

    /// Closes the connection and fails the requests on it.
    func terminate(_ reason: KVError, deliveryOfFlushed: NodeFailure.Delivery = .possiblySent) {
        guard state != .closed else { return }
        state = .closed
        timer?.task.cancel()
        timer = nil
        let failed = exchanges
        let flushedCount = failed.count - unflushed
        exchanges = CircularBuffer()
        dropBody()
        awaited = 0
        unflushed = 0
        let pool = self.pool
        self.pool = nil
        pool?.remove(self)
        for (position, exchange) in failed.enumerated() {
            let delivery = position < flushedCount ? deliveryOfFlushed : .notSent
            exchange.promise?.fail(NodeFailure(address: address, delivery: delivery, error: reason))
        }
        channel.close(promise: nil)
    }

    /// Gives up the exchange that is to complete `response`; false where it is not one of this connection's.
    func cancel(_ response: EventLoopFuture<NodeResponse>, _ reason: KVError) -> Bool {
        guard let index = exchanges.firstIndex(where: { $0.promise?.futureResult === response }),
            let promise = exchanges[index].promise
        else { return false }
        let isFlushed = exchanges.distance(from: exchanges.startIndex, to: index) < exchanges.count - unflushed
        exchanges[index].promise = nil
        awaited -= 1
        // Its response must not be taken for the next request's: no new ones behind it.
        if state == .active { state = .draining }
        if awaited == 0 { terminate(reason) }
        promise.fail(NodeFailure(address: address, delivery: isFlushed ? .possiblySent : .notSent, error: reason))
        return true
    }

    private func dropBody() {
        responses.giveBack(responseBody?.readableBytes ?? 0)
        responseBody = nil
    }

    private func failFirst(_ error: KVError) {
        guard let promise = exchanges.first?.promise else { return }
        exchanges[exchanges.startIndex].promise = nil
        awaited -= 1
        promise.fail(NodeFailure(address: address, delivery: .possiblySent, error: error))
    }

    private func armTimer(_ deadline: NIODeadline) {
        if let timer {
            guard deadline < timer.deadline else { return }
            timer.task.cancel()
        }
        let task = channel.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { [self] in
            timer = nil
            timerFired(now: .now())
        }
        timer = (deadline, task)
    }

    private func timerFired(now: NIODeadline) {
        guard state != .closed else { return }
        if exchanges.isEmpty {
            guard now >= idleSince + configuration.idleTimeout else {
                return armTimer(idleSince + configuration.idleTimeout)
            }
            return terminate(KVError(.unavailable, "the connection to \(address) was idle"))
        }
        var expired: [(EventLoopPromise<NodeResponse>, NodeFailure.Delivery)] = []
        var next: NIODeadline?
        let flushedCount = exchanges.count - unflushed
        for (position, index) in exchanges.indices.enumerated() {
            guard let promise = exchanges[index].promise else { continue }
            guard now >= exchanges[index].deadline else {
                next = min(next ?? .distantFuture, exchanges[index].deadline)
                continue
            }
            exchanges[index].promise = nil
            awaited -= 1
            expired.append((promise, position < flushedCount ? .possiblySent : .notSent))
        }
        let error = KVError(.timedOut, "\(address) did not answer before the deadline")
        // A late response must not be taken for the next request's: no new ones behind it.
        if !expired.isEmpty { state = .draining }
        if awaited == 0 { terminate(error) } else if let next { armTimer(next) }
        for (promise, delivery) in expired {
            promise.fail(NodeFailure(address: address, delivery: delivery, error: error))
        }
    }
}
