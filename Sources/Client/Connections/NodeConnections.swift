public import Core
public import NIOCore

/// Limits of the connections to nodes; each has a name and a default.
public struct NodeConnectionsConfiguration: Sendable {
    /// Connections to one node from one event loop.
    public var connectionsPerNodeMax = 16
    /// Requests in flight on one connection; over 1, requests are pipelined.
    public var pipeliningDepthMax = 1
    /// Brief requests that one turn of the event loop sends on an idle connection, one behind the other and in one write;
    /// 1 gives each a connection of its own.
    public var briefRequestsAtOnceMax = 1
    /// Requests to one node that may wait for a connection, per event loop; one more fails with `overloaded`.
    public var waitersPerNodeMax = 1_024
    /// Bytes of bodies of requests that wait for a connection to one node, per event loop.
    public var waitingBodyBytesMax = 64 << 20
    /// The largest response body, in bytes; the connection of a larger one is closed.
    public var responseBodyBytesMax = Limits.valueBytesMaxDefault + recordOverheadBytes
    /// What a record of a scan has beside its value: its key and its frame.
    private static let recordOverheadBytes = 64 << 10
    /// Bytes of response bodies that are held while they arrive, per event loop; at least one of the largest fits. The
    /// response that does not fit fails with `overloaded`, and its connection is closed.
    public var responseBodiesBytesMax = 256 << 20
    public var connectTimeout = TimeAmount.seconds(2)
    /// A connection without a request is closed after this; shorter than the servers' own idle timeout, so that
    /// a request seldom meets a connection that the server is closing.
    public var idleTimeout = TimeAmount.seconds(60)

    public init() {}
}

/// Pooled HTTP/1.1 connections to nodes: one pool for every event loop and node, so nothing is shared and a caller on
/// an event loop never leaves it.
///
/// A brief request takes the connection that this turn of the event loop has given to others of its kind, where that is
/// configured. Any other takes an idle connection, else a new one while there may be more, else a place behind others where
/// pipelining is on, else it waits. A connection that breaks fails exactly the requests on it. Nothing is retried
/// and no redirect is followed here.
///
/// Call ``shutdown()`` before the event loops stop.
public final class NodeConnections: Sendable {
    private let group: any EventLoopGroup
    private let pools: [ObjectIdentifier: NIOLoopBoundBox<LoopPool>]

    /// - Parameters:
    ///   - group: its event loops carry the connections; the server's own for a proxy.
    ///   - configuration: limits and time limits.
    public init(group: any EventLoopGroup, configuration: NodeConnectionsConfiguration = .init()) {
        precondition(configuration.connectionsPerNodeMax > 0 && configuration.pipeliningDepthMax > 0)
        self.group = group
        var pools: [ObjectIdentifier: NIOLoopBoundBox<LoopPool>] = [:]
        for eventLoop in group.makeIterator() {
            pools[ObjectIdentifier(eventLoop)] = NIOLoopBoundBox.makeBoxSendingValue(
                LoopPool(eventLoop: eventLoop, configuration: configuration), eventLoop: eventLoop)
        }
        self.pools = pools
    }

    /// Sends `request` to the node at `address` and answers its response.
    ///
    /// Fails with ``NodeFailure``. On an event loop of the group it stays on that loop when called there; for an event
    /// loop of another group a loop of this one carries the request.
    /// - Parameters:
    ///   - request: what is sent.
    ///   - address: the node it is sent to.
    ///   - eventLoop: completes the future.
    ///   - deadline: when the request fails with `timedOut`, wherever it is then.
    public func execute(
        _ request: NodeRequest, to address: NodeAddress, on eventLoop: any EventLoop, deadline: NIODeadline
    ) -> EventLoopFuture<NodeResponse> {
        guard let pool = pools[ObjectIdentifier(eventLoop)] else {
            return execute(request, to: address, on: loopOfGroup(), deadline: deadline).hop(to: eventLoop)
        }
        let promise = eventLoop.makePromise(of: NodeResponse.self)
        if eventLoop.inEventLoop {
            pool.value.execute(request, to: address, deadline: deadline, promise: promise)
        } else {
            eventLoop.execute { pool.value.execute(request, to: address, deadline: deadline, promise: promise) }
        }
        return promise.futureResult
    }

    /// Sends `request` to the node at `address` and returns its response.
    ///
    /// Where the task is cancelled it fails with `cancelled` at once, and the connection is given up.
    /// - Throws: ``NodeFailure``.
    public func execute(
        _ request: NodeRequest, to address: NodeAddress, deadline: NIODeadline
    ) async throws -> NodeResponse {
        let eventLoop = loopOfGroup()
        let response = execute(request, to: address, on: eventLoop, deadline: deadline)
        return try await withTaskCancellationHandler {
            try await response.get()
        } onCancel: {
            cancel(response, to: address, on: eventLoop)
        }
    }

    /// Gives up a request that has no answer yet: it fails with `cancelled` and whether it may have been sent.
    ///
    /// Does nothing where it has ended. Requests on the same connection are answered, then it is closed, as the answer
    /// may still come.
    /// - Parameters:
    ///   - response: what ``execute(_:to:on:deadline:)`` returned.
    ///   - address: the node that it was sent to.
    ///   - eventLoop: the one it was given, of this group.
    public func cancel(_ response: EventLoopFuture<NodeResponse>, to address: NodeAddress, on eventLoop: any EventLoop)
    {
        guard let pool = pools[ObjectIdentifier(eventLoop)] else { return }
        if eventLoop.inEventLoop {
            pool.value.cancel(response, to: address)
        } else {
            eventLoop.execute { pool.value.cancel(response, to: address) }
        }
    }

    /// Fails what waits, closes every connection (requests in flight fail with `cancelled`) and refuses new requests.
    public func shutdown() async {
        for pool in pools.values {
            let closed = pool.eventLoop.flatSubmit { pool.value.shutdown() }
            // Fails only where the event loop itself has stopped, and its connections with it.
            _ = try? await closed.get()
        }
    }

    /// How many connections are open, over all event loops; for status pages and tests.
    public func openConnections(to address: NodeAddress) async throws -> Int {
        var count = 0
        for pool in pools.values {
            count += try await pool.eventLoop.submit { pool.value.openConnections(to: address) }.get()
        }
        return count
    }

    private func loopOfGroup() -> any EventLoop {
        let any = group.any()
        return pools[ObjectIdentifier(any)] == nil ? group.next() : any
    }
}

/// The pools of one event loop, and confined to it.
final class LoopPool {
    private let eventLoop: any EventLoop
    private let configuration: NodeConnectionsConfiguration
    private let responses: ResponseBudget
    private var nodes: [NodeAddress: NodePool] = [:]
    private var isShutDown = false

    init(eventLoop: any EventLoop, configuration: NodeConnectionsConfiguration) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        responses = ResponseBudget(
            bytesMax: max(configuration.responseBodiesBytesMax, configuration.responseBodyBytesMax))
    }

    func execute(
        _ request: NodeRequest, to address: NodeAddress, deadline: NIODeadline, promise: EventLoopPromise<NodeResponse>
    ) {
        if let defect = RequestEncoding.defect(of: request) {
            return promise.fail(NodeFailure(address: address, delivery: .notSent, error: defect))
        }
        guard !isShutDown else {
            let error = KVError(.cancelled, "the connections to nodes are shut down")
            return promise.fail(NodeFailure(address: address, delivery: .notSent, error: error))
        }
        let pending = PendingRequest(request: request, deadline: deadline, promise: promise)
        if let pool = nodes[address] { return pool.execute(pending) }
        let pool = NodePool(
            address: address, eventLoop: eventLoop, configuration: configuration, responses: responses)
        // A node that left the topology must not leave its empty pool behind.
        pool.whenEmpty = { [weak self] in self?.nodes[address] = nil }
        nodes[address] = pool
        pool.execute(pending)
    }

    func cancel(_ response: EventLoopFuture<NodeResponse>, to address: NodeAddress) {
        nodes[address]?.cancel(response)
    }

    func openConnections(to address: NodeAddress) -> Int { nodes[address]?.openConnections ?? 0 }

    func shutdown() -> EventLoopFuture<Void> {
        isShutDown = true
        return EventLoopFuture.andAllComplete(nodes.values.map { $0.shutdown() }, on: eventLoop)
    }
}

/// A request that no connection has taken yet.
struct PendingRequest {
    let request: NodeRequest
    let deadline: NIODeadline
    let promise: EventLoopPromise<NodeResponse>

    func fail(_ delivery: NodeFailure.Delivery, _ address: NodeAddress, _ error: KVError) {
        promise.fail(NodeFailure(address: address, delivery: delivery, error: error))
    }
}
