import Core
import DistribKVClient
import HTTPServer
import NIOCore
import NIOHTTP1
import Observability
import ServiceSupport
import Sharding
import Wire

/// Answers requests about keys with what a node answers, over the connections of the request's own event loop.
///
/// Confined to its event loop. Bounded: at most `inFlightMax` requests wait for nodes at once, each until its
/// deadline; a read asks each replica once, a write that may have reached a node is never sent again, and
/// `Limits.redirectsMax` redirects of nodes are followed.
final class Proxy {
    let transport: any NodeTransport
    let cluster: ClusterView
    let metrics: RouterMetrics
    private let inFlightMax: Int
    private let timeout: TimeAmount
    private(set) var inFlight = 0

    init(
        transport: any NodeTransport, cluster: ClusterView, metrics: RouterMetrics, inFlightMax: Int,
        timeout: TimeAmount
    ) {
        self.transport = transport
        self.cluster = cluster
        self.metrics = metrics
        self.inFlightMax = inFlightMax
        self.timeout = timeout
    }

    /// What a request asks for, as far as its way depends on it.
    struct Demands {
        /// It may be sent again.
        var isRead: Bool
        /// No other replica will do.
        var goesToLeader: Bool
        /// A write that is answered once followers have it.
        var waitsForFollowers: Bool
        /// How long the node was told to wait for them.
        var waitsForMilliseconds: UInt64
    }

    /// - Parameter target: path and query as the node is to see them.
    func start(
        _ request: HTTPRequest, target: String, slot: HashSlot, _ demands: Demands, for router: RouterHandler,
        _ exchange: HTTPExchange
    ) {
        guard inFlight < inFlightMax else {
            metrics.refused.increment()
            return exchange.respond(
                HTTPResponse(
                    problem: Problem(.overloaded, "Too many requests wait for nodes at this router: try again later.")))
        }
        inFlight += 1
        metrics.proxied.increment()
        metrics.proxiedInFlight.add(1)
        let body = request.body.readableBytes > 0 ? request.body : nil
        var forwarded = NodeRequest(
            method: request.method, target: target, headers: Proxy.forwarded(request.headers), body: body)
        // A read that demands a version may have to wait for it.
        forwarded.isBrief = !demands.waitsForFollowers && request.headers[canonicalForm: KVHeader.minVersion].isEmpty
        let waits = TimeAmount.milliseconds(Int64(demands.waitsForMilliseconds))
        ProxiedRequest(
            forwarded, slot: slot, demands, deadline: exchange.eventLoop.now + timeout + waits, proxy: self,
            router: router, exchange: exchange
        ).start()
    }

    func ended() {
        inFlight -= 1
        metrics.proxiedInFlight.add(-1)
    }

    // MARK: Header fields

    /// What a node needs to know of the client's request: not what `connection` names as the client's connection's own
    /// (RFC 9110 section 7.6.1).
    private static func forwarded(_ headers: HTTPHeaders) -> [(name: String, value: String)] {
        var forwarded: [(name: String, value: String)] = []
        for (name, value) in headers where isForwarded(name.lowercased()) {
            forwarded.append((name: name, value: value))
        }
        if !forwarded.isEmpty {
            let ownFields = headers[canonicalForm: "connection"].map { $0.lowercased() }
            if !ownFields.isEmpty { forwarded.removeAll { ownFields.contains($0.name.lowercased()) } }
        }
        return forwarded
    }

    private static func isForwarded(_ name: String) -> Bool {
        switch name {
        case "content-type", "if-match", "if-none-match": true
        case KVHeader.epoch: false
        default: name.hasPrefix("kv-")
        }
    }

    /// What a client needs to know of a node's answer. The epoch is the router's own to say.
    static func returned(_ headers: HTTPHeaders) -> [(name: String, value: String)] {
        var returned: [(name: String, value: String)] = []
        for (name, value) in headers where isReturned(name.lowercased()) {
            returned.append((name: name, value: value))
        }
        return returned
    }

    private static func isReturned(_ name: String) -> Bool {
        switch name {
        case "content-type", "etag", "retry-after", "allow", "cache-control": true
        case KVHeader.epoch: false
        default: name.hasPrefix("kv-")
        }
    }
}
