import Core
import HTTPServer
import NIOCore
import NIOHTTP1
import ServiceSupport
import Shard
import Sharding
import Synchronization
import Wire

/// Requests that change who serves a shard, on one event loop: `POST /topology`, `/shards/{shard}/…`, and a replica's
/// history and promises.
final class ShardAdminHandler {
    static let pathPrefix = "/shards/"
    static let topologyBytesMax = 32 << 20
    /// Of the body of a POST to `/shards/…`.
    static func bodyBytesMax(_ target: String) -> Int { target.hasSuffix("/digest") ? digestBytesMax : changeBytesMax }

    private static let changeBytesMax = 1 << 20
    /// 1,023 boundaries of 4,096 bytes, of which percent-encoding makes three each.
    private static let digestBytesMax = 16 << 20

    private let admin: ShardAdmin
    private var view: NodeView
    private let eventLoop: any EventLoop

    init(admin: ShardAdmin, view: NodeView, eventLoop: any EventLoop) {
        self.admin = admin
        self.view = view
        self.eventLoop = eventLoop
    }

    /// Goes by `view` from now on.
    func use(_ view: NodeView) { self.view = view }

    /// - Returns: false where the request is for somebody else to answer.
    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) -> Bool {
        let path = request.path
        do throws(Problem) {
            if path == APIPath.topology {
                guard request.method == .POST else { return false }
                takeTopology(request, exchange)
                return true
            }
            if path.hasPrefix(ShardAdminHandler.pathPrefix) {
                try handleShard(request, path.dropFirst(ShardAdminHandler.pathPrefix.count), exchange)
                return true
            }
            guard path.hasPrefix(ReplicationHandler.pathPrefix) else { return false }
            return try handleReplica(request, path.dropFirst(ReplicationHandler.pathPrefix.count), exchange)
        } catch {
            exchange.respond(HTTPResponse(problem: error))
            return true
        }
    }

    // MARK: Routes

    private func handleShard(
        _ request: HTTPRequest, _ rest: Substring, _ exchange: HTTPExchange
    ) throws(Problem) {
        let parts = rest.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2 || (parts.count == 3 && parts[1] == "replicas") else {
            return exchange.respond(HTTPResponse(unknownPath: request.path))
        }
        guard let position = view.position(ofShardNamed: parts[0]) else {
            let known = view.topology.shards.map(\.name).joined(separator: ", ")
            throw Problem(.unknownShard, "There is no shard \(parts[0].prefix(64)): there are \(known).")
        }
        switch (parts[1], parts.count, request.method) {
        case ("replicas", 2, .POST): try addReplica(position, request, exchange)
        case ("replicas", 3, .DELETE): try removeReplica(position, String(parts[2]), request, exchange)
        case ("handover", 2, .POST): try handOver(position, request, exchange)
        case ("promote", 2, .POST): try promote(position, request, exchange)
        case ("hold", 2, .POST): try hold(position, request, exchange)
        case ("hold", 2, .DELETE): try release(position, request, exchange)
        case ("digest", 2, .POST): try digest(position, request, exchange)
        case ("compact", 2, .POST):
            var response = HTTPResponse(document: try replica(at: position).startCompaction())
            response.status = 202
            exchange.respond(response)
        case ("compact", 2, .GET):
            exchange.respond(HTTPResponse(document: try replica(at: position).lastCompaction))
        case ("scrub", 2, .POST):
            var response = HTTPResponse(document: try replica(at: position).startScrub())
            response.status = 202
            exchange.respond(response)
        case ("scrub", 2, .GET): exchange.respond(HTTPResponse(document: try replica(at: position).lastScrub))
        case ("compact", 2, _), ("scrub", 2, _): refuse(request.method, allowed: "GET, POST", exchange)
        case ("replicas", 3, _): refuse(request.method, allowed: "DELETE", exchange)
        case ("hold", 2, _): refuse(request.method, allowed: "POST, DELETE", exchange)
        case ("replicas", 2, _), ("handover", 2, _), ("promote", 2, _), ("digest", 2, _):
            refuse(request.method, allowed: "POST", exchange)
        default: exchange.respond(HTTPResponse(unknownPath: request.path))
        }
    }

    private func handleReplica(
        _ request: HTTPRequest, _ rest: Substring, _ exchange: HTTPExchange
    ) throws(Problem) -> Bool {
        let parts = rest.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[1] == "history" || parts[1] == "fence" else { return false }
        guard let replica = view.replica(ofShardNamed: parts[0]) else { throw view.absence(ofShardNamed: parts[0]) }
        switch (parts[1], request.method) {
        case ("history", .GET):
            answer(exchange) { admin, eventLoop in
                HTTPResponse(document: try await admin.history(of: replica, on: eventLoop))
            }
        case ("fence", .POST):
            let body = request.body
            answer(exchange) { admin, eventLoop in
                let fence = try ShardAdminHandler.decode(FenceRequest.self, body)
                return HTTPResponse(document: try await admin.fence(replica, fence, on: eventLoop))
            }
        default: refuse(request.method, allowed: parts[1] == "history" ? "GET" : "POST", exchange)
        }
        return true
    }

    private func refuse(_ method: HTTPMethod, allowed: String, _ exchange: HTTPExchange) {
        exchange.respond(HTTPResponse(methodNotAllowed: method.rawValue, allowed: allowed))
    }

    // MARK: Topology

    private func takeTopology(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        let body = request.body
        answer(exchange) { admin, _ in
            let topology: Topology
            do {
                topology = try Topology(json: body.readableBytesView)
            } catch {
                throw Problem(.badRequest, "The body is no topology: \(error)")
            }
            _ = try await admin.node.keeper.adopt(topology, from: "POST \(APIPath.topology)")
            return admin.node.view.topologyDocument
        }
    }

    private func addReplica(_ position: Int, _ request: HTTPRequest, _ exchange: HTTPExchange) throws(Problem) {
        guard try !redirectToLeader(position, request, exchange) else { return }
        try checkLeads(position)
        let shard = view.topology.shards[position].name
        let node = try ShardAdminHandler.decode(MembershipRequest.self, request.body).node
        answer(exchange) { admin, _ in
            let topology = try await admin.changeTopology(
                to: { try $0.adding(node, to: shard) }, because: "\(node) joins \(shard)")
            return HTTPResponse(json: try topology.json())
        }
    }

    private func removeReplica(
        _ position: Int, _ name: String, _ request: HTTPRequest, _ exchange: HTTPExchange
    ) throws(Problem) {
        guard try !redirectToLeader(position, request, exchange) else { return }
        try checkLeads(position)
        guard let node = NodeAddress(name) else {
            throw Problem(.badRequest, "\"\(name.prefix(64))\" is not an address: write host:port.")
        }
        let replica = try replica(at: position)
        let force = try QueryParameters(request.query).text("force").map { text throws(Problem) in
            guard let force = Bool(text) else { throw Problem(.badRequest, "force is true or false.") }
            return force
        }
        answer(exchange) { admin, eventLoop in
            let topology = try await admin.remove(node, from: replica, force: force ?? false, on: eventLoop)
            return HTTPResponse(json: try topology.json())
        }
    }

    // MARK: Leadership

    private func handOver(_ position: Int, _ request: HTTPRequest, _ exchange: HTTPExchange) throws(Problem) {
        guard try !redirectToLeader(position, request, exchange) else { return }
        let replica = try replica(at: position)
        let target = try ShardAdminHandler.decode(HandoverRequest.self, request.body).to
        answer(exchange) { admin, eventLoop in
            let handover = Handover(admin: admin, replica: replica, target: target, eventLoop: eventLoop)
            return HTTPResponse(document: try await handover.run())
        }
    }

    private func promote(_ position: Int, _ request: HTTPRequest, _ exchange: HTTPExchange) throws(Problem) {
        let replica = try replica(at: position)
        let promote = try ShardAdminHandler.decode(PromoteRequest.self, request.body)
        answer(exchange) { admin, _ in
            HTTPResponse(document: try await Promotion(admin: admin, replica: replica, request: promote).run())
        }
    }

    // MARK: Holding

    /// The longest a client may ask for; the replica has a limit of its own.
    private static let holdMillisecondsMax: UInt64 = 10_000

    private func hold(_ position: Int, _ request: HTTPRequest, _ exchange: HTTPExchange) throws(Problem) {
        guard try !redirectToLeader(position, request, exchange) else { return }
        let replica = try replica(at: position)
        let parameters = try QueryParameters(request.query)
        try parameters.allowOnly(["milliseconds", redirectHopsParameter])
        guard
            let milliseconds = try parameters.integer("milliseconds", in: 1...ShardAdminHandler.holdMillisecondsMax)
        else { throw Problem(.badRequest, "The query must give the milliseconds to hold the writes for.") }
        answer(exchange) { admin, _ in
            HTTPResponse(document: try await admin.hold(replica, milliseconds: milliseconds))
        }
    }

    private func release(_ position: Int, _ request: HTTPRequest, _ exchange: HTTPExchange) throws(Problem) {
        guard try !redirectToLeader(position, request, exchange) else { return }
        let replica = try replica(at: position)
        answer(exchange) { admin, _ in
            await admin.release(replica)
            return HTTPResponse(status: 204)
        }
    }

    // MARK: Comparing

    /// Of the replica here, whatever its role.
    private func digest(_ position: Int, _ request: HTTPRequest, _ exchange: HTTPExchange) throws(Problem) {
        let replica = try replica(at: position)
        let body = request.body
        answer(exchange) { _, _ in
            let digest = try ShardAdminHandler.decode(DigestRequest.self, body)
            let boundaries = try digest.boundaries?.map { boundary throws(Problem) -> [UInt8] in
                guard let key = PercentCoding.decode(boundary.utf8) else {
                    throw Problem(.badRequest, "\"\(boundary.prefix(64))\" is not a percent-encoded key.")
                }
                return key
            }
            let found = try await replica.digest(
                boundaries: boundaries, expiringAfter: digest.expiringAfter, at: digest.lsn)
            return HTTPResponse(
                document: DigestDocument(
                    position: replica.document(at: found.position), expiringAfter: found.expiringAfter,
                    ranges: found.ranges))
        }
    }

    // MARK: Answering

    private func replica(at position: Int) throws(Problem) -> ShardReplica {
        guard let replica = view.replicas[position] else {
            throw view.absence(ofShardNamed: view.topology.shards[position].name)
        }
        return replica
    }

    /// Who leads by the topology alone changes nothing: another may lead by now, and know other replicas.
    private func checkLeads(_ position: Int) throws(Problem) {
        guard let replica = view.replicas[position], !replica.role.isLeader else { return }
        throw view.leaderOutOfService(at: position)
    }

    /// - Returns: whether it did, because this node does not lead the shard.
    private func redirectToLeader(
        _ position: Int, _ request: HTTPRequest, _ exchange: HTTPExchange
    ) throws(Problem) -> Bool {
        guard !view.leads[position] else { return false }
        let hops = try QueryParameters(request.query).integer(redirectHopsParameter, in: 0...Limits.redirectsMax) ?? 0
        let leader = view.topology.shards[position].leader
        guard hops < Limits.redirectsMax else {
            throw Problem(
                .redirectLoop,
                "The request was redirected \(hops) times: the nodes disagree about who leads "
                    + "\(view.topology.shards[position].name); compare their /topology documents.")
        }
        let others = (request.query ?? "").split(separator: "&").filter { !$0.hasPrefix("\(redirectHopsParameter)=") }
        let query = (others + ["\(redirectHopsParameter)=\(hops + 1)"]).joined(separator: "&")
        exchange.respond(
            HTTPResponse(
                status: 307,
                headers: [
                    (name: "cache-control", value: "no-store"),
                    (name: "location", value: "http://\(leader)\(request.path)?\(query)"),
                ]))
        return true
    }

    private static func decode<Document: Decodable>(
        _ type: Document.Type, _ body: ByteBuffer
    ) throws(Problem) -> Document {
        do {
            return try DocumentCoding.decode(type, from: body.readableBytesView)
        } catch {
            throw Problem(.badRequest, "The body is not the JSON that is expected here: \(error)")
        }
    }

    /// Runs `operation` and answers what it returns, or its error as a problem.
    private func answer(
        _ exchange: HTTPExchange,
        _ operation: @escaping @Sendable (ShardAdmin, any EventLoop) async throws -> HTTPResponse
    ) {
        let (admin, eventLoop) = (admin, eventLoop)
        guard admin.begin() else {
            return exchange.respond(
                HTTPResponse(
                    problem: Problem(.overloaded, "Too many changes of topology are under way: try again later.")))
        }
        let answer = eventLoop.makeFutureWithTask {
            defer { admin.end() }
            return try await operation(admin, eventLoop)
        }
        exchange.respond(answer) { HTTPResponse(problem: Problem($0)) }
    }
}
