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
    private let keys: KeyHandler
    private let replication: ReplicationHandler
    /// `kv-epoch: …` with its CRLF.
    private let epochField: [UInt8]

    init(node: Node, eventLoop: any EventLoop) {
        self.node = node
        keys = KeyHandler(node: node, eventLoop: eventLoop)
        replication = ReplicationHandler(node: node)
        epochField = KVHeader.epochField(node.topology.epoch)
    }

    func writeCommonFields(into buffer: inout ByteBuffer) { buffer.writeBytes(epochField) }

    func response(to rejection: HTTPRejection) -> HTTPResponse { HTTPResponse(problem: Problem(rejection)) }

    func bodyBytesMax(method: HTTPMethod, target: String) -> Int {
        switch method {
        case .PUT: node.configuration.storage.valueBytesMax
        case .POST where target.hasPrefix(ReplicationHandler.pathPrefix): ReplicationHandler.batchesBytesMax
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
        if request.path.hasPrefix(ReplicationHandler.pathPrefix) { return replication.handle(request, exchange) }
        switch OperatingResource.requested(by: request) {
        case .resource(.healthz): exchange.respond(HTTPResponse(text: "ok"))
        case .resource(.readyz): exchange.respond(readiness)
        case .resource(.topology): exchange.respond(HTTPResponse(json: node.topologyDocument))
        case .resource(.status): respondStatus(exchange)
        case .resource(.metrics):
            exchange.respond(
                HTTPResponse(text: node.metrics.registry.exposition(), mediaType: MetricsRegistry.contentType))
        case .refused(let response): exchange.respond(response)
        }
    }

    /// Ready while every hosted shard takes what its role lets it take.
    private var readiness: HTTPResponse {
        for (shard, replica) in zip(node.topology.shards, node.replicas) {
            guard let failure = replica?.failure else { continue }
            return HTTPResponse(problem: Problem(.unavailable, "Shard \(shard.name) takes no writes: \(failure)"))
        }
        return HTTPResponse(text: "ok")
    }

    private func respondStatus(_ exchange: HTTPExchange) {
        let node = self.node
        let document = node.readers.run(on: exchange.eventLoop) { HTTPResponse(document: try node.status()) }
        exchange.respond(document) { HTTPResponse(problem: Problem($0)) }
    }
}
