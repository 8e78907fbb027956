import Configuration
import Core
import HTTPServer
import NIOCore
import NIOHTTP1
import Observability
import ServiceSupport
import Shard
import Sharding
import Wire

/// Answers every request that arrives on one event loop of a storage node.
final class NodeHandler: HTTPHandler {
    private let node: Node
    /// What this event loop goes by.
    private var view: NodeView
    private let keys: KeyHandler
    private let scans: ScanHandler
    private let replication: ReplicationHandler
    private let snapshots: SnapshotHandler
    private let admin: ShardAdminHandler
    private let batches: BatchHandler
    private let valueBytesMax: Int

    private init(node: Node, admin: ShardAdmin, view: NodeView, eventLoop: any EventLoop) {
        self.node = node
        self.view = view
        keys = KeyHandler(node: node, view: view, eventLoop: eventLoop)
        scans = ScanHandler(node: node, view: view, eventLoop: eventLoop)
        replication = ReplicationHandler(node: node, view: view)
        snapshots = SnapshotHandler(node: node, view: view)
        self.admin = ShardAdminHandler(admin: admin, view: view, eventLoop: eventLoop)
        batches = BatchHandler(node: node, admin: admin, view: view, eventLoop: eventLoop)
        valueBytesMax = node.configuration.storage.valueBytesMax
    }

    /// A handler that goes by the newest view of `node`, always. To be called on `eventLoop`.
    static func make(node: Node, admin: ShardAdmin, eventLoop: any EventLoop) -> NodeHandler {
        let handler = NodeHandler(node: node, admin: admin, view: node.view, eventLoop: eventLoop)
        let bound = NIOLoopBound(handler, eventLoop: eventLoop)
        handler.use(node.views.subscribe(on: eventLoop) { bound.value.use($0) })
        return handler
    }

    /// Goes by `view` from now on.
    private func use(_ view: NodeView) {
        guard view.generation > self.view.generation else { return }
        self.view = view
        keys.use(view)
        scans.use(view)
        replication.use(view)
        snapshots.use(view)
        admin.use(view)
        batches.use(view)
    }

    func writeCommonFields(into buffer: inout ByteBuffer) { buffer.writeBytes(view.epochField) }

    func response(to rejection: HTTPRejection) -> HTTPResponse { HTTPResponse(problem: Problem(rejection)) }

    func bodyBytesMax(method: HTTPMethod, target: String) -> Int {
        switch method {
        case .PUT where target.hasPrefix(ReplicationHandler.pathPrefix): SnapshotHandler.bodyBytesMax
        case .PUT: valueBytesMax
        case .POST where ShortForm.isSet(target):
            ShortForm.bodyBytesMax(valueBytesMax: valueBytesMax)
        case .POST where BatchRequest.isBatch(target):
            Limits.batchBytesMax(valueBytesMax: valueBytesMax)
        case .POST where target.hasPrefix(ReplicationHandler.pathPrefix): ReplicationHandler.bodyBytesMax(target)
        case .POST where target.hasPrefix(APIPath.topology): ShardAdminHandler.topologyBytesMax
        case .POST where target.hasPrefix(ShardAdminHandler.pathPrefix): ShardAdminHandler.bodyBytesMax(target)
        // Nothing here reads the body of another request, but a small one does no harm.
        default: 65_536
        }
    }

    /// A write that is redirected keeps its body for the node that takes it.
    func needsBody(method: HTTPMethod, target: String) -> Bool {
        HTTPRequest(method: method, target: target).withTargetBytes { bytes in
            guard let place = KeyTarget(bytes) else { return true }
            return keys.takesWrites(place, bytes)
        }
    }

    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        let isKey = request.withTargetBytes { bytes in
            guard let target = KeyTarget(bytes) else { return false }
            do throws(Problem) {
                try keys.handle(request, target, bytes, exchange)
            } catch {
                exchange.respond(HTTPResponse(problem: error))
            }
            return true
        }
        if !isKey { handleOther(request, exchange) }
    }

    private func handleOther(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        if batches.handle(request, exchange) || batches.handleShortForm(request, exchange) { return }
        if ScanParameters.names(request) { return scans.handle(request, exchange) }
        if let target = SnapshotTarget(request.path) { return snapshots.handle(target, request, exchange) }
        if admin.handle(request, exchange) { return }
        if request.path.hasPrefix(ReplicationHandler.pathPrefix) { return replication.handle(request, exchange) }
        switch OperatingResource.requested(by: request) {
        case .resource(.healthz): exchange.respond(HTTPResponse(text: "ok"))
        case .resource(.readyz): exchange.respond(view.readiness)
        case .resource(.topology): respondTopology(request, exchange)
        case .resource(.status): respondStatus(exchange)
        case .resource(.metrics):
            exchange.respond(
                HTTPResponse(text: node.metrics.registry.exposition(), mediaType: MetricsRegistry.contentType))
        case .resource(.openAPI): exchange.respond(OpenAPI.response)
        case .refused(let response): exchange.respond(response)
        }
    }

    /// Nodes compare their topologies by asking for any other than the one they have.
    private func respondTopology(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        guard request.headers.first(name: "if-none-match") != view.topologyTag else {
            return exchange.respond(HTTPResponse(status: 304, headers: [(name: "etag", value: view.topologyTag)]))
        }
        exchange.respond(view.topologyDocument)
    }

    private func respondStatus(_ exchange: HTTPExchange) {
        let node = self.node
        let document = node.readers.run(on: exchange.eventLoop) { HTTPResponse(document: try node.status()) }
        exchange.respond(document) { HTTPResponse(problem: Problem($0)) }
    }
}
