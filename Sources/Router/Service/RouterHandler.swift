import Configuration
import Core
import HTTPServer
import NIOCore
import NIOHTTP1
import Observability
import ServiceSupport
import Sharding
import Wire

/// Answers the requests of one event loop: redirects, or hands over to ``Proxy``; and the router's own resources.
///
/// Confined to its event loop. A redirect is decided from ``table`` alone, takes no lock and allocates nothing.
final class RouterHandler: HTTPHandler {
    /// Bodies of requests that need none, read only so that the answer can be about the request.
    private static let ignoredBodyBytesMax = 65_536
    private static let keyMethods = "GET, HEAD, PUT, DELETE, POST"

    private(set) var table: RoutingTable
    private let proxiesByDefault: Bool
    private let valueBytesMax: Int
    private let defaultAck: AckLevel
    private let proxy: Proxy
    private let batches: BatchHandler
    private let scans: RouterScans
    private let resources: RouterResources
    private let metrics: RouterMetrics
    private let redirects: Counter
    /// For each shard, which reader is next; starts anywhere, so that the loops do not go in step.
    private var cursors: [UInt32] = []
    private var recentQueries = RecentQueries<RoutedQuery>()
    /// Turns of the event loop in which reads were proxied.
    private var proxiedTurns: UInt32 = 0
    private var isProxying = false

    init(
        table: RoutingTable, configuration: RouterConfiguration, proxy: Proxy, scans: RouterScans,
        batches: BatchHandler,
        resources: RouterResources, metrics: RouterMetrics, redirects: Counter
    ) {
        self.table = table
        self.proxiesByDefault = configuration.mode == .proxy
        self.valueBytesMax = configuration.valueBytesMax
        self.defaultAck = configuration.defaultAck
        self.proxy = proxy
        self.batches = batches
        self.scans = scans
        self.resources = resources
        self.metrics = metrics
        self.redirects = redirects
        resetCursors()
    }

    /// Goes by `table` from now on; an older one than the last is ignored.
    func use(_ table: RoutingTable) {
        guard table.generation > self.table.generation else { return }
        self.table = table
        if cursors.count != table.shards.count { resetCursors() }
    }

    private func resetCursors() { cursors = table.shards.map { _ in .random(in: 0...0xFFFF) } }

    // MARK: HTTPHandler

    func bodyBytesMax(method: HTTPMethod, target: String) -> Int {
        switch method {
        case .PUT: valueBytesMax
        case .POST where ShortForm.isSet(target): ShortForm.bodyBytesMax(valueBytesMax: valueBytesMax)
        case .POST where BatchRequest.isBatch(target): Limits.batchBytesMax(valueBytesMax: valueBytesMax)
        default: RouterHandler.ignoredBodyBytesMax
        }
    }

    /// A redirect sends the body elsewhere: a client that asks first is spared sending it here as well.
    func needsBody(method: HTTPMethod, target: String) -> Bool {
        HTTPRequest(method: method, target: target).withTargetBytes { bytes in
            guard let place = KeyTarget(bytes) else {
                return BatchRequest.isBatch(target) || ShortForm.isSet(target)
            }
            do throws(Problem) {
                return try RoutedQuery(place.query, in: bytes).proxy ?? proxiesByDefault
            } catch {
                return false  // It is answered 400, whatever the body.
            }
        }
    }

    func writeCommonFields(into buffer: inout ByteBuffer) { buffer.writeBytes(table.document.epochField) }

    func response(to rejection: HTTPRejection) -> HTTPResponse { HTTPResponse(problem: Problem(rejection)) }

    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        let step = request.withTargetBytes { target -> Step in
            guard let place = KeyTarget(target) else { return .resource }
            do throws(Problem) {
                return try route(request.method, place, target, exchange)
            } catch {
                metrics.refused.increment()
                exchange.respond(HTTPResponse(problem: error))
                return .answered
            }
        }
        switch step {
        case .answered: break
        case .resource where ScanParameters.names(request): scans.handle(request, for: self, exchange)
        case .resource:
            if !batches.handle(request, for: self, exchange), !batches.handleShortForm(request, for: self, exchange) {
                exchange.respond(resources.response(to: request, table: table))
            }
        case .proxy(let slot, let target, let demands):
            proxy.start(request, target: target, slot: slot, demands, for: self, exchange)
        case .wrongMethod:
            metrics.refused.increment()
            exchange.respond(
                HTTPResponse(methodNotAllowed: request.method.rawValue, allowed: RouterHandler.keyMethods))
        }
    }

    // MARK: Keys

    private enum Step {
        case answered
        case resource
        case wrongMethod
        case proxy(slot: HashSlot, target: String, Proxy.Demands)
    }

    private func route(
        _ method: HTTPMethod, _ place: KeyTarget, _ target: UnsafeRawBufferPointer, _ exchange: HTTPExchange
    ) throws(Problem) -> Step {
        let isRead: Bool
        switch method {
        case .GET, .HEAD: isRead = true
        case .PUT, .DELETE, .POST: isRead = false
        default: return .wrongMethod
        }
        let slot = try place.withKey(in: target) { HashSlot(key: $0) }
        let query = try query(of: method, isRead: isRead, place, target)
        let goesToLeader = !isRead || query.guarantees.consistency == .leader
        if query.proxy ?? proxiesByDefault {
            var forwarded = ByteBuffer()
            query.write(place, of: target, hops: query.hops > 0 ? query.hops : nil, into: &forwarded)
            let demands = Proxy.Demands(
                isRead: isRead, goesToLeader: goesToLeader,
                waitsForFollowers: !isRead && query.guarantees.ack ?? defaultAck != .leader,
                waitsForMilliseconds: query.guarantees.timeoutMilliseconds ?? 0)
            return .proxy(slot: slot, target: String(buffer: forwarded), demands)
        }
        let shard = table.topology.position(of: slot)
        let table = table
        let node = try goesToLeader ? leader(of: shard) : reader(of: shard)
        redirects.increment()
        query.redirect(exchange, .temporary, fields: table.redirectFields[node], place, of: target)
        return .answered
    }

    private func query(
        of method: HTTPMethod, isRead: Bool, _ place: KeyTarget, _ target: UnsafeRawBufferPointer
    ) throws(Problem) -> RoutedQuery {
        guard let range = place.query else { return try RoutedQuery(nil, in: target) }
        return try recentQueries.value(of: UnsafeRawBufferPointer(rebasing: target[range]), method) {
            () throws(Problem) in
            let query = try RoutedQuery(range, in: target)
            try query.guarantees.check(isRead: isRead)
            return query
        }
    }

    /// The leader's position in the table's nodes.
    func leader(of shard: Int) throws(Problem) -> Int {
        guard let leader = table.shards[shard].leader else {
            let topology = table.topology.shards[shard]
            throw Problem(
                .unavailable, "The leader of shard \(topology.name), \(topology.leader), does not answer: try again.")
        }
        return leader
    }

    /// The replica whose turn it is, by its position in the table's nodes.
    func reader(of shard: Int) throws(Problem) -> Int {
        let readers = try readers(of: shard)
        cursors[shard] &+= 1
        return readers[Int(cursors[shard]) % readers.count]
    }

    /// The replica that all proxied reads of this turn of `eventLoop` go to, so that they can share a connection.
    func proxiedReader(of shard: Int, on eventLoop: any EventLoop) throws(Problem) -> Int {
        if !isProxying {
            isProxying = true
            eventLoop.assumeIsolated().execute { [self] in
                isProxying = false
                proxiedTurns &+= 1
            }
        }
        let readers = try readers(of: shard)
        return readers[Int(cursors[shard] &+ proxiedTurns) % readers.count]
    }

    private func readers(of shard: Int) throws(Problem) -> [Int] {
        let readers = table.shards[shard].readers
        guard !readers.isEmpty else {
            throw Problem(
                .unavailable, "No replica of shard \(table.topology.shards[shard].name) answers: try again.")
        }
        return readers
    }
}
