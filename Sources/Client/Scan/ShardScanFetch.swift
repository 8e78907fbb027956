package import Core
package import NIOCore
import NIOHTTP1
package import Wire

/// Asks the replicas of a shard for a page, one after the other, until one answers. Confined to its event loop.
///
/// Bounded by its deadline: each replica gets its part of the time that is left. At most `Limits.redirectsMax`
/// redirects of each are followed.
package final class ShardScanFetch {
    package typealias Send = (NodeRequest, NodeAddress, NIODeadline) -> EventLoopFuture<NodeResponse>

    private let shard: String
    private let target: String
    private let eventLoop: any EventLoop
    private let deadline: NIODeadline
    private let send: Send
    private let promise: EventLoopPromise<ScanPage>
    private var waiting: ArraySlice<NodeAddress>
    private var redirects = 0
    private var failures: [String] = []

    private init(
        shard: String, target: String, replicas: [NodeAddress], deadline: NIODeadline, eventLoop: any EventLoop,
        send: @escaping Send
    ) {
        self.shard = shard
        self.target = target
        self.waiting = replicas[...]
        self.deadline = deadline
        self.eventLoop = eventLoop
        self.send = send
        self.promise = eventLoop.makePromise()
    }

    /// - Parameters:
    ///   - demands: of the read, as parameters of a query.
    ///   - replicas: who is asked, in this order.
    ///   - send: carries a request; completes on the event loop.
    ///
    /// Fails with ``ShardScanFailure`` where none of them answers with a page.
    package static func start(
        _ request: ShardScanRequest, ofShard shard: String, demands: [String], replicas: [NodeAddress],
        deadline: NIODeadline, on eventLoop: any EventLoop, send: @escaping Send
    ) -> EventLoopFuture<ScanPage> {
        let target = ScanQuery.target(
            shard: shard, request.range, limit: request.limit, bytesMax: request.bytesMax, keysOnly: request.keysOnly,
            demands: demands)
        let fetch = ShardScanFetch(
            shard: shard, target: target, replicas: replicas, deadline: deadline, eventLoop: eventLoop, send: send)
        fetch.askNext()
        return fetch.promise.futureResult
    }

    private func askNext() {
        guard let replica = waiting.popFirst() else {
            let reason = failures.isEmpty ? "no replica is known to be alive" : failures.joined(separator: "; ")
            return promise.fail(ShardScanFailure(shard: shard, reason: reason))
        }
        redirects = 0
        ask(replica, target)
    }

    private func ask(_ node: NodeAddress, _ target: String) {
        let now = eventLoop.now
        let part = now < deadline ? (deadline - now).nanoseconds / Int64(waiting.count + 1) : 0
        let request = NodeRequest(method: .GET, target: target, headers: [("accept", MediaType.scanFrames)])
        send(request, node, now + .nanoseconds(part)).assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let response): take(response, from: node)
            case .failure(let error): failed(node, (error as? NodeFailure)?.error.description ?? "\(error)")
            }
        }
    }

    private func take(_ response: NodeResponse, from node: NodeAddress) {
        if response.isRedirect {
            redirects += 1
            let location = response.headers.first(name: "location")
            guard redirects <= Limits.redirectsMax,
                let redirect = location.flatMap({ Redirect(location: $0, from: node) })
            else { return failed(node, "\(node) redirected \(redirects) times: the nodes disagree about who leads") }
            return ask(redirect.address, redirect.target)
        }
        guard response.status == 200 else {
            return failed(node, "\(node) answered \(response.status): \(Answers.error(response).message)")
        }
        do throws(KVError) {
            promise.succeed(try ScanPage(response))
        } catch {
            failed(node, "\(node) answered wrongly: \(error.message)")
        }
    }

    private func failed(_ node: NodeAddress, _ reason: String) {
        failures.append(reason)
        askNext()
    }
}

extension ScanPage {
    /// What a node answered 200 with.
    package init(_ response: NodeResponse) throws(KVError) {
        guard response.headers.first(name: "content-type") == MediaType.scanFrames else {
            throw KVError(.invalidData, "the answer to a scan of one shard is no \(MediaType.scanFrames)")
        }
        try self.init(frames: response.body, encodedNext: response.headers.first(name: KVHeader.next))
    }
}
