public import NIOCore

/// The place of one answer in its connection's sequence of answers.
///
/// Answers leave in the order in which the requests arrived, whatever the order of the calls here; an answer
/// that is ahead of its turn is kept encoded until then. Where the peer has gone, the answer is dropped.
///
/// Every method must be called on ``eventLoop`` (checked); the value itself may travel through other threads.
public struct HTTPExchange: @unchecked Sendable {
    // Unchecked, because `connection` belongs to its event loop: each method checks that it runs there.
    let connection: HTTPConnectionHandler
    let sequence: UInt64

    /// The one whose handler the request went to.
    public var eventLoop: any EventLoop { connection.loop.eventLoop }

    /// Answers with a whole response.
    public func respond(_ response: HTTPResponse) {
        eventLoop.preconditionInEventLoop()
        connection.respond(sequence: sequence, response)
    }

    /// Answers without a response value in between: the closures write straight into the connection's output.
    ///
    /// - Parameters:
    ///   - contentLength: what `body` appends, in bytes; nil for an answer that has no content (204, 304).
    ///   - fields: appends header fields, each with its CRLF.
    ///   - body: appends the content; not called for a HEAD request.
    public func respond(
        status: Int, contentLength: Int?, fields: (inout ByteBuffer) -> Void,
        body: (inout ByteBuffer) -> Void = { _ in }
    ) {
        eventLoop.preconditionInEventLoop()
        connection.respond(
            sequence: sequence, status: status, contentLength: contentLength, fields: fields, body: body)
    }

    /// Runs `body`, which may answer many exchanges of this event loop, and sends each connection's answers
    /// together at its end: one system call a connection, not one an answer.
    public func batchingAnswers(_ body: () -> Void) {
        eventLoop.preconditionInEventLoop()
        connection.loop.batchingAnswers(body)
    }

    /// Has the answer that is about to be given leave at the end of this turn of the event loop, together with those of
    /// other connections: for answers that come many at a time without one who could batch them.
    public func deferSending() {
        eventLoop.preconditionInEventLoop()
        connection.defersAnswers = true
        connection.loop.sendAfterTurn(connection)
    }

    /// Answers when `response` is there; `failure` makes the answer to its error.
    public func respond(
        _ response: EventLoopFuture<HTTPResponse>, failure: @escaping @Sendable (any Error) -> HTTPResponse
    ) {
        response.hop(to: eventLoop).whenComplete { result in
            switch result {
            case .success(let response): respond(response)
            case .failure(let error): respond(failure(error))
            }
        }
    }
}
