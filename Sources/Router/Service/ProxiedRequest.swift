import Core
import DistribKVClient
import HTTPServer
import NIOCore
import NIOHTTP1
import Observability
import ServiceSupport
import Sharding
import Wire

/// One request on its way through the router to a node and back. Confined to its event loop.
final class ProxiedRequest {
    private var request: NodeRequest
    private let slot: HashSlot
    private let isRead: Bool
    private let goesToLeader: Bool
    private let deadline: NIODeadline
    private let proxy: Proxy
    private let router: RouterHandler
    private let exchange: HTTPExchange
    /// Nodes that failed this request.
    private var failed: [NodeAddress] = []
    private var redirects = 0

    init(
        _ request: NodeRequest, slot: HashSlot, _ demands: Proxy.Demands, deadline: NIODeadline, proxy: Proxy,
        router: RouterHandler, exchange: HTTPExchange
    ) {
        self.request = request
        self.slot = slot
        self.isRead = demands.isRead
        self.goesToLeader = demands.goesToLeader
        self.deadline = deadline
        self.proxy = proxy
        self.router = router
        self.exchange = exchange
    }

    func start() {
        do throws(Problem) {
            let shard = router.table.topology.position(of: slot)
            let node =
                try goesToLeader
                ? router.leader(of: shard) : router.proxiedReader(of: shard, on: exchange.eventLoop)
            send(to: router.table.nodes[node])
        } catch {
            finish(error)
        }
    }

    private func send(to address: NodeAddress) {
        proxy.transport.execute(request, to: address, on: exchange.eventLoop, deadline: attemptDeadline)
            .assumeIsolated().whenComplete { result in
                switch result {
                case .success(let response): self.received(response, from: address)
                case .failure(let error as NodeFailure): self.failed(error, at: address)
                case .failure(let error):
                    self.finish(Problem(.internalError, "The request to \(address) failed: \(error)."))
                }
            }
    }

    /// A read leaves half of the time that is left to the replicas that it could still ask.
    private var attemptDeadline: NIODeadline {
        guard !goesToLeader, nextReader(besides: 1) != nil else { return deadline }
        let now = exchange.eventLoop.now
        return now < deadline ? now + .nanoseconds((deadline - now).nanoseconds / 2) : deadline
    }

    // MARK: Answers

    private func received(_ response: NodeResponse, from address: NodeAddress) {
        if let epoch = response.epoch, epoch > router.table.topology.epoch {
            proxy.cluster.saw(epoch: epoch, of: address, on: exchange.eventLoop)
        }
        if response.isRedirect { return follow(response, from: address) }
        guard response.status >= 200 else {
            return finish(Problem(.badGateway, "\(address) answered \(response.status), which is no final answer."))
        }
        finish(response)
    }

    private func follow(_ response: NodeResponse, from address: NodeAddress) {
        redirects += 1
        guard redirects <= Limits.redirectsMax else {
            return finish(
                Problem(
                    .redirectLoop,
                    "Nodes redirected the request \(redirects) times, \(address) last: they disagree about who serves "
                        + "its key; try again."))
        }
        guard let location = response.headers.first(name: "location"), let next = RedirectLocation(location) else {
            return finish(Problem(.badGateway, "\(address) redirected to where no node can be."))
        }
        request.target = next.target
        send(to: next.address)
    }

    private func finish(_ response: NodeResponse) {
        proxy.ended()
        // Requests that shared a write get their answers in one read.
        exchange.deferSending()
        let headers = Proxy.returned(response.headers)
        guard request.method == .HEAD, response.status != 204, response.status != 304 else {
            return exchange.respond(HTTPResponse(status: response.status, headers: headers, body: response.body))
        }
        // There is no content to take the length from: it is the node's to say.
        let length = response.headers.first(name: "content-length").flatMap { Int($0) }
        exchange.respond(status: response.status, contentLength: length) { buffer in
            for (name, value) in headers { buffer.writeString("\(name): \(value)\r\n") }
        }
    }

    private func finish(_ problem: Problem) {
        proxy.ended()
        exchange.respond(HTTPResponse(problem: problem))
    }

    // MARK: Failures

    private func failed(_ failure: NodeFailure, at address: NodeAddress) {
        let isUnreachable = failure.error.code == .unavailable
        if isUnreachable, failure.delivery == .notSent {
            proxy.cluster.failed(address, reason: failure.error.description)
        }
        failed.append(address)
        if exchange.eventLoop.now < deadline, let next = nextNode(after: failure) {
            proxy.metrics.retries.increment()
            return send(to: next)
        }
        finish(problem(of: failure, at: address))
    }

    /// The node to ask instead; nil where asking another could do harm or no good.
    private func nextNode(after failure: NodeFailure) -> NodeAddress? {
        switch failure.error.code {
        case .unavailable, .timedOut: break
        case .overloaded where isRead: break
        default: return nil
        }
        if !goesToLeader { return nextReader(besides: 0) }
        // Nothing can be applied twice; worth it only where another node leads by now.
        guard isRead || failure.delivery == .notSent else { return nil }
        let table = router.table
        guard let leader = table.shards[table.topology.position(of: slot)].leader else { return nil }
        let address = table.nodes[leader]
        return failed.contains(address) ? nil : address
    }

    /// A replica for reads that has not failed this request.
    /// - Parameter besides: how many of those are being asked already.
    private func nextReader(besides asked: Int) -> NodeAddress? {
        let table = router.table
        let readers = table.shards[table.topology.position(of: slot)].readers
        return readers.lazy.map { table.nodes[$0] }.filter { !self.failed.contains($0) }.dropFirst(asked).first
    }

    private func problem(of failure: NodeFailure, at address: NodeAddress) -> Problem {
        let reason = failure.error.message
        let maybeApplied = !isRead && failure.delivery == .possiblySent ? " The write may have been applied." : ""
        switch failure.error.code {
        case .timedOut: return Problem(.upstreamTimeout, "\(reason).\(maybeApplied)")
        case .unavailable where failure.delivery == .notSent: return Problem(.unavailable, "\(reason): try again.")
        case .unavailable, .invalidData: return Problem(.badGateway, "\(reason).\(maybeApplied)")
        case .overloaded: return Problem(.overloaded, "\(reason).")
        case .cancelled: return Problem(.unavailable, "This router is shutting down.\(maybeApplied)")
        case .invalidArgument: return Problem(.badRequest, "\(reason).")
        default: return Problem(.internalError, "The request to \(address) failed: \(reason).\(maybeApplied)")
        }
    }
}

/// Where a node's redirect leads: `http://host:port/path?query`.
struct RedirectLocation: Equatable {
    let address: NodeAddress
    /// Path and query.
    let target: String

    /// nil where `location` is something else.
    init?(_ location: String) {
        let scheme = "http://"
        guard location.utf8.starts(with: scheme.utf8) else { return nil }
        let rest = location.utf8.dropFirst(scheme.utf8.count)
        guard let slash = rest.firstIndex(of: UInt8(ascii: "/")),
            let address = NodeAddress(Substring(rest[..<slash]))
        else { return nil }
        self.address = address
        self.target = String(Substring(rest[slash...]))
    }
}
