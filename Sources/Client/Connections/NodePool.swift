import Core
import NIOCore
import NIOHTTP1
import NIOPosix

/// The connections of one event loop to one node, and the requests that wait for one. Confined to the loop.
///
/// Invariants: `connections.count + connecting` ≤ `connectionsPerNodeMax`; requests wait only while no connection has
/// room, and in the order in which they came; while any waits, a connection is being made or one is busy.
final class NodePool {
    private let address: NodeAddress
    private let eventLoop: any EventLoop
    private let configuration: NodeConnectionsConfiguration
    private let encoding: RequestEncoding
    private let responses: ResponseBudget
    /// Called when there is neither a connection nor a request left.
    var whenEmpty: () -> Void = {}

    private var connections: [NodeConnection] = []
    /// The one that gathers brief requests now, or did last.
    private weak var gathering: NodeConnection?
    private var connecting = 0
    private var waiters = CircularBuffer<PendingRequest>()
    private var waitingBodyBytes = 0
    /// Fires at or before the earliest deadline of a waiter.
    private var waiterTimer: (deadline: NIODeadline, task: Scheduled<Void>)?
    private var isShutDown = false

    init(
        address: NodeAddress, eventLoop: any EventLoop, configuration: NodeConnectionsConfiguration,
        responses: ResponseBudget
    ) {
        self.address = address
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.responses = responses
        self.encoding = RequestEncoding(address: address)
    }

    var openConnections: Int { connections.count }

    func execute(_ pending: PendingRequest) {
        guard NIODeadline.now() < pending.deadline else { return failExpired(pending) }
        if waiters.isEmpty, let connection = connection(for: pending) {
            // Every connection is busy: the next request should not have to queue behind another.
            if !connection.isIdle, !connection.gathersMore, connecting == 0 { connect() }
            return send(pending, on: connection)
        }
        enqueue(pending)
        while connecting < waiters.count, connections.count + connecting < configuration.connectionsPerNodeMax {
            connect()
        }
    }

    /// Called by a connection that has room again.
    func serveWaiters() {
        while let first = waiters.first, let connection = connection(for: first) {
            let pending = dequeue()
            if NIODeadline.now() < pending.deadline { send(pending, on: connection) } else { failExpired(pending) }
        }
        if waiters.isEmpty, let timer = waiterTimer {
            timer.task.cancel()
            waiterTimer = nil
        }
    }

    /// Called by a connection that will take no request any more, before it fails those it has.
    func remove(_ connection: NodeConnection) {
        connections.removeAll { $0 === connection }
        if !isShutDown {
            while connecting < waiters.count, connections.count + connecting < configuration.connectionsPerNodeMax {
                connect()
            }
        }
        reportIfEmpty()
    }

    /// Gives up the request that is to complete `response`.
    func cancel(_ response: EventLoopFuture<NodeResponse>) {
        let reason = KVError(.cancelled, "the request to \(address) was cancelled")
        if let index = waiters.firstIndex(where: { $0.promise.futureResult === response }) {
            let pending = waiters.remove(at: index)
            waitingBodyBytes -= pending.request.body?.readableBytes ?? 0
            pending.fail(.notSent, address, reason)
            return reportIfEmpty()
        }
        for connection in connections where connection.cancel(response, reason) { return }
    }

    func shutdown() -> EventLoopFuture<Void> {
        isShutDown = true
        let reason = KVError(.cancelled, "the connections to nodes are shut down")
        let closed = connections.map(\.closeFuture)
        for connection in connections { connection.terminate(reason) }
        failWaiters(reason)
        return EventLoopFuture.andAllComplete(closed, on: eventLoop)
    }

    private func connection(for pending: PendingRequest) -> NodeConnection? {
        if pending.request.isBrief, let gathering, gathering.gathersMore { return gathering }
        return connectionWithRoom()
    }

    private func send(_ pending: PendingRequest, on connection: NodeConnection) {
        connection.send(pending)
        if connection.gathersMore { gathering = connection }
    }

    /// An idle connection, the most recently made one first, so that surplus ones get old; else the least busy one.
    private func connectionWithRoom() -> NodeConnection? {
        var best: NodeConnection?
        for connection in connections.reversed() where connection.hasRoom {
            if connection.isIdle { return connection }
            if connection.load < best?.load ?? .max { best = connection }
        }
        return best
    }
}

// MARK: - Connecting

extension NodePool {
    private func connect() {
        guard connections.count + connecting < configuration.connectionsPerNodeMax else { return }
        connecting += 1
        let (configuration, encoding, address) = (configuration, encoding, address)
        let responses = NIOLoopBound(responses, eventLoop: eventLoop)
        let bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(configuration.connectTimeout)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let connection = NodeConnection(
                        address: address, encoding: encoding, channel: channel, configuration: configuration,
                        responses: responses.value)
                    try channel.pipeline.syncOperations.addHandlers(
                        RequestByteSink(), ByteToMessageHandler(HTTPResponseDecoder()), connection)
                }
            }
        let connected: EventLoopFuture<any Channel>
        if let socketAddress = try? SocketAddress(ipAddress: address.host, port: address.port) {
            connected = bootstrap.connect(to: socketAddress)
        } else {
            // Not an IP address but a host name, which NIO resolves on a thread of its own.
            connected = bootstrap.connect(host: address.host, port: address.port)
        }
        connected.assumeIsolated().whenComplete { [self] result in
            connecting -= 1
            switch result {
            case .success(let channel): add(channel)
            case .failure(let error): connectFailed(error)
            }
        }
    }

    private func add(_ channel: any Channel) {
        guard !isShutDown, channel.isActive,
            let connection = try? channel.pipeline.syncOperations.handler(type: NodeConnection.self)
        else {
            // The node hung up at once: its channel is gone, or is closed here.
            channel.close(promise: nil)
            return connectFailed(ChannelError.ioOnClosedChannel)
        }
        connections.append(connection)
        connection.start(in: self)
        serveWaiters()
    }

    private func connectFailed(_ cause: any Error) {
        // Another connection, or the attempt at one, still serves those who wait.
        if connections.isEmpty && connecting == 0 {
            let reason = ConnectFailure.describe(cause)
            failWaiters(KVError(.unavailable, "cannot connect to \(address): \(reason)"))
        }
        reportIfEmpty()
    }

    private func reportIfEmpty() {
        if connections.isEmpty && connecting == 0 && waiters.isEmpty { whenEmpty() }
    }
}

// MARK: - Waiting

extension NodePool {
    private func enqueue(_ pending: PendingRequest) {
        let bytes = pending.request.body?.readableBytes ?? 0
        guard waiters.count < configuration.waitersPerNodeMax,
            waiters.isEmpty || waitingBodyBytes + bytes <= configuration.waitingBodyBytesMax
        else {
            let error = KVError(.overloaded, "too many requests wait for a connection to \(address): try again later")
            return pending.fail(.notSent, address, error)
        }
        waitingBodyBytes += bytes
        waiters.append(pending)
        armTimer(pending.deadline)
    }

    private func dequeue() -> PendingRequest {
        let pending = waiters.removeFirst()
        waitingBodyBytes -= pending.request.body?.readableBytes ?? 0
        return pending
    }

    private func failWaiters(_ error: KVError) {
        // A callback may come back with a new request: only those that wait now are failed.
        let failed = waiters
        waiters = CircularBuffer()
        waitingBodyBytes = 0
        waiterTimer?.task.cancel()
        waiterTimer = nil
        for pending in failed { pending.fail(.notSent, address, error) }
    }

    private func failExpired(_ pending: PendingRequest) {
        pending.fail(
            .notSent, address, KVError(.timedOut, "no connection to \(address) was free before the deadline"))
    }

    private func armTimer(_ deadline: NIODeadline) {
        if let timer = waiterTimer {
            guard deadline < timer.deadline else { return }
            timer.task.cancel()
        }
        let task = eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { [self] in
            waiterTimer = nil
            expireWaiters(now: .now())
        }
        waiterTimer = (deadline, task)
    }

    private func expireWaiters(now: NIODeadline) {
        let all = waiters
        waiters = CircularBuffer()
        waitingBodyBytes = 0
        var expired: [PendingRequest] = []
        for pending in all {
            guard now < pending.deadline else {
                expired.append(pending)
                continue
            }
            waitingBodyBytes += pending.request.body?.readableBytes ?? 0
            waiters.append(pending)
        }
        if let next = waiters.map(\.deadline).min() { armTimer(next) }
        for pending in expired { failExpired(pending) }
        reportIfEmpty()
    }
}
