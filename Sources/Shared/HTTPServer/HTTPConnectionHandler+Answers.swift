import NIOCore

/// The answers of a connection: encoded in the order of the requests, gathered, sent.
extension HTTPConnectionHandler {
    /// Bodies from here on are written as buffers of their own instead of being copied into the output.
    private static let separateBodyBytesMin = 32_768
    /// Answers gather up to this size before they are passed on, and count against the channel's write buffer.
    private static let outputBytesMax = 65_536
    /// An output buffer up to this size is used again; larger ones would add up over idle connections.
    private static let outputBytesKept = 4_096

    func respond(sequence: UInt64, _ response: HTTPResponse, mayRefuse: Bool = true) {
        let hasContent = response.status != 204 && response.status != 304
        let separate = response.body.readableBytes >= HTTPConnectionHandler.separateBodyBytesMin
        respond(
            sequence: sequence, status: response.status,
            contentLength: hasContent ? response.body.readableBytes : nil,
            separateBody: hasContent && separate ? response.body : nil, mayRefuse: mayRefuse
        ) { buffer in
            buffer.writeFields(response.headers)
        } body: { buffer in
            buffer.writeImmutableBuffer(response.body)
        }
    }

    func respond(
        sequence: UInt64, status: Int, contentLength: Int?, separateBody: ByteBuffer? = nil, mayRefuse: Bool = true,
        fields: (inout ByteBuffer) -> Void, body: (inout ByteBuffer) -> Void
    ) {
        guard context != nil, let turn = owed.turn(of: sequence) else { return }
        var bytes = contentLength ?? 0
        var reserved = 0
        // Small ones that leave at once are bounded by what gathers, and by the channel's write buffer.
        if turn > 0 || bytes >= HTTPConnectionHandler.separateBodyBytesMin {
            let slot = owed[turn]
            if slot.isHead { bytes = 0 }
            guard loop.reserveAnswer(bytes, isRefusable: slot.isRead && mayRefuse) else {
                return respond(sequence: sequence, loop.handler.response(to: .overloaded), mayRefuse: false)
            }
            reserved = bytes
        }
        expectedAnswerBytes = max(bytes, expectedAnswerBytes - expectedAnswerBytes >> 3)
        if turn == 0 {
            let wasCorked = corked
            corked = true
            let slot = leaveQueue()
            let closes = isLast(slot)
            outputReservedBytes += reserved
            writeHead(status, contentLength, into: &output, fields: fields)
            output.writeEndOfHead(closes: closes, saysKeepAlive: slot.saysKeepAlive)
            if let contentLength, !slot.isHead {
                if let separateBody { pass(separateBody) } else { output.writeContent(contentLength, body) }
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
                if let separateBody { content = separateBody } else { content.writeContent(contentLength, body) }
            }
            owed[turn].answer = AnswerQueue.Answer(head: head, body: content)
            owed[turn].reservedAnswerBytes = reserved
        }
        if !corked, !loop.defersSending(of: self) { sendAnswers() }
    }

    private func writeHead(
        _ status: Int, _ contentLength: Int?, into buffer: inout ByteBuffer, fields: (inout ByteBuffer) -> Void
    ) {
        if buffer.capacity == 0 { buffer.reserveCapacity(512) }
        buffer.writeStartOfHead(status: status, contentLength: contentLength)
        fields(&buffer)
        loop.handler.writeCommonFields(into: &buffer)
        buffer.writeBytes(loop.dateField)
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
            outputReservedBytes += slot.reservedAnswerBytes
            output.writeImmutableBuffer(answer.head)
            output.writeEndOfHead(closes: closes, saysKeepAlive: slot.saysKeepAlive)
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
        let sent = promiseOfReservedBytes()
        var bytes = takeOutput()
        context.writeAndFlush(wrapOutboundOut(bytes), promise: sent)
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
        let sent = promiseOfReservedBytes()
        context.write(wrapOutboundOut(takeOutput()), promise: sent)
    }

    /// Gives what the output holds of the loop's budget back once the socket has the bytes, or is gone; nil for nothing.
    private func promiseOfReservedBytes() -> EventLoopPromise<Void>? {
        guard outputReservedBytes > 0, let context else { return nil }
        let (loop, count) = (loop, outputReservedBytes)
        outputReservedBytes = 0
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { _ in loop.releaseAnswer(count) }
        return promise
    }

    private func passOnIfLarge() {
        if output.readableBytes >= HTTPConnectionHandler.outputBytesMax { passOn() }
    }

    private func pass(_ body: ByteBuffer) {
        let reserved = outputReservedBytes
        outputReservedBytes = 0
        passOn()
        outputReservedBytes = reserved
        let sent = promiseOfReservedBytes()
        guard let context else { return }
        unflushed = true
        context.write(wrapOutboundOut(body), promise: sent)
    }

    func sendContinueIfNext() {
        guard continueWanted, owed.isEmpty, arrivals.isEmpty else { return }
        continueWanted = false
        incoming.since = loop.now
        output.writeStaticString("HTTP/1.1 100 Continue\r\n\r\n")
        flushOutput()
    }
}
