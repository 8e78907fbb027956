import Core
import HTTPServer
import Logging
import NIOCore
import NIOHTTP1
import Observability
import ServiceSupport
import Shard
import Wire

/// Requests about snapshots, on one event loop: a leader gives them out, a follower takes one in.
///
/// All of it touches the disk, so all of it runs on threads that may block: parts of files on the readers', what
/// reads whole databases on threads of its own.
final class SnapshotHandler {
    /// The body of a part, and then some for a client that sends more than it should: it is told so.
    static let bodyBytesMax = SnapshotPart.bytesMax + (64 << 10)

    private let node: Node
    private var view: NodeView

    init(node: Node, view: NodeView) {
        self.node = node
        self.view = view
    }

    /// Goes by `view` from now on.
    func use(_ view: NodeView) { self.view = view }

    func handle(_ target: SnapshotTarget, _ request: HTTPRequest, _ exchange: HTTPExchange) {
        let open = view.replica(ofShardNamed: target.shard)
        let name = String(target.shard)
        guard open != nil || (target.isReceived && view.damagedAbsence(ofShardNamed: name) != nil) else {
            return exchange.respond(HTTPResponse(problem: view.absence(ofShardNamed: target.shard)))
        }
        // One that does not open is looked at on a thread that may block.
        let find: Finder = { [node, view] in
            if let open { return open }
            return try node.keeper.absent.replica(ofShard: name, in: view)
        }
        do throws(Problem) {
            let query = try QueryParameters(request.query)
            switch (target.resource, request.method, open) {
            case (.given, .POST, let replica?): try self.open(replica, query, exchange)
            case (.givenOne(let id), .DELETE, let replica?): release(id, replica, exchange)
            case (.givenFile(let id, let name), .GET, let replica?): try read(name, of: id, query, replica, exchange)
            case (.received, .POST, _): begin(request.body, find, exchange)
            case (.received, .GET, _): respondReceipt(find, exchange)
            case (.received, .DELETE, _): discard(try query.text("id"), find, exchange)
            case (.receivedFile(let name), .PUT, _): try append(to: name, query, request, find, exchange)
            case (.installation, .POST, _): try install(query, find, exchange)
            case (.given, _, _), (.installation, _, _): refuse(request.method, allowed: "POST", exchange)
            case (.givenOne, _, _): refuse(request.method, allowed: "DELETE", exchange)
            case (.givenFile, _, _): refuse(request.method, allowed: "GET", exchange)
            case (.received, _, _): refuse(request.method, allowed: "GET, POST, DELETE", exchange)
            case (.receivedFile, _, _): refuse(request.method, allowed: "PUT", exchange)
            }
        } catch {
            exchange.respond(HTTPResponse(problem: error))
        }
    }

    private func refuse(_ method: HTTPMethod, allowed: String, _ exchange: HTTPExchange) {
        exchange.respond(HTTPResponse(methodNotAllowed: method.rawValue, allowed: allowed))
    }

    /// Answers with what `work` makes on a thread of `pool`.
    private func answer(
        _ exchange: HTTPExchange, on pool: ReaderPool, _ work: @escaping @Sendable () throws -> HTTPResponse
    ) {
        exchange.respond(pool.run(on: exchange.eventLoop, work)) { HTTPResponse(problem: Problem($0)) }
    }

    private static func identifier(_ query: QueryParameters) throws(Problem) -> String {
        guard let id = try query.text("id") else {
            throw Problem(.badRequest, "The query must name the snapshot: id, as its manifest has it.")
        }
        return id
    }

    // MARK: Giving

    private func open(_ replica: ShardReplica, _ query: QueryParameters, _ exchange: HTTPExchange) throws(Problem) {
        let lsn = try query.integer("lsn", in: 0...UInt64.max) ?? 0
        answer(exchange, on: node.snapshotWork) { HTTPResponse(document: try replica.openSnapshot(atLeast: lsn)) }
    }

    private func release(_ id: String, _ replica: ShardReplica, _ exchange: HTTPExchange) {
        answer(exchange, on: node.snapshotWork) {
            try replica.releaseSnapshot(id: id)
            return HTTPResponse(status: 204)
        }
    }

    private func read(
        _ name: String, of id: String, _ query: QueryParameters, _ replica: ShardReplica, _ exchange: HTTPExchange
    ) throws(Problem) {
        try query.allowOnly(["offset", "length"])
        guard let offset = try query.integer("offset", in: 0...UInt64(Int64.max)),
            let length = try query.integer("length", in: 1...SnapshotPart.bytesMax)
        else { throw Problem(.badRequest, "The query must say which part of the file: offset and length, in bytes.") }
        let metrics = node.metrics
        answer(exchange, on: node.readers) {
            let part = try replica.readSnapshot(id: id, file: name, offset: offset, length: length)
            metrics.snapshotBytesSent.increment(by: UInt64(part.bytes.readableBytes))
            return HTTPResponse(
                status: 200,
                headers: [
                    (name: "content-type", value: MediaType.bytes),
                    (name: KVHeader.checksum, value: part.checksumText),
                ], body: part.bytes)
        }
    }

    // MARK: Receiving

    /// Gets the replica that takes a snapshot. Blocks.
    private typealias Finder = @Sendable () throws -> any RebuildableReplica

    private func begin(_ body: ByteBuffer, _ find: @escaping Finder, _ exchange: HTTPExchange) {
        let logger = node.logger
        answer(exchange, on: node.snapshotWork) {
            let manifest: SnapshotManifest
            do {
                manifest = try DocumentCoding.decode(SnapshotManifest.self, from: body.readableBytesView)
            } catch {
                throw Problem(.badRequest, "The content is no manifest of a snapshot: \(error).")
            }
            let replica = try find()
            let before = replica.position
            // A second replicator looks every second how the first one gets on.
            let isMoving = (replica.received.progress?.bytesPerSecond ?? 0) > 0
            let (receipt, isNew) = try replica.beginSnapshot(manifest)
            logger.log(
                level: isNew || !isMoving ? .info : .debug,
                isNew ? "receiving a snapshot" : "going on with a snapshot",
                metadata: [
                    "shard": "\(manifest.shard)", "id": "\(manifest.id)", "lsn": "\(before.lsn)",
                    "snapshot_lsn": "\(manifest.position.lsn)", "bytes": "\(manifest.bytesTotal)",
                    "bytes_here": "\(receipt.files.reduce(0) { $0 + $1.received })",
                ])
            return HTTPResponse(document: receipt)
        }
    }

    private func respondReceipt(_ find: @escaping Finder, _ exchange: HTTPExchange) {
        answer(exchange, on: node.readers) {
            let replica = try find()
            guard let receipt = replica.received.receipt else { throw SnapshotHandler.nothingReceived(replica) }
            return HTTPResponse(document: receipt)
        }
    }

    private static func nothingReceived(_ replica: any RebuildableReplica) -> Problem {
        Problem(.unknownSnapshot, "No snapshot of \(replica.configuration.name) is being received here.")
    }

    private func discard(_ id: String?, _ find: @escaping Finder, _ exchange: HTTPExchange) {
        let logger = node.logger
        answer(exchange, on: node.snapshotWork) {
            let replica = try find()
            guard let receipt = try replica.received.discard(id: id) else {
                throw SnapshotHandler.nothingReceived(replica)
            }
            logger.notice(
                "snapshot given up", metadata: ["shard": "\(replica.configuration.name)", "id": "\(receipt.id)"])
            return HTTPResponse(document: receipt)
        }
    }

    private func append(
        to name: String, _ query: QueryParameters, _ request: HTTPRequest, _ find: @escaping Finder,
        _ exchange: HTTPExchange
    ) throws(Problem) {
        try query.allowOnly(["id", "offset"])
        let id = try SnapshotHandler.identifier(query)
        guard let offset = try query.integer("offset", in: 0...UInt64(Int64.max)) else {
            throw Problem(.badRequest, "The query must say where the part begins in the file: offset, in bytes.")
        }
        guard let field = request.headers.first(name: KVHeader.checksum), let checksum = SnapshotPart.checksum(field)
        else {
            throw Problem(
                .badRequest, "The header field \(KVHeader.checksum) must give the CRC-32C of the part: 8 hex digits.")
        }
        let body = request.body
        let metrics = node.metrics
        answer(exchange, on: node.readers) {
            let receipt = try find().received.append(body, to: name, at: offset, id: id, checksum: checksum)
            metrics.snapshotBytesReceived.increment(by: UInt64(body.readableBytes))
            return HTTPResponse(document: receipt)
        }
    }

    // MARK: Installing

    private func install(
        _ query: QueryParameters, _ find: @escaping Finder, _ exchange: HTTPExchange
    ) throws(Problem) {
        try query.allowOnly(["id", "diverged"])
        let id = try SnapshotHandler.identifier(query)
        let isDiverged = try query.flag("diverged") ?? false
        let node = self.node
        let verified = node.snapshotWork.run(on: exchange.eventLoop) {
            let replica = try find()
            return (replica, try replica.verifySnapshot(id: id))
        }
        let eventLoop = exchange.eventLoop
        let installed = verified.flatMap { replica, manifest in
            eventLoop.makeFutureWithTask { try await node.install(manifest, in: replica, isDiverged: isDiverged) }
        }
        exchange.respond(installed.map { HTTPResponse(document: $0) }) { HTTPResponse(problem: Problem($0)) }
    }
}
