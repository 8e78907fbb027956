public import Core
public import NIOCore
import NIOHTTP1
public import NIOPosix
public import Sharding
import Wire

/// A value and its version.
public struct KVEntry: Sendable, Hashable {
    public var value: ByteBuffer
    public var version: Version
    /// What was left of its life when it was read, in whole milliseconds; nil for a value that does not expire.
    public var expiresIn: TimeAmount?

    public init(value: ByteBuffer, version: Version, expiresIn: TimeAmount? = nil) {
        self.value = value
        self.version = version
        self.expiresIn = expiresIn
    }
}

/// A key and what is to be written under it.
public struct KVWrite: Sendable, Hashable {
    /// 1…4096 bytes.
    public var key: [UInt8]
    /// nil removes the key.
    public var value: ByteBuffer?
    /// After how long the value is gone, in whole milliseconds; nil for never.
    public var ttl: TimeAmount?

    public init(key: [UInt8], value: ByteBuffer?, ttl: TimeAmount? = nil) {
        self.key = key
        self.value = value
        self.ttl = ttl
    }
}

/// A client of a cluster that routes by itself: it caches the topology and sends each request straight to the node
/// that serves its key, writes to the shard's leader and reads to the replica that the configuration prefers.
///
/// The topology comes from any seed, router or node, and is fetched anew on a redirect, on a higher epoch in an answer
/// and after a failure. Reads and writes without a condition are tried again, after growing waits, until the deadline or
/// the last attempt. Such a write that was made and whose answer got lost is so made twice: the value is the same, the
/// version returned is the later one. Where it fails with `timedOut` or `unavailable` it may have been made.
///
/// A write with a condition and an increment are sent again only where they have certainly not been made. Where that is
/// not known they fail with `outcomeUnknown`. One that failed with `ackTimeout` has been made; with `storageFailed`,
/// `storageFull` or `cancelled` it may have been; with any other error it has not.
///
/// A request ends with `cancelled` as soon as its task is cancelled. One client is for any number of tasks.
///
/// The client is a session: its reads include everything it wrote and every value it read before, whichever replica
/// answers. Where a change of leader has lost that, one read fails with `versionUnknown`, and the session goes on
/// without it. It is noticed as long as nothing newer than the lost version has been written to the shard.
///
/// Call ``shutdown(finishingWithin:)`` when done with it.
public final class KVClient: Sendable {
    /// The connections under it, for requests to one node (`/status`).
    public let connections: NodeConnections
    let group: any EventLoopGroup
    let context: RoutingContext
    let requestTimeout: TimeAmount
    let scanPageBytes: Int

    /// - Parameters:
    ///   - seeds: routers or nodes, at least one; see ``SeedList``.
    ///   - configuration: limits, time limits and how it routes.
    ///   - group: carries connections and requests.
    public init(
        seeds: [NodeAddress], configuration: KVClientConfiguration = .init(),
        group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
    ) {
        precondition(!seeds.isEmpty && configuration.attemptsMax > 0)
        precondition(configuration.requestsInFlightMax > 0 && configuration.scanPageBytes > 0)
        self.group = group
        connections = NodeConnections(group: group, configuration: configuration.connections)
        context = RoutingContext(
            gate: RequestGate(limit: configuration.requestsInFlightMax),
            connections: connections,
            topology: TopologyCache(
                seeds: seeds, connections: connections, timeoutPerNode: configuration.topologyTimeout,
                searchPatience: configuration.topologySearchPatience,
                intervalMin: configuration.topologyIntervalMin),
            retry: RetryPolicy(
                attemptsMax: configuration.attemptsMax, redirectsMax: configuration.redirectsMax,
                backoffMin: configuration.backoffMin, backoffMax: configuration.backoffMax),
            readPreference: configuration.readPreference, readAttemptTimeout: configuration.readAttemptTimeout,
            writeAttemptTimeout: configuration.writeAttemptTimeout,
            session: configuration.session == .readYourWrites ? SessionVersions() : nil)
        requestTimeout = configuration.requestTimeout
        scanPageBytes = configuration.scanPageBytes
    }

    /// Lets the requests under way end, for so long at the most, then closes every connection.
    ///
    /// New requests are refused with `cancelled` from the call on; those that are cut off at its end fail with
    /// `cancelled`, and what they were to write may have been written.
    public func shutdown(finishingWithin grace: TimeAmount = .nanoseconds(0)) async {
        await context.gate.close(patience: grace, on: group.any())
        await connections.shutdown()
    }

    /// The value under `key` and its version; nil where there is none.
    ///
    /// Throws `KVError(.versionUnknown)` where a change of leader has lost what the answer had to include.
    public func get(
        _ key: some Sequence<UInt8>, options: ReadOptions = .init()
    ) async throws(KVError) -> KVEntry? {
        let response = try await send(try .read(.GET, key: Array(key), options))
        guard !Answers.isMissingKey(response) else { return nil }
        guard response.status == 200 else { throw Answers.error(response) }
        // A copy, as the bytes are a slice of what was read from the socket and would keep all of that.
        return KVEntry(
            value: ByteBuffer(bytes: response.body.readableBytesView), version: try version(of: response),
            expiresIn: response.expiresIn)
    }

    /// The version of the value under `key`; nil where there is none.
    ///
    /// Throws `KVError(.versionUnknown)` where a change of leader has lost what the answer had to include.
    public func head(
        _ key: some Sequence<UInt8>, options: ReadOptions = .init()
    ) async throws(KVError) -> Version? {
        let response = try await send(try .read(.HEAD, key: Array(key), options))
        guard !Answers.isMissingKey(response) else { return nil }
        guard response.status == 200 else { throw Answers.error(response) }
        return try version(of: response)
    }

    /// Writes `value` under `key`; the version of the write.
    ///
    /// Throws `KVError(.ackTimeout)`, which carries the version, where the write is done and not on enough replicas yet;
    /// `.preconditionFailed` where its condition does not hold; `.outcomeUnknown` where it has a condition and its answer
    /// was lost.
    @discardableResult
    public func put(
        _ key: some Sequence<UInt8>, _ value: ByteBuffer, options: WriteOptions = .init()
    ) async throws(KVError) -> Version {
        try Self.version(ofWrite: try await send(try .write(key: Array(key), value: value, options)))
    }

    /// Removes `key`; the version of the write, also where there was nothing.
    ///
    /// Throws as ``put(_:_:options:)`` does.
    @discardableResult
    public func delete(
        _ key: some Sequence<UInt8>, options: WriteOptions = .init()
    ) async throws(KVError) -> Version {
        try Self.version(ofWrite: try await send(try .write(key: Array(key), value: nil, options)))
    }

    /// The topology, fetched where it is not known yet.
    public func topology() async throws(KVError) -> Topology {
        if let topology = context.topology.current { return topology }
        return try await fetchTopology(.any)
    }

    /// The topology as a router or node has it now; never an older one than is known already.
    @discardableResult
    public func refreshTopology() async throws(KVError) -> Topology {
        try await fetchTopology(.current)
    }

    private func fetchTopology(_ need: TopologyCache.Need) async throws(KVError) -> Topology {
        let eventLoop = group.any()
        // Others may wait for the same fetch: one of them that is cancelled leaves it to them.
        let promise = eventLoop.makePromise(of: Topology.self)
        context.topology.refresh(need, on: eventLoop).cascade(to: promise)
        do {
            return try await withTaskCancellationHandler {
                try await promise.futureResult.get()
            } onCancel: {
                promise.fail(KVError(.cancelled, "the task was cancelled"))
            }
        } catch {
            throw Self.kvError(error)
        }
    }
}

extension KVClient {
    /// Sends a request to where its key is served. Cancelled with the task.
    func send(_ request: KeyRequest) async throws(KVError) -> NodeResponse {
        let deadline = NIODeadline.now() + (request.timeout ?? requestTimeout + request.patience)
        let (context, eventLoop) = (context, group.any())
        let promise = eventLoop.makePromise(of: NodeResponse.self)
        let routed = NIOLoopBoundBox<RoutedRequest?>.makeEmptyBox(eventLoop: eventLoop)
        eventLoop.execute {
            routed.value = RoutedRequest.start(
                request, deadline: deadline, context: context, on: eventLoop, promise: promise)
        }
        do {
            return try await withTaskCancellationHandler {
                try await promise.futureResult.get()
            } onCancel: {
                // Behind the start, which is on its way to the event loop already.
                eventLoop.execute { routed.value?.cancel() }
            }
        } catch {
            throw Self.kvError(error)
        }
    }

    static func version(ofWrite response: NodeResponse) throws(KVError) -> Version {
        guard (200..<300).contains(response.status) else { throw Answers.error(response) }
        guard let version = response.version else {
            throw KVError(.invalidData, "the answer to a write carries no \(KVHeader.version)")
        }
        return version
    }

    private func version(of response: NodeResponse) throws(KVError) -> Version {
        guard let version = response.version else {
            throw KVError(.invalidData, "the answer carries no \(KVHeader.version): is this a distribKV node?")
        }
        return version
    }

    static func kvError(_ error: any Error) -> KVError {
        switch error {
        case let error as KVError: error
        case let failure as NodeFailure: failure.error
        default: KVError(.internalError, "the request failed", cause: error)
        }
    }
}
