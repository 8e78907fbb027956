import Core
import HTTPServer
import NIOCore
import NIOHTTP1
import Observability
import ServiceSupport
import Sharding
import Wire

/// The replicator's own endpoints; every answer is at hand.
final class ReplicatorHandler: HTTPHandler, Sendable {
    private let engine: ReplicationEngine
    private let version: String
    private let metrics: MetricsRegistry
    private let start = ContinuousClock.now

    init(engine: ReplicationEngine, version: String, metrics: MetricsRegistry) {
        self.engine = engine
        self.version = version
        self.metrics = metrics
    }

    /// No endpoint takes a body.
    func bodyBytesMax(method: HTTPMethod, target: String) -> Int { 0 }

    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) { exchange.respond(answer(request)) }

    func response(to rejection: HTTPRejection) -> HTTPResponse { HTTPResponse(problem: Problem(rejection)) }

    func writeCommonFields(into buffer: inout ByteBuffer) {
        buffer.writeBytes(KVHeader.epochField(engine.topology.epoch))
    }

    private func answer(_ request: HTTPRequest) -> HTTPResponse {
        switch OperatingResource.requested(by: request) {
        case .resource(.healthz): HTTPResponse(text: "ok")
        case .resource(.readyz): readiness()
        case .resource(.status): HTTPResponse(document: status)
        case .resource(.topology): topology()
        case .resource(.metrics):
            HTTPResponse(
                text: metrics.exposition() + ReplicationText.render(engine.shards),
                mediaType: MetricsRegistry.contentType)
        // Keys are not its business.
        case .resource(.openAPI): HTTPResponse(unknownPath: request.path)
        case .refused(let response): response
        }
    }

    /// A replicator serves while it runs the loops of its shards, whether or not the nodes are there.
    private func readiness() -> HTTPResponse {
        guard engine.isRunning else {
            return HTTPResponse(problem: Problem(.unavailable, "The replicator is starting or stopping."))
        }
        return HTTPResponse(text: "ready")
    }

    private func topology() -> HTTPResponse {
        do {
            return HTTPResponse(json: try engine.topology.json())
        } catch {
            return HTTPResponse(problem: Problem(.internalError, "The topology cannot be encoded: \(error)."))
        }
    }

    private var status: ReplicatorStatus {
        ReplicatorStatus(
            version: version, epoch: engine.topology.epoch, uptimeSeconds: (ContinuousClock.now - start).inSeconds,
            shards: engine.shards)
    }
}
