import Core
import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// What every request of a client shares.
struct RoutingContext: Sendable {
    let connections: NodeConnections
    let topology: TopologyCache
    let retry: RetryPolicy
    let readPreference: KVClientConfiguration.ReadPreference
    let readAttemptTimeout: TimeAmount
}

/// One request on its way: routed by the topology, redirected, tried again. Confined to its event loop.
///
/// What to do next is decided by ``RequestProgress``; this carries it out.
final class RoutedRequest {
    private let context: RoutingContext
    private let eventLoop: any EventLoop
    private let request: NodeRequest
    private let slot: HashSlot
    private let deadline: NIODeadline
    /// Where in the list of replicas the first attempt of a spread read begins.
    private let replicaOffset: Int
    private let promise: EventLoopPromise<NodeResponse>
    private var progress: RequestProgress
    private var generator = SystemRandomNumberGenerator()

    private init(
        _ request: NodeRequest, slot: HashSlot, deadline: NIODeadline, context: RoutingContext,
        eventLoop: any EventLoop
    ) {
        self.context = context
        self.eventLoop = eventLoop
        self.request = request
        self.slot = slot
        self.deadline = deadline
        self.replicaOffset = context.readPreference == .spread ? Int.random(in: 0..<65_536) : 0
        self.promise = eventLoop.makePromise()
        self.progress = RequestProgress(policy: context.retry, isIdempotent: request.isIdempotent)
    }

    /// Sends a request for a key of `slot`; on the event loop only. Fails with `KVError`.
    static func start(
        _ request: NodeRequest, slot: HashSlot, deadline: NIODeadline, context: RoutingContext,
        on eventLoop: any EventLoop
    ) -> EventLoopFuture<NodeResponse> {
        eventLoop.assertInEventLoop()
        let routed = RoutedRequest(request, slot: slot, deadline: deadline, context: context, eventLoop: eventLoop)
        if let topology = context.topology.current { routed.send(topology) } else { routed.refreshAndSend(.any) }
        return routed.promise.futureResult
    }

    private var isRead: Bool { request.method == .GET || request.method == .HEAD }

    private func send(_ topology: Topology) {
        let shard = topology.shards[topology.position(of: slot)]
        guard isRead, !shard.followers.isEmpty, replicaOffset + progress.attempt > 0 else {
            return send(request, to: shard.leader, epoch: topology.epoch)
        }
        let replicas = shard.replicas
        send(request, to: replicas[(replicaOffset + progress.attempt) % replicas.count], epoch: topology.epoch)
    }

    private func send(_ request: NodeRequest, to address: NodeAddress, epoch: UInt64) {
        // A read goes on to another replica when one does not answer; a write has only its leader to wait for.
        let deadline = isRead ? min(self.deadline, .now() + context.readAttemptTimeout) : self.deadline
        context.connections.execute(request, to: address, on: eventLoop, deadline: deadline)
            .assumeIsolated().whenComplete { self.receive($0, from: address, epoch: epoch) }
    }

    private func receive(_ result: Result<NodeResponse, any Error>, from address: NodeAddress, epoch: UInt64) {
        let outcome: RequestProgress.Outcome
        switch result {
        case .success(let response):
            if let newer = response.epoch, newer > epoch {
                // Nobody waits for it here: it is for the requests to come.
                _ = context.topology.refresh(hint: address, epoch: newer, on: eventLoop)
            }
            if response.status < 300 { return promise.succeed(response) }
            outcome = .answer(
                status: response.status, location: response.headers.first(name: "location"),
                retryAfterSeconds: response.headers.first(name: "retry-after").flatMap { Int($0) })
        case .failure(let failure as NodeFailure): outcome = .failure(failure)
        case .failure(let error):
            return promise.fail(KVError(.internalError, "a request to \(address) failed", cause: error))
        }
        let action = progress.next(after: outcome, from: address, remaining: remaining, using: &generator)
        if case .follow = action {
            // The topology that led here is not the nodes' own any more.
            _ = context.topology.refresh(hint: address, on: eventLoop)
        }
        perform(action, result, epoch: epoch)
    }

    private func perform(_ action: RequestProgress.Action, _ result: Result<NodeResponse, any Error>?, epoch: UInt64) {
        switch action {
        case .finish:
            if let result { promise.completeWith(result) }
        case .follow(let redirect):
            var request = request
            request.target = redirect.target
            send(request, to: redirect.address, epoch: epoch)
        case .retry(let wait, let refreshing):
            eventLoop.assumeIsolated().scheduleTask(in: wait) { [self] in
                if !refreshing, let topology = context.topology.current {
                    send(topology)
                } else {
                    refreshAndSend(.newer)
                }
            }
        case .fail(let error): promise.fail(error)
        }
    }

    private func refreshAndSend(_ need: TopologyCache.Need) {
        context.topology.refresh(need, on: eventLoop).assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let topology): send(topology)
            case .failure(let error):
                // What was known before may still be right.
                if let topology = context.topology.current { return send(topology) }
                let error = error as? KVError ?? KVError(.unavailable, "the topology cannot be had", cause: error)
                let action = progress.next(afterTopologyFailure: error, remaining: remaining, using: &generator)
                perform(action, nil, epoch: 0)
            }
        }
    }

    private var remaining: TimeAmount { deadline - .now() }
}
