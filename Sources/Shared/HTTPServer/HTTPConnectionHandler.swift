import NIOCore
import NIOHTTP1

/// One connection: puts requests together, keeps the order of the answers, enforces the limits.
///
/// Invariants: `slots` holds one entry for each request handed out and not yet answered onto the wire, in order
/// of arrival, and its first entry has sequence `firstSequence`; only the first may be encoded into `output`, the
/// others wait encoded in their slot; nothing is handed out or written after an answer that closes the connection.
final class HTTPConnectionHandler: ChannelDuplexHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundIn = Never
    typealias OutboundOut = ByteBuffer

    private struct Slot {
        let isHead: Bool
        let keepAlive: Bool
        /// HTTP/1.0 peers close unless they are told.
        let saysKeepAlive: Bool
        /// Of the loop's budget for bodies, given back with the answer.
        let reservedBytes: Int
        var answer: [ByteBuffer]?
    }

    private enum Arrival {
        case request(HTTPRequest, keepAlive: Bool, saysKeepAlive: Bool, reservedBytes: Int)
        case rejection(HTTPRejection, isHead: Bool)
    }

    /// Bodies from here on are written as buffers of their own instead of being copied into the output.
    private static let separateBodyBytesMin = 32_768
    /// Bytes read and dropped after a refusal, so that the peer gets to read the answer before a reset.
    private static let lingerBytesMax = 32 << 20
    private static let lingerTime = TimeAmount.seconds(2)
    /// A sender slower than this is cut off once the request timeout has passed.
    private static let bodyBytesPerSecondMin = 65_536

    let loop: HTTPLoop
    private var context: ChannelHandlerContext?
    private var incoming = IncomingRequest()
    private var arrivals = CircularBuffer<Arrival>(initialCapacity: 4)
    private var slots = CircularBuffer<Slot>(initialCapacity: 4)
    private var firstSequence: UInt64 = 0
    private var output = ByteBuffer()
    /// While true, answers gather in `output`; whoever set it sends them.
    private var corked = false
    private var readWanted = false
    private var continueWanted = false
    private var inputClosed = false
    private var answeredLast = false
    private var lingering: (since: NIODeadline, bytes: Int)?
    private var lastActivity: NIODeadline

    init(loop: HTTPLoop) {
        self.loop = loop
        self.lastActivity = loop.now
    }

    var closed: EventLoopFuture<Void>? { context?.channel.closeFuture }

    // MARK: Channel events

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        output = context.channel.allocator.buffer(capacity: 512)
        loop.add(self)
    }

    func handlerRemoved(context: ChannelHandlerContext) { forget() }

    func channelInactive(context: ChannelHandlerContext) {
        forget()
        context.fireChannelInactive()
    }

    private func forget() {
        guard context != nil else { return }
        context = nil
        loop.remove(self)
        loop.release(incoming.reservedBytes)
        incoming = IncomingRequest()
        for slot in slots { loop.release(slot.reservedBytes) }
        slots.removeAll()
        for case .request(_, _, _, let reserved) in arrivals { loop.release(reserved) }
        arrivals.removeAll()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        corked = true
        let part = unwrapInboundIn(data)
        if lingering != nil || answeredLast {
            if case .body(let bytes) = part { linger(bytes.readableBytes) }
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
        dispatchArrivals()
        sendAnswers()
        context.fireChannelWritabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .some(.inputClosed) = event as? ChannelEvent {
            inputClosed = true
            if lingering != nil { context.close(promise: nil) } else { closeIfDone() }
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let parserError = error as? HTTPParserError else {
            // The socket is broken: nothing that could be written would arrive.
            context.close(promise: nil)
            return
        }
        guard !answeredLast, !incoming.refused, !inputClosed else { return }
        let overflow = parserError == .headerOverflow
        refuse(
            overflow
                ? .headersTooLarge(limit: loop.configuration.headerBytesMax)
                : .malformed(parserError.debugDescription))
        if !corked { sendAnswers() }
    }

    // MARK: Receiving

    private func receive(_ head: HTTPRequestHead) {
        guard !incoming.refused else { return }
        lastActivity = loop.now
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
        guard !incoming.refused else { return }
        continueWanted = false
        let count = bytes.readableBytes
        guard incoming.receivedBytes + count <= incoming.bodyBytesMax else {
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
        guard !incoming.refused, let head = incoming.head else { return }
        continueWanted = false
        let request = HTTPRequest(
            method: head.method, target: incoming.target(of: head), headers: head.headers, body: incoming.body)
        let keepAlive = head.isKeepAlive && !loop.draining
        let saysKeepAlive = keepAlive && head.version.minor == 0
        let reserved = incoming.reservedBytes
        incoming = IncomingRequest()
        guard mayDispatch, arrivals.isEmpty else {
            arrivals.append(
                .request(request, keepAlive: keepAlive, saysKeepAlive: saysKeepAlive, reservedBytes: reserved))
            return
        }
        dispatch(request, keepAlive: keepAlive, saysKeepAlive: saysKeepAlive, reservedBytes: reserved)
    }

    /// The request now arriving is refused: its answer is the last one of this connection.
    private func refuse(_ rejection: HTTPRejection) {
        let isHead = incoming.head?.method == .HEAD
        loop.release(incoming.reservedBytes)
        incoming = IncomingRequest()
        incoming.refused = true
        continueWanted = false
        arrivals.append(.rejection(rejection, isHead: isHead))
        dispatchArrivals()
    }

    // MARK: Handing out

    private var mayDispatch: Bool {
        slots.count < loop.configuration.pipelinedRequestsMax && context?.channel.isWritable == true && !answeredLast
    }

    private var mayRead: Bool { arrivals.isEmpty && mayDispatch || lingering != nil }

    private func dispatchArrivals() {
        let wasCorked = corked
        corked = true
        defer { corked = wasCorked }
        while mayDispatch, let arrival = arrivals.popFirst() {
            switch arrival {
            case .request(let request, let keepAlive, let saysKeepAlive, let reserved):
                dispatch(request, keepAlive: keepAlive, saysKeepAlive: saysKeepAlive, reservedBytes: reserved)
            case .rejection(let rejection, let isHead):
                let sequence = openSlot(
                    Slot(isHead: isHead, keepAlive: false, saysKeepAlive: false, reservedBytes: 0))
                respond(sequence: sequence, loop.handler.response(to: rejection))
            }
        }
        if readWanted, mayRead {
            readWanted = false
            context?.read()
        }
    }

    private func dispatch(_ request: HTTPRequest, keepAlive: Bool, saysKeepAlive: Bool, reservedBytes: Int) {
        let sequence = openSlot(
            Slot(
                isHead: request.method == .HEAD, keepAlive: keepAlive, saysKeepAlive: saysKeepAlive,
                reservedBytes: reservedBytes))
        loop.handler.handle(
            request, HTTPExchange(connection: self, sequence: sequence, eventLoop: loop.eventLoop))
    }

    private func openSlot(_ slot: Slot) -> UInt64 {
        slots.append(slot)
        return firstSequence + UInt64(slots.count - 1)
    }

    // MARK: Answering

    func respond(sequence: UInt64, _ response: HTTPResponse) {
        let separate = response.body.readableBytes >= HTTPConnectionHandler.separateBodyBytesMin
        let empty = response.status == 204 || response.status == 304
        respond(
            sequence: sequence, status: response.status, contentLength: empty ? nil : response.body.readableBytes,
            separateBody: separate ? response.body : nil
        ) { buffer in
            buffer.writeFields(response.headers)
        } body: { buffer in
            if !separate { buffer.writeImmutableBuffer(response.body) }
        }
    }

    func respond(
        sequence: UInt64, status: Int, contentLength: Int?, separateBody: ByteBuffer? = nil,
        fields: (inout ByteBuffer) -> Void, body: (inout ByteBuffer) -> Void
    ) {
        guard context != nil, sequence >= firstSequence else { return }
        let offset = Int(sequence - firstSequence)
        guard offset < slots.count else { return }
        let index = slots.index(slots.startIndex, offsetBy: offset)
        let slot = slots[index]
        guard slot.answer == nil else { return }
        if offset == 0 {
            let closes = !slot.keepAlive || isLastOfDraining
            encode(slot, status, contentLength, closes, into: &output, fields: fields, body: body)
            if let separateBody, !slot.isHead { write(separateBody) }
            finishFirst(closes: closes)
        } else {
            var buffer = ByteBuffer()
            encode(slot, status, contentLength, !slot.keepAlive, into: &buffer, fields: fields, body: body)
            slots[index].answer = [buffer]
            if let separateBody, !slot.isHead { slots[index].answer?.append(separateBody) }
        }
        if !corked, !loop.defersSending(of: self) { sendAnswers() }
    }

    /// The answer to the first slot is the last one that the server, which is shutting down, owes this peer.
    private var isLastOfDraining: Bool {
        loop.draining && slots.count == 1 && arrivals.isEmpty && incoming.head == nil
    }

    private func encode(
        _ slot: Slot, _ status: Int, _ contentLength: Int?, _ closes: Bool, into buffer: inout ByteBuffer,
        fields: (inout ByteBuffer) -> Void, body: (inout ByteBuffer) -> Void
    ) {
        buffer.writeStatusLine(status)
        if let contentLength {
            buffer.writeStaticString("content-length: ")
            buffer.writeDecimal(UInt64(contentLength))
            buffer.writeStaticString("\r\n")
        }
        fields(&buffer)
        loop.handler.writeCommonFields(into: &buffer)
        buffer.writeBytes(loop.dateField)
        if closes {
            buffer.writeStaticString("connection: close\r\n")
        } else if slot.saysKeepAlive {
            buffer.writeStaticString("connection: keep-alive\r\n")
        }
        buffer.writeStaticString("\r\n")
        if !slot.isHead { body(&buffer) }
    }

    /// The first slot's answer is in the output: gives its place up, and sends those after it that are ready.
    private func finishFirst(closes: Bool) {
        lastActivity = loop.now
        var slot = slots.removeFirst()
        firstSequence += 1
        loop.release(slot.reservedBytes)
        answeredLast = closes
        while !answeredLast, let parts = slots.first?.answer {
            slot = slots.removeFirst()
            firstSequence += 1
            loop.release(slot.reservedBytes)
            answeredLast = !slot.keepAlive
            for part in parts {
                if part.readableBytes < HTTPConnectionHandler.separateBodyBytesMin {
                    output.writeImmutableBuffer(part)
                } else {
                    write(part)
                }
            }
        }
    }

    /// Sends what is in the output, goes on with requests that had to wait, and closes where all is done.
    func sendAnswers() {
        guard context != nil else { return }
        if !arrivals.isEmpty || readWanted { dispatchArrivals() }
        sendContinueIfNext()
        guard let context else { return }
        writeOutput(to: context)
        context.flush()
        closeIfDone()
    }

    private func write(_ body: ByteBuffer) {
        guard let context else { return }
        writeOutput(to: context)
        context.write(wrapOutboundOut(body), promise: nil)
    }

    /// Passes the output on. Taken out of `output` first: a write can call back into this handler.
    private func writeOutput(to context: ChannelHandlerContext) {
        guard output.readableBytes > 0 else { return }
        let bytes = output
        output = context.channel.allocator.buffer(capacity: 512)
        context.write(wrapOutboundOut(bytes), promise: nil)
    }

    private func sendContinueIfNext() {
        guard continueWanted, slots.isEmpty, arrivals.isEmpty, let context else { return }
        continueWanted = false
        output.writeStaticString("HTTP/1.1 100 Continue\r\n\r\n")
        writeOutput(to: context)
        context.flush()
    }

    // MARK: Closing

    private func closeIfDone() {
        guard let context, lingering == nil else { return }
        if answeredLast {
            // The peer may still be sending a body that was refused. Closing now would reset the connection and
            // take the answer away from it, so only this direction is closed, and what arrives is dropped.
            lingering = (since: .now(), bytes: 0)
            context.close(mode: .output, promise: nil)
            if readWanted {
                readWanted = false
                context.read()
            }
            if inputClosed { context.close(promise: nil) }
        } else if inputClosed || loop.draining, slots.isEmpty, arrivals.isEmpty, incoming.head == nil {
            context.close(promise: nil)
        }
    }

    private func linger(_ count: Int) {
        guard let (since, bytes) = lingering else { return }
        lingering = (since, bytes + count)
        if bytes + count > HTTPConnectionHandler.lingerBytesMax { context?.close(promise: nil) }
    }

    func checkDeadlines() {
        let configuration = loop.configuration
        if let lingering {
            if loop.now - lingering.since > HTTPConnectionHandler.lingerTime { abort() }
        } else if incoming.head != nil {
            let perByte = 1_000_000_000 / Int64(HTTPConnectionHandler.bodyBytesPerSecondMin)
            let allowance = configuration.requestTimeout + .nanoseconds(Int64(incoming.receivedBytes) * perByte)
            if loop.now - incoming.since > allowance {
                refuse(.timedOut)
                sendAnswers()
            }
        } else if slots.isEmpty || context?.channel.isWritable == false,
            loop.now - lastActivity > configuration.idleTimeout
        {
            abort()
        }
    }

    func drain() { closeIfDone() }

    func abort() { context?.close(promise: nil) }
}
