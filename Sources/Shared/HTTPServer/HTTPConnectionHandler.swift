import NIOCore
import NIOHTTP1

/// One connection: puts requests together, keeps the order of the answers, enforces the limits.
///
/// Invariants: `owed` holds one slot for each request handed out and not yet answered into `output`; only the answer
/// to its first goes there, the others wait in their slot; nothing is handed out once `accepting` is false and
/// `arrivals` is empty; nothing is written after the answer that closes the connection.
///
/// What is not private is for the other half of the type, which puts the answers into `output` and sends them.
final class HTTPConnectionHandler: ChannelDuplexHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundIn = Never
    typealias OutboundOut = ByteBuffer

    enum Arrival {
        case request(HTTPRequest, AnswerQueue.Slot)
        case rejection(HTTPRejection, AnswerQueue.Slot)
    }

    private enum Closing {
        case no
        /// No more answers follow; those written are still on their way to the socket.
        case flushing
        /// The peer may still be sending what was refused. A closed socket would answer that with a reset, and a
        /// reset takes the answer away from the peer, so what arrives is read and dropped for a while.
        case lingering(since: NIODeadline)
    }

    /// Bytes read and dropped after the last request.
    private static let droppedBytesMax = 32 << 20

    let loop: HTTPLoop
    /// Over the limit of connections: answered 503 whatever it asks.
    private let isRefused: Bool
    var context: ChannelHandlerContext?
    var incoming = IncomingRequest()
    var arrivals = CircularBuffer<Arrival>(initialCapacity: 1)
    var owed = AnswerQueue()
    var output = ByteBuffer()
    /// Of the loop's budget for answers, held by what is in `output`.
    var outputReservedBytes = 0
    /// About what an answer of this connection takes: the largest of late.
    var expectedAnswerBytes = 0
    /// While true, answers gather in `output`; whoever set it sends them.
    var corked = false
    /// A large body was passed on and not flushed.
    var unflushed = false
    private var isWritable = true
    var readWanted = false
    var continueWanted = false
    /// False once what arrives can no longer get an answer: it is dropped.
    var accepting = true
    private var droppedBytes = 0
    var inputClosed = false
    var answeredLast = false
    private var closing = Closing.no
    var lastActivity: NIODeadline
    /// Heads that the decoder has read.
    private(set) var headsRead = 0
    /// The last of them, where its request ends where its length says and the connection goes on after it.
    private var lastPlainHead: (target: String, meaning: KnownHead.Meaning)?
    private var readingPace: ReadingPace
    /// Is in the loop's list of connections whose answers go out at the end of the batch.
    var isInBatch = false
    /// Answers given until the end of this turn of the event loop leave then.
    var defersAnswers = false

    init(loop: HTTPLoop, isRefused: Bool = false) {
        self.loop = loop
        self.isRefused = isRefused
        self.lastActivity = loop.now
        self.readingPace = ReadingPace(now: loop.now)
    }

    var closed: EventLoopFuture<Void>? { context?.channel.closeFuture }

    // MARK: Channel events

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        loop.add(self)
    }

    func channelActive(context: ChannelHandlerContext) {
        context.fireChannelActive()
        if isRefused {
            refuse(.overloaded)
            sendAnswers()
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) { forget() }

    func channelInactive(context: ChannelHandlerContext) {
        forget()
        context.fireChannelInactive()
    }

    private func forget() {
        guard context != nil else { return }
        context = nil
        accepting = false
        loop.remove(self)
        loop.release(incoming.reservedBytes + owed.reservedBytes)
        loop.releaseAnswer(owed.reservedAnswerBytes + outputReservedBytes)
        outputReservedBytes = 0
        for case .request(_, let slot) in arrivals { loop.release(slot.reservedBytes) }
        incoming = IncomingRequest()
        owed = AnswerQueue()
        arrivals.removeAll()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        corked = true
        let part = unwrapInboundIn(data)
        guard accepting else {
            if case .body(let bytes) = part { drop(bytes.readableBytes) }
            return
        }
        switch part {
        case .head(let head): receive(head)
        case .body(let bytes): receive(bytes)
        case .end: receiveEnd()
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        corked = false
        loop.sendAfterTurn(self)
        context.fireChannelReadComplete()
    }

    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { readWanted = true }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        isWritable = context.channel.isWritable
        // While corked, this is called from inside a write, and whoever corked goes on after it.
        if isWritable, !corked { sendAnswers() }
        context.fireChannelWritabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event as? ChannelEvent {
        case .inputClosed:
            inputClosed = true
            // The decoder may have passed parts on from its leftovers, with no end of a read to follow.
            corked = false
            sendAnswers()
        case .outputClosed:
            closing = .lingering(since: loop.eventLoop.now)
            if droppedBytes > HTTPConnectionHandler.droppedBytesMax { abort() } else { resumeReading() }
        case nil: break
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if case ByteToMessageDecoderError.dataReceivedInErrorState(_, let bytes) = error {
            return drop(bytes.readableBytes)
        }
        guard let rejection = HTTPRejection(decodingError: error, configuration: loop.configuration) else {
            // The socket is broken, or the peer floods a connection it asked to upgrade.
            return abort()
        }
        // A peer that has gone altogether shows as an unfinished request, too.
        guard accepting, context.channel.isActive else { return }
        refuse(rejection)
        if !corked { sendAnswers() }
    }

    // MARK: Receiving

    private func receive(_ head: HTTPRequestHead) {
        headsRead += 1
        lastPlainHead = nil
        let bodyBytesMax = loop.handler.bodyBytesMax(method: head.method, target: head.uri)
        switch incoming.begin(head, bodyBytesMax: bodyBytesMax, configuration: loop.configuration, now: loop.now) {
        case .refuse(let rejection):
            refuse(rejection)
        case .accept(_, expectsContinue: true) where !loop.handler.needsBody(method: head.method, target: head.uri):
            receiveEnd(bodyFollows: true)
        case .accept(let declaredBytes, let expectsContinue):
            guard loop.reserve(declaredBytes) else { return refuse(.overloaded) }
            incoming.reservedBytes = declaredBytes
            if incoming.endsByLength, head.isKeepAlive {
                lastPlainHead = (
                    head.uri,
                    KnownHead.Meaning(method: head.method, headers: head.headers, declaredBytes: declaredBytes)
                )
            }
            if expectsContinue {
                continueWanted = true
                sendContinueIfNext()
            }
        }
    }

    /// The head that the decoder has read last; nil where the next byte is not the first of its body, or of the request
    /// after it.
    func plainHead() -> (target: String, meaning: KnownHead.Meaning)? {
        guard let last = lastPlainHead else { return nil }
        lastPlainHead = nil
        let isAtItsEnd = last.meaning.declaredBytes == 0 ? incoming.head == nil : incoming.isAtItsStart
        return isAtItsEnd ? last : nil
    }

    /// A whole request without a body, by a head that the decoder read before.
    /// - Returns: false where the decoder must read it too: it is to be refused, or is the last one.
    func receive(_ known: KnownHead, target: ByteBuffer) -> Bool {
        guard acceptsKnown(targetBytes: target.readableBytes) else { return false }
        let method = known.meaning.method
        receive(known: HTTPRequest(method: method, target: target, headers: known.headers(bodyBytes: 0)), reserved: 0)
        return true
    }

    /// As above, with a body.
    func receive(_ known: KnownHead, target: String, body: ByteBuffer) -> Bool {
        let bytes = body.readableBytes
        let method = known.meaning.method
        guard acceptsKnown(targetBytes: target.utf8.count),
            bytes <= loop.handler.bodyBytesMax(method: method, target: target), loop.reserve(bytes)
        else { return false }
        receive(
            known: HTTPRequest(method: method, target: target, headers: known.headers(bodyBytes: bytes), body: body),
            reserved: bytes)
        return true
    }

    private func acceptsKnown(targetBytes: Int) -> Bool {
        accepting && !loop.draining && targetBytes <= loop.configuration.targetBytesMax
    }

    private func receive(known request: HTTPRequest, reserved: Int) {
        corked = true
        receive(
            request,
            AnswerQueue.Slot(
                isHead: request.method == .HEAD, isRead: request.method == .GET, keepAlive: true, saysKeepAlive: false,
                reservedBytes: reserved))
    }

    private func receive(_ request: HTTPRequest, _ slot: AnswerQueue.Slot) {
        if mayDispatch, arrivals.isEmpty { dispatch(request, slot) } else { arrivals.append(.request(request, slot)) }
    }

    private func receive(_ bytes: ByteBuffer) {
        continueWanted = false
        let count = bytes.readableBytes
        guard count <= incoming.bodyBytesMax - incoming.receivedBytes else {
            drop(count)
            return refuse(.bodyTooLarge(limit: incoming.bodyBytesMax))
        }
        let missing = incoming.receivedBytes + count - incoming.reservedBytes
        if missing > 0 {
            guard loop.reserve(missing) else { return refuse(.overloaded) }
            incoming.reservedBytes += missing
        }
        incoming.append(bytes)
    }

    /// - Parameter bodyFollows: the request is handed out without its body, which the peer may still send: the
    ///   connection is then of no further use.
    private func receiveEnd(bodyFollows: Bool = false) {
        guard let head = incoming.head else { return }
        continueWanted = false
        let request = HTTPRequest(
            method: head.method, target: incoming.target(of: head), headers: head.headers, body: incoming.body)
        let keepAlive = head.isKeepAlive && !incoming.offersUpgrade && !loop.draining && !bodyFollows
        let slot = AnswerQueue.Slot(
            isHead: request.method == .HEAD, isRead: request.method == .GET, keepAlive: keepAlive,
            saysKeepAlive: keepAlive && head.version.minor == 0, reservedBytes: incoming.reservedBytes)
        incoming = IncomingRequest()
        accepting = keepAlive
        receive(request, slot)
    }

    /// The request now arriving is refused: its answer is the last one of this connection.
    private func refuse(_ rejection: HTTPRejection) {
        let slot = AnswerQueue.Slot(
            isHead: incoming.head?.method == .HEAD, isRead: false, keepAlive: false, saysKeepAlive: false,
            reservedBytes: 0)
        loop.release(incoming.reservedBytes)
        incoming = IncomingRequest()
        continueWanted = false
        accepting = false
        arrivals.append(.rejection(rejection, slot))
        dispatchArrivals()
    }

    private func drop(_ count: Int) {
        droppedBytes += count
        if droppedBytes > HTTPConnectionHandler.droppedBytesMax, case .lingering = closing { abort() }
    }

    // MARK: Handing out

    private var mayDispatch: Bool {
        isWritable && owed.count < loop.configuration.pipelinedRequestsMax && !answeredLast
            && (owed.count * expectedAnswerBytes < loop.configuration.connectionAnswerBytesMax || owed.isEmpty)
    }

    private var mayRead: Bool {
        accepting ? arrivals.isEmpty && mayDispatch : droppedBytes <= HTTPConnectionHandler.droppedBytesMax
    }

    func dispatchArrivals() {
        let wasCorked = corked
        corked = true
        while mayDispatch, let arrival = arrivals.popFirst() {
            switch arrival {
            case .request(let request, let slot): dispatch(request, slot)
            case .rejection(let rejection, let slot):
                respond(sequence: owed.append(slot), loop.handler.response(to: rejection))
            }
        }
        corked = wasCorked
        resumeReading()
    }

    private func resumeReading() {
        guard readWanted, mayRead else { return }
        readWanted = false
        // The time in which this side did not read is not the sender's.
        if incoming.head != nil { incoming.since = loop.now }
        context?.read()
    }

    private func dispatch(_ request: HTTPRequest, _ slot: AnswerQueue.Slot) {
        let sequence = owed.append(slot)
        loop.handler.handle(request, HTTPExchange(connection: self, sequence: sequence))
    }

    // MARK: Closing

    func closeIfDone() {
        guard let context, case .no = closing else { return }
        if !answeredLast {
            guard owed.isEmpty, arrivals.isEmpty, inputClosed || (loop.draining && incoming.head == nil) else { return }
        }
        closing = .flushing
        accepting = false
        if answeredLast, !inputClosed {
            // Happens after all that is written; `outputClosed` tells.
            context.close(mode: .output, promise: nil)
            resumeReading()
        } else {
            // Unlike that, this drops what is not yet with the socket, so it waits for an empty write.
            let flushed = context.eventLoop.makePromise(of: Void.self)
            flushed.futureResult.assumeIsolated().whenComplete { _ in self.abort() }
            context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: flushed)
        }
    }

    func checkDeadlines() {
        let configuration = loop.configuration
        if isWritable { readingPace.reset(now: loop.now) } else { noteReading() }
        if case .lingering(let since) = closing {
            if loop.now - since > configuration.lingerTime { abort() }
        } else if incoming.head != nil, mayRead {
            guard !continueWanted, incoming.isLate(now: loop.now, timeout: configuration.requestTimeout) else { return }
            refuse(.timedOut)
            sendAnswers()
        } else if !isWritable {
            if readingPace.isTooSlow(now: loop.now, credit: configuration.idleTimeout) { abort() }
        } else if owed.isEmpty, arrivals.isEmpty {
            if loop.now - lastActivity > configuration.idleTimeout { abort() }
        }
    }

    private func noteReading() {
        guard let options = context?.channel.syncOptions,
            let pending = try? options.getOption(.bufferedWritableBytes)  // Only sockets know; others have none.
        else { return }
        readingPace.note(pendingBytes: pending, now: loop.now)
    }

    func drain() { sendAnswers() }

    func abort() { context?.close(promise: nil) }
}
