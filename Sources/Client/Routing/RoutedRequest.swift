import Core
import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// What every request of a client shares.
struct RoutingContext: Sendable {
    let gate: RequestGate
    let connections: NodeConnections
    let topology: TopologyCache
    let retry: RetryPolicy
    let readPreference: KVClientConfiguration.ReadPreference
    let readAttemptTimeout: TimeAmount
    let writeAttemptTimeout: TimeAmount
    /// nil where reads need not include what was done before.
    let session: SessionVersions?
}

/// What a client is asked to do with one key.
struct KeyRequest: Sendable {
    var request: NodeRequest
    var slot: HashSlot
    /// Only the leader can answer.
    var needsLeader: Bool
    /// What the caller demands beyond the session.
    var minVersion: Version?
    /// By how much acknowledgements may lengthen it.
    var patience: TimeAmount
    /// From the call to the end; nil for what the client is configured for, and ``patience``.
    var timeout: TimeAmount?

    var isRead: Bool { request.method == .GET || request.method == .HEAD }

    /// Throws `KVError(.invalidArgument)` where the key is empty or too long.
    static func read(_ method: HTTPMethod, key: [UInt8], _ options: ReadOptions) throws(KVError) -> KeyRequest {
        try check(key)
        return KeyRequest(
            request: NodeRequest(method: method, target: RequestOptions.target(key: key, query: options.query)),
            slot: HashSlot(key: key), needsLeader: options.consistency == .leader, minVersion: options.minVersion,
            patience: .nanoseconds(0), timeout: options.timeout)
    }

    /// - Parameter value: nil removes the key.
    ///
    /// Throws `KVError(.invalidArgument)` where the key is empty or too long, or the ttl cannot be.
    static func write(key: [UInt8], value: ByteBuffer?, _ options: WriteOptions) throws(KVError) -> KeyRequest {
        try check(key)
        try options.checkTTL(isPut: value != nil)
        let target = RequestOptions.target(key: key, query: options.query)
        return write(
            NodeRequest(method: value == nil ? .DELETE : .PUT, target: target, body: value), key: key, options)
    }

    /// Throws `KVError(.invalidArgument)` where the key is empty or too long.
    static func increment(key: [UInt8], by amount: Int64, _ options: WriteOptions) throws(KVError) -> KeyRequest {
        try check(key)
        try options.checkTTL(isPut: false)
        let target = RequestOptions.target(key: key, query: ["incr=\(amount)"] + options.query)
        return write(NodeRequest(method: .POST, target: target), key: key, options)
    }

    private static func write(_ request: NodeRequest, key: [UInt8], _ options: WriteOptions) -> KeyRequest {
        var request = request
        if let condition = options.condition { request.headers.append(condition.field) }
        return KeyRequest(
            request: request, slot: HashSlot(key: key), needsLeader: true, minVersion: nil, patience: options.patience,
            timeout: options.timeout)
    }

    private static func check(_ key: [UInt8]) throws(KVError) {
        guard (Limits.keyBytesMin...Limits.keyBytesMax).contains(key.count) else {
            throw KVError(
                .invalidArgument,
                "a key has \(Limits.keyBytesMin) to \(Limits.keyBytesMax) bytes, this one \(key.count)")
        }
    }
}

/// One request on its way: routed by the topology, redirected, tried again. Confined to its event loop.
///
/// What to do next is decided by ``RequestProgress``; this carries it out.
final class RoutedRequest {
    /// How an attempt began: what came of it is judged by this, however the topology has changed meanwhile.
    private struct Attempt {
        var request: NodeRequest
        var shard: ShardTopology
        var epoch: UInt64
        /// What a read has to include.
        var minVersion: Version?
    }

    private let context: RoutingContext
    private let eventLoop: any EventLoop
    private let key: KeyRequest
    private let deadline: NIODeadline
    /// Where in the list of replicas the first attempt of a spread read begins.
    private let replicaOffset: Int
    private let promise: EventLoopPromise<NodeResponse>
    private var progress: RequestProgress
    private var generator = SystemRandomNumberGenerator()
    private var isEnded = false
    /// What it waits for, so that it can be cancelled: an answer, or the pause before the next attempt.
    private var exchange: (response: EventLoopFuture<NodeResponse>, address: NodeAddress)?
    private var pause: Scheduled<Void>?

    private init(
        _ key: KeyRequest, deadline: NIODeadline, context: RoutingContext, eventLoop: any EventLoop,
        promise: EventLoopPromise<NodeResponse>
    ) {
        self.context = context
        self.eventLoop = eventLoop
        self.key = key
        self.deadline = deadline
        self.replicaOffset = context.readPreference == .spread ? Int.random(in: 0..<65_536) : 0
        self.promise = promise
        self.progress = RequestProgress(policy: context.retry, isIdempotent: key.request.isIdempotent)
    }

    /// Sends a request; on the event loop only. Fails with `KVError` or ``NodeFailure``.
    static func start(
        _ key: KeyRequest, deadline: NIODeadline, context: RoutingContext, on eventLoop: any EventLoop
    ) -> EventLoopFuture<NodeResponse> {
        let promise = eventLoop.makePromise(of: NodeResponse.self)
        _ = start(key, deadline: deadline, context: context, on: eventLoop, promise: promise)
        return promise.futureResult
    }

    /// Sends a request; on the event loop only.
    /// - Parameter promise: of that event loop; failed with `KVError` or ``NodeFailure``.
    /// - Returns: the request, to cancel it; nil where it has ended.
    static func start(
        _ key: KeyRequest, deadline: NIODeadline, context: RoutingContext, on eventLoop: any EventLoop,
        promise: EventLoopPromise<NodeResponse>
    ) -> RoutedRequest? {
        eventLoop.assertInEventLoop()
        do throws(KVError) {
            try context.gate.enter()
        } catch {
            promise.fail(error)
            return nil
        }
        let routed = RoutedRequest(key, deadline: deadline, context: context, eventLoop: eventLoop, promise: promise)
        if let topology = context.topology.current {
            routed.send(topology)
        } else {
            routed.refreshAndSend { $0.refresh(.any, on: eventLoop) }
        }
        return routed.isEnded ? nil : routed
    }

    /// Fails with `cancelled`, gives up the attempt under way and makes no other; on the event loop only.
    func cancel() {
        guard !isEnded else { return }
        let exchange = exchange
        let doubt = key.isRead || exchange == nil ? "" : "; the write may have been made"
        end(.failure(KVError(.cancelled, "the task was cancelled\(doubt)")))
        if let exchange { context.connections.cancel(exchange.response, to: exchange.address, on: eventLoop) }
    }

    private func end(_ result: Result<NodeResponse, any Error>) {
        guard !isEnded else { return }
        isEnded = true
        exchange = nil
        pause?.cancel()
        pause = nil
        context.gate.leave()
        promise.completeWith(result)
    }
}

// MARK: - Sending

extension RoutedRequest {
    private func send(_ topology: Topology) {
        let shard = topology.shards[topology.position(of: key.slot)]
        var attempt = Attempt(request: key.request, shard: shard, epoch: topology.epoch)
        if key.isRead {
            let version = max(key.minVersion ?? .zero, context.session?.newest(of: shard.name) ?? .zero)
            if version > .zero {
                attempt.minVersion = version
                attempt.request.headers.append((KVHeader.minVersion, version.hexDigits))
            }
        }
        let replicas = shard.replicas
        let choice = key.needsLeader ? 0 : replicaOffset + progress.attempt
        send(attempt, to: replicas[choice % replicas.count])
    }

    private func send(_ attempt: Attempt, to address: NodeAddress) {
        guard !isEnded else { return }
        // What is sent once only has all the time there is: nothing follows an answer that comes too late.
        var deadline = deadline
        if key.request.isIdempotent {
            let timeout = key.isRead ? context.readAttemptTimeout : context.writeAttemptTimeout + key.patience
            deadline = min(deadline, .now() + timeout)
        }
        let response = context.connections.execute(attempt.request, to: address, on: eventLoop, deadline: deadline)
        exchange = (response, address)
        response.assumeIsolated().whenComplete { self.receive($0, from: address, attempt) }
    }

    private func refreshAndSend(_ refresh: (TopologyCache) -> EventLoopFuture<Topology>) {
        refresh(context.topology).assumeIsolated().whenComplete { [self] result in
            guard !isEnded else { return }
            switch result {
            case .success(let topology): send(topology)
            case .failure(let error):
                // What was known before may still be right.
                if let topology = context.topology.current { return send(topology) }
                let error = error as? KVError ?? KVError(.unavailable, "the topology cannot be had", cause: error)
                do throws(KVError) {
                    let wait = try progress.wait(afterTopologyFailure: error, remaining: remaining, using: &generator)
                    pause = eventLoop.assumeIsolated().scheduleTask(in: wait) { [self] in
                        refreshAndSend { [eventLoop] in $0.refresh(.newer, on: eventLoop) }
                    }
                } catch {
                    end(.failure(error))
                }
            }
        }
    }

    private var remaining: TimeAmount { deadline - .now() }
}

// MARK: - Receiving

extension RoutedRequest {
    private func receive(_ result: Result<NodeResponse, any Error>, from address: NodeAddress, _ attempt: Attempt) {
        guard !isEnded else { return }
        exchange = nil
        switch result {
        case .success(let response):
            if let newer = response.epoch, newer > attempt.epoch {
                // Nobody waits for it here: it is for the requests to come.
                _ = context.topology.refresh(asking: [address], epoch: newer, on: eventLoop)
            }
            // Also where not enough replicas have it in time: the leader has it.
            if response.status < 300 || response.status == 504, let version = response.version {
                context.session?.note(version, in: attempt.shard.name)
            }
            if response.status < 300 { return end(.success(response)) }
            let problem = Answers.problemType(response, to: key.request.method)
            let action = progress.next(
                after: .answer(
                    status: response.status, problem: problem, location: response.headers.first(name: "location"),
                    retryAfterSeconds: response.headers.first(name: "retry-after").flatMap { Int($0) }),
                from: address, remaining: remaining, using: &generator)
            perform(action, from: address, attempt) {
                self.finish(response, problem: problem, attempt)
            } doubt: {
                Answers.error(response)
            }
        case .failure(let failure as NodeFailure):
            let action = progress.next(
                after: .failure(failure), from: address, remaining: remaining, using: &generator)
            perform(action, from: address, attempt) {
                self.end(.failure(failure))
            } doubt: {
                failure.error
            }
        case .failure(let error):
            end(.failure(KVError(.internalError, "a request to \(address) failed", cause: error)))
        }
    }

    private func perform(
        _ action: RequestProgress.Action, from address: NodeAddress, _ attempt: Attempt, finish: () -> Void,
        doubt: () -> KVError
    ) {
        switch action {
        case .finish: finish()
        case .doubt:
            let cause = doubt()
            end(
                .failure(
                    KVError(
                        .outcomeUnknown,
                        "it is not known whether \(address) has made the write, which is not sent twice: read the key, "
                            + "then decide: \(cause.message)", cause: cause.cause)))
        case .fail(let error): end(.failure(error))
        case .follow(let redirect):
            // The topology that led here is not the nodes' own any more.
            _ = context.topology.refresh(asking: [address], on: eventLoop)
            var attempt = attempt
            attempt.request.target = redirect.target
            send(attempt, to: redirect.address)
        case .retry(let wait, let knowledge):
            pause = eventLoop.assumeIsolated().scheduleTask(in: wait) { [self] in
                retry(knowledge, after: attempt, of: address)
            }
        }
    }

    private func retry(_ knowledge: RequestProgress.Knowledge, after attempt: Attempt, of address: NodeAddress) {
        let eventLoop = eventLoop
        switch knowledge {
        case .known:
            if let topology = context.topology.current { return send(topology) }
            refreshAndSend { $0.refresh(.newer, on: eventLoop) }
        case .refreshed: refreshAndSend { $0.refresh(.newer, on: eventLoop) }
        case .superseding:
            // A new leader is one of the shard's other replicas, and the first to know.
            let others = attempt.shard.replicas.filter { $0 != address }
            let search = { (topology: TopologyCache) in
                topology.search(for: attempt.epoch + 1, asking: others, on: eventLoop)
            }
            if !key.needsLeader, !others.isEmpty, let topology = context.topology.current {
                // Another replica can answer meanwhile.
                _ = search(context.topology)
                send(topology)
            } else {
                refreshAndSend(search)
            }
        }
    }

    private func finish(_ response: NodeResponse, problem: String?, _ attempt: Attempt) {
        guard problem == Problem.Kind.versionUnknown.name, let version = attempt.minVersion else {
            return end(.success(response))
        }
        context.session?.forget(version, in: attempt.shard.name)
        end(
            .failure(
                KVError(
                    .versionUnknown,
                    "\(attempt.shard.name) has no version \(version): a forced change of its leader lost what was "
                        + "written after the last version kept; read again for what there is",
                    version: version)))
    }
}
