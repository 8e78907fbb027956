import NIOCore

/// What the connections of one event loop share: the handler, the clock, the date field, the byte budget.
///
/// Belongs to its event loop; nothing in it is synchronised.
final class HTTPLoop {
    let eventLoop: any EventLoop
    let configuration: HTTPServerConfiguration
    let handler: any HTTPHandler
    private let bufferedBodyBytesMax: Int
    private var bufferedBodyBytes = 0
    private var connections: [ObjectIdentifier: HTTPConnectionHandler] = [:]
    private var batching = false
    private var withUnsentAnswers: [HTTPConnectionHandler] = []
    private var timer: RepeatedTask?

    /// Coarse: read once a second, so that no request pays for a clock.
    private(set) var now: NIODeadline
    /// `date: …` with its CRLF.
    private(set) var dateField: [UInt8]
    private(set) var draining = false

    init(
        eventLoop: any EventLoop, loops: Int, configuration: HTTPServerConfiguration, handler: any HTTPHandler
    ) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.handler = handler
        self.bufferedBodyBytesMax = configuration.bufferedBodyBytesMax / loops
        self.now = .now()
        self.dateField = HTTPDate.field(secondsSinceEpoch: HTTPDate.wallSeconds())
    }

    /// Starts the once-a-second look at deadlines; ``stop()`` ends it.
    func start() {
        let box = NIOLoopBound(self, eventLoop: eventLoop)
        timer = eventLoop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in
            box.value.tick()
        }
    }

    func stop() { timer?.cancel() }

    private func tick() {
        now = .now()
        dateField = HTTPDate.field(secondsSinceEpoch: HTTPDate.wallSeconds())
        for connection in connections.values { connection.checkDeadlines() }
    }

    func add(_ connection: HTTPConnectionHandler) { connections[ObjectIdentifier(connection)] = connection }

    func remove(_ connection: HTTPConnectionHandler) { connections[ObjectIdentifier(connection)] = nil }

    /// Takes `count` bytes of the budget for request bodies; false where it is used up.
    func reserve(_ count: Int) -> Bool {
        // A single body over this loop's share still passes when nothing else is held.
        guard bufferedBodyBytes == 0 || bufferedBodyBytes + count <= bufferedBodyBytesMax else { return false }
        bufferedBodyBytes += count
        return true
    }

    func release(_ count: Int) { bufferedBodyBytes -= count }

    func batchingAnswers(_ body: () -> Void) {
        guard !batching else { return body() }
        batching = true
        body()
        batching = false
        for connection in withUnsentAnswers { connection.sendAnswers() }
        withUnsentAnswers.removeAll(keepingCapacity: true)
    }

    /// True where the answers of `connection` will be sent at the end of a batch.
    func defersSending(of connection: HTTPConnectionHandler) -> Bool {
        guard batching else { return false }
        withUnsentAnswers.append(connection)
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
