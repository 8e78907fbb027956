package import NIOCore

/// What the connections of one event loop share: the handler, the clock, the date field, the byte budget.
///
/// Belongs to its event loop; nothing in it is synchronised.
package final class HTTPLoop {
    let eventLoop: any EventLoop
    let configuration: HTTPServerConfiguration
    let handler: any HTTPHandler
    private var bodies: ByteBudget
    private var answers: ByteBudget
    private var connections: [ObjectIdentifier: HTTPConnectionHandler] = [:]
    private var batching = false
    private var sendingIsScheduled = false
    private var withUnsentAnswers: [HTTPConnectionHandler] = []
    private var timer: RepeatedTask?

    /// Coarse: read once a tick, so that no request pays for a clock.
    private(set) var now: NIODeadline
    /// `date: …` with its CRLF.
    private(set) var dateField: [UInt8]
    private(set) var draining = false

    package init(
        eventLoop: any EventLoop, loops: Int, configuration: HTTPServerConfiguration, handler: any HTTPHandler
    ) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.handler = handler
        self.bodies = ByteBudget(max: configuration.bufferedBodyBytesMax / loops)
        self.answers = ByteBudget(max: configuration.bufferedAnswerBytesMax / loops)
        self.now = eventLoop.now
        self.dateField = HTTPDate.field(secondsSinceEpoch: HTTPDate.wallSeconds())
    }

    /// Makes `channel` a connection of this loop: the decoder, before it what recognises heads, and behind it the handler.
    /// - Parameters:
    ///   - isRefused: over the limit of connections: answered 503 whatever it asks.
    ///   - recognisesHeads: false leaves every head to the decoder, which makes no difference but in time.
    package func serve(_ channel: any Channel, isRefused: Bool = false, recognisesHeads: Bool = true) throws {
        let decoder = ByteToMessageHandler(
            LimitedRequestDecoder(configuration: configuration),
            maximumBufferSize: LimitedRequestDecoder.bufferedBytesMax(configuration))
        let connection = HTTPConnectionHandler(loop: self, isRefused: isRefused)
        let pipeline = channel.pipeline.syncOperations
        if recognisesHeads { try pipeline.addHandler(KnownHeadHandler(connection: connection)) }
        try pipeline.addHandler(decoder)
        try pipeline.addHandler(connection)
    }

    /// Starts the regular look at deadlines; ``stop()`` ends it.
    func start() {
        let box = NIOLoopBound(self, eventLoop: eventLoop)
        let interval = configuration.tickInterval
        timer = eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
            box.value.tick()
        }
    }

    func stop() { timer?.cancel() }

    private func tick() {
        now = eventLoop.now
        dateField = HTTPDate.field(secondsSinceEpoch: HTTPDate.wallSeconds())
        for connection in Array(connections.values) { connection.checkDeadlines() }
    }

    func add(_ connection: HTTPConnectionHandler) { connections[ObjectIdentifier(connection)] = connection }

    func remove(_ connection: HTTPConnectionHandler) { connections[ObjectIdentifier(connection)] = nil }

    /// Takes `count` bytes of the budget for request bodies; false where it is used up.
    package func reserve(_ count: Int) -> Bool { bodies.reserve(count) }

    func release(_ count: Int) { bodies.release(count) }

    /// Takes `count` bytes of the budget for answers; false where it is used up and `isRefusable`.
    package func reserveAnswer(_ count: Int, isRefusable: Bool) -> Bool {
        if answers.reserve(count) { return true }
        if !isRefusable { answers.overdraw(count) }
        return !isRefusable
    }

    func releaseAnswer(_ count: Int) { answers.release(count) }

    func batchingAnswers(_ body: () -> Void) {
        guard !batching else { return body() }
        batching = true
        body()
        sendGathered()
        batching = false
    }

    /// Sends the answers of `connection`, and of all others that ask for it in this turn of the event loop, once every
    /// socket that was ready has been read.
    ///
    /// Written one by one between the requests, answers would wake the peers one by one: for a peer on the same
    /// machine that wakes and sleeps once an answer, a third of the server's time.
    func sendAfterTurn(_ connection: HTTPConnectionHandler) {
        gather(connection)
        guard !sendingIsScheduled, !batching else { return }
        sendingIsScheduled = true
        let box = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.execute {
            box.value.sendingIsScheduled = false
            box.value.batchingAnswers {}
        }
    }

    private func gather(_ connection: HTTPConnectionHandler) {
        guard !connection.isInBatch else { return }
        connection.isInBatch = true
        withUnsentAnswers.append(connection)
    }

    private func sendGathered() {
        // By index, and still batching: sending can hand out a waiting request, whose answer adds to the list.
        var sent = 0
        while sent < withUnsentAnswers.count {
            let connection = withUnsentAnswers[sent]
            connection.isInBatch = false
            connection.defersAnswers = false
            connection.sendAnswers()
            sent += 1
        }
        withUnsentAnswers.removeAll(keepingCapacity: true)
    }

    /// True where the answers of `connection` will be sent at the end of a batch, or of this turn.
    func defersSending(of connection: HTTPConnectionHandler) -> Bool {
        if connection.defersAnswers { return true }
        guard batching else { return false }
        gather(connection)
        return true
    }

    /// Every connection closes once it has answered what has arrived. The result lists those still open.
    func drain() -> [EventLoopFuture<Void>] {
        draining = true
        let open = Array(connections.values)
        let closed = open.compactMap(\.closed)
        for connection in open { connection.drain() }
        return closed
    }

    func closeAll() {
        for connection in Array(connections.values) { connection.abort() }
    }
}

/// Bytes that may be held in memory, and those that are.
private struct ByteBudget {
    let max: Int
    private var used = 0

    init(max: Int) { self.max = max }

    /// False where `count` bytes more are too many.
    mutating func reserve(_ count: Int) -> Bool {
        // Something larger than the whole budget still passes when nothing else is held.
        guard count == 0 || used == 0 || used + count <= max else { return false }
        used += count
        return true
    }

    mutating func overdraw(_ count: Int) { used += count }

    mutating func release(_ count: Int) { used -= count }
}
