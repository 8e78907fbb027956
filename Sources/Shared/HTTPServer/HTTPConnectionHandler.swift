import NIOCore
import NIOHTTP1

/// One connection: puts requests together, keeps the order of the answers, enforces the limits.
///
/// Invariants: `owed` holds one slot for each request handed out and not yet answered into `output`; only the answer
/// to its first goes there, the others wait in their slot; nothing is handed out once `accepting` is false and
/// `arrivals` is empty; nothing is written after the answer that closes the connection.
final class HTTPConnectionHandler: ChannelDuplexHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundIn = Never
    typealias OutboundOut = ByteBuffer

    private enum Arrival {
        case request(HTTPRequest, keepAlive: Bool, saysKeepAlive: Bool, reservedBytes: Int)
        case rejection(HTTPRejection, isHead: Bool)
    }

    private enum Closing {
        case no
        /// No more answers follow; those written are still on their way to the socket.
        case flushing
        /// The peer may still be sending what was refused. A closed socket would answer that with a reset, and a
        /// reset takes the answer away from the peer, so what arrives is read and dropped for a while.
        case lingering(since: NIODeadline)
    }

    /// Bodies from here on are written as buffers of their own instead of being copied into the output.
    private static let separateBodyBytesMin = 32_768
    /// Answers gather up to this size before they are passed on, and count against the channel's write buffer.
    private static let outputBytesMax = 65_536
    /// An output buffer up to this size is used again; larger ones would add up over idle connections.
    private static let outputBytesKept = 4_096
    /// Bytes read and dropped after the last request.
    private static let droppedBytesMax = 32 << 20

    let loop: HTTPLoop
    /// Over the limit of connections: answered 503 whatever it asks.
    private let isRefused: Bool
    private var context: ChannelHandlerContext?
    private var incoming = IncomingRequest()
    private var arrivals = CircularBuffer<Arrival>(initialCapacity: 1)
    private var owed = AnswerQueue()
    private var output = ByteBuffer()
    /// While true, answers gather in `output`; whoever set it sends them.
    private var corked = false
    /// A large body was passed on and not flushed.
    private var unflushed = false
    private var isWritable = true
    private var readWanted = false
    private var continueWanted = false
    /// False once what arrives can no longer get an answer: it is dropped.
    private var accepting = true
    private var droppedBytes = 0
    private var inputClosed = false
    private var answeredLast = false
    private var closing = Closing.no
    private var lastActivity: NIODeadline
    private var pendingBytesSeen = 0
    /// Is in the loop's list of connections whose answers go out at the end of the batch.
    var isInBatch = false

    init(loop: HTTPLoop, isRefused: Bool = false) {
        self.loop = loop
        self.isRefused = isRefused
        self.lastActivity = loop.now
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
        for case .request(_, _, _, let reserved) in arrivals { loop.release(reserved) }
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
        sendAnswers()
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
        let rejection: HTTPRejection
        switch error {
        case ByteToMessageDecoderError.dataReceivedInErrorState(_, let bytes):
            return drop(bytes.readableBytes)
        case is LimitedRequestDecoder.TargetTooLong:
            rejection = .targetTooLong(limit: loop.configuration.targetBytesMax)
        case HTTPParserError.headerOverflow:
            rejection = .headersTooLarge(limit: loop.configuration.headerBytesMax)
        case let parserError as HTTPParserError:
            rejection = .malformed(parserError.debugDescription)
        default:
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
        let bodyBytesMax = loop.handler.bodyBytesMax(method: head.method, target: head.uri)
        switch incoming.begin(head, bodyBytesMax: bodyBytesMax, configuration: loop.configuration, now: loop.now) {
        case .refuse(let rejection):
            refuse(rejection)
        case .accept(let declaredBytes, let expectsContinue):
            guard loop.reserve(declaredBytes) else { return refuse(.overloaded) }
            incoming.reservedBytes = declaredBytes
            if expectsContinue {
                continueWanted = true
                sendContinueIfNext()
            }
        }
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

    private func receiveEnd() {
        guard let head = incoming.head else { return }
        continueWanted = false
        let request = HTTPRequest(
            method: head.method, target: incoming.target(of: head), headers: head.headers, body: incoming.body)
        let keepAlive = head.isKeepAlive && !incoming.offersUpgrade && !loop.draining
        let saysKeepAlive = keepAlive && head.version.minor == 0
        let reserved = incoming.reservedBytes
        incoming = IncomingRequest()
        accepting = keepAlive
        if mayDispatch, arrivals.isEmpty {
            dispatch(request, keepAlive: keepAlive, saysKeepAlive: saysKeepAlive, reservedBytes: reserved)
        } else {
            arrivals.append(
                .request(request, keepAlive: keepAlive, saysKeepAlive: saysKeepAlive, reservedBytes: reserved))
        }
    }

    /// The request now arriving is refused: its answer is the last one of this connection.
    private func refuse(_ rejection: HTTPRejection) {
        let isHead = incoming.head?.method == .HEAD
        loop.release(incoming.reservedBytes)
        incoming = IncomingRequest()
        continueWanted = false
        accepting = false
        arrivals.append(.rejection(rejection, isHead: isHead))
        dispatchArrivals()
    }

    private func drop(_ count: Int) {
        droppedBytes += count
        if droppedBytes > HTTPConnectionHandler.droppedBytesMax, case .lingering = closing { abort() }
    }

    // MARK: Handing out

    private var mayDispatch: Bool {
        isWritable && owed.count < loop.configuration.pipelinedRequestsMax && !answeredLast
    }

    private var mayRead: Bool {
        accepting ? arrivals.isEmpty && mayDispatch : droppedBytes <= HTTPConnectionHandler.droppedBytesMax
    }

    private func dispatchArrivals() {
        let wasCorked = corked
        corked = true
        while mayDispatch, let arrival = arrivals.popFirst() {
            switch arrival {
            case .request(let request, let keepAlive, let saysKeepAlive, let reserved):
                dispatch(request, keepAlive: keepAlive, saysKeepAlive: saysKeepAlive, reservedBytes: reserved)
            case .rejection(let rejection, let isHead):
                let sequence = owed.append(
                    AnswerQueue.Slot(isHead: isHead, keepAlive: false, saysKeepAlive: false, reservedBytes: 0))
                respond(sequence: sequence, loop.handler.response(to: rejection))
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

    private func dispatch(_ request: HTTPRequest, keepAlive: Bool, saysKeepAlive: Bool, reservedBytes: Int) {
        let sequence = owed.append(
            AnswerQueue.Slot(
                isHead: request.method == .HEAD, keepAlive: keepAlive, saysKeepAlive: saysKeepAlive,
                reservedBytes: reservedBytes))
        loop.handler.handle(request, HTTPExchange(connection: self, sequence: sequence))
    }

    // MARK: Answering

    func respond(sequence: UInt64, _ response: HTTPResponse) {
        let hasContent = response.status != 204 && response.status != 304
        let separate = response.body.readableBytes >= HTTPConnectionHandler.separateBodyBytesMin
        respond(
            sequence: sequence, status: response.status,
            contentLength: hasContent ? response.body.readableBytes : nil,
            separateBody: hasContent && separate ? response.body : nil
        ) { buffer in
            buffer.writeFields(response.headers)
        } body: { buffer in
            buffer.writeImmutableBuffer(response.body)
        }
    }

    func respond(
        sequence: UInt64, status: Int, contentLength: Int?, separateBody: ByteBuffer? = nil,
        fields: (inout ByteBuffer) -> Void, body: (inout ByteBuffer) -> Void
    ) {
        guard context != nil, let turn = owed.turn(of: sequence) else { return }
        if turn == 0 {
            let wasCorked = corked
            corked = true
            let slot = leaveQueue()
            let closes = isLast(slot)
            writeHead(status, contentLength, into: &output, fields: fields)
            endHead(of: slot, closes: closes)
            if let contentLength, !slot.isHead {
                if let separateBody { pass(separateBody) } else { append(contentLength, to: &output, body) }
            }
            if closes { endAnswers() }
            passOnIfLarge()
            answerWaiting()
            corked = wasCorked
        } else {
            var head = ByteBuffer()
            writeHead(status, contentLength, into: &head, fields: fields)
            var content = ByteBuffer()
            if let contentLength, !owed[turn].isHead {
                if let separateBody { content = separateBody } else { append(contentLength, to: &content, body) }
            }
            owed[turn].answer = AnswerQueue.Answer(head: head, body: content)
        }
        if !corked, !loop.defersSending(of: self) { sendAnswers() }
    }

    private func append(_ contentLength: Int, to buffer: inout ByteBuffer, _ body: (inout ByteBuffer) -> Void) {
        let start = buffer.writerIndex
        body(&buffer)
        assert(buffer.writerIndex - start == contentLength, "the content is not as long as content-length says")
    }

    private func writeHead(
        _ status: Int, _ contentLength: Int?, into buffer: inout ByteBuffer, fields: (inout ByteBuffer) -> Void
    ) {
        if buffer.capacity == 0 { buffer.reserveCapacity(512) }
        buffer.writeStatusLine(status)
        if let contentLength {
            buffer.writeStaticString("content-length: ")
            buffer.writeDecimal(UInt64(contentLength))
            buffer.writeStaticString("\r\n")
        }
        fields(&buffer)
        loop.handler.writeCommonFields(into: &buffer)
        buffer.writeBytes(loop.dateField)
    }

    private func endHead(of slot: AnswerQueue.Slot, closes: Bool) {
        if closes {
            output.writeStaticString("connection: close\r\n\r\n")
        } else if slot.saysKeepAlive {
            output.writeStaticString("connection: keep-alive\r\n\r\n")
        } else {
            output.writeStaticString("\r\n")
        }
    }

    private func leaveQueue() -> AnswerQueue.Slot {
        let slot = owed.removeFirst()
        loop.release(slot.reservedBytes)
        lastActivity = loop.now
        return slot
    }

    /// The answer of `slot`, which has just left the queue, closes the connection: as the peer wished, or as the
    /// last one owed by a server that shuts down.
    private func isLast(_ slot: AnswerQueue.Slot) -> Bool {
        !slot.keepAlive || (loop.draining && owed.isEmpty && arrivals.isEmpty && incoming.head == nil)
    }

    private func endAnswers() {
        answeredLast = true
        accepting = false
    }

    /// Passes on the answers that waited for the one just given.
    private func answerWaiting() {
        while !answeredLast, let answer = owed.first?.answer {
            let slot = leaveQueue()
            let closes = isLast(slot)
            output.writeImmutableBuffer(answer.head)
            endHead(of: slot, closes: closes)
            if answer.body.readableBytes < HTTPConnectionHandler.separateBodyBytesMin {
                output.writeImmutableBuffer(answer.body)
            } else {
                pass(answer.body)
            }
            if closes { endAnswers() }
            passOnIfLarge()
        }
    }

    // MARK: Sending

    /// Sends what is in the output, goes on with requests that had to wait, and closes where all is done.
    func sendAnswers() {
        if !arrivals.isEmpty || readWanted { dispatchArrivals() }
        if continueWanted { sendContinueIfNext() }
        flushOutput()
        if answeredLast || inputClosed || loop.draining { closeIfDone() }
    }

    private func flushOutput() {
        guard let context else { return }
        if output.readableBytes == 0 {
            if unflushed { context.flush() }
            unflushed = false
            return
        }
        unflushed = false
        var bytes = takeOutput()
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
        // Mostly the socket has taken all of it by now, and the memory serves the next answer.
        if output.capacity == 0, bytes.capacity <= HTTPConnectionHandler.outputBytesKept {
            bytes.clear()
            output = bytes
        }
    }

    /// A write can call back into this handler, so the bytes are taken out of `output` before it.
    private func takeOutput() -> ByteBuffer {
        var bytes = ByteBuffer()
        swap(&bytes, &output)
        return bytes
    }

    private func passOn() {
        guard output.readableBytes > 0, let context else { return }
        unflushed = true
        context.write(wrapOutboundOut(takeOutput()), promise: nil)
    }

    private func passOnIfLarge() {
        if output.readableBytes >= HTTPConnectionHandler.outputBytesMax { passOn() }
    }

    private func pass(_ body: ByteBuffer) {
        passOn()
        context?.write(wrapOutboundOut(body), promise: nil)
    }

    private func sendContinueIfNext() {
        guard continueWanted, owed.isEmpty, arrivals.isEmpty else { return }
        continueWanted = false
        incoming.since = loop.now
        output.writeStaticString("HTTP/1.1 100 Continue\r\n\r\n")
        flushOutput()
    }

    // MARK: Closing

    private func closeIfDone() {
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
        if case .lingering(let since) = closing {
            if loop.now - since > configuration.lingerTime { abort() }
        } else if incoming.head != nil, mayRead {
            guard !continueWanted, incoming.isLate(now: loop.now, timeout: configuration.requestTimeout) else { return }
            refuse(.timedOut)
            sendAnswers()
        } else if !isWritable || (owed.isEmpty && arrivals.isEmpty) {
            noteProgress()
            if loop.now - lastActivity > configuration.idleTimeout { abort() }
        }
    }

    /// A peer that reads a long answer slowly is not idle.
    private func noteProgress() {
        guard let options = context?.channel.syncOptions,
            let pending = try? options.getOption(.bufferedWritableBytes)  // Only sockets know; others have none.
        else { return }
        if pending < pendingBytesSeen { lastActivity = loop.now }
        pendingBytesSeen = pending
    }

    func drain() { sendAnswers() }

    func abort() { context?.close(promise: nil) }
}
