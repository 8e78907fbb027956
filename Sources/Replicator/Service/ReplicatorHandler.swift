import Core
import HTTPServer
import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// The replicator's own endpoints; every answer is at hand.
struct ReplicatorHandler: HTTPHandler, Sendable {
    private let engine: ReplicationEngine
    private let version: String
    private let start = ContinuousClock.now

    init(engine: ReplicationEngine, version: String) {
        self.engine = engine
        self.version = version
    }

    /// No endpoint takes a body.
    func bodyBytesMax(method: HTTPMethod, target: String) -> Int { 0 }

    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) { exchange.respond(answer(request)) }

    func response(to rejection: HTTPRejection) -> HTTPResponse { HTTPResponse(Problem(rejection)) }

    func writeCommonFields(into buffer: inout ByteBuffer) {
        buffer.writeString("\(KVHeader.epoch): \(engine.topology.epoch)\r\n")
    }

    private func answer(_ request: HTTPRequest) -> HTTPResponse {
        let content: () throws -> (type: String, bytes: [UInt8])
        switch String(request.path) {
        case APIPath.healthz, APIPath.readyz: content = { ("text/plain", Array("ok\n".utf8)) }
        case APIPath.status: content = { (MediaType.json, try DocumentCoding.encode(status)) }
        case APIPath.topology: content = { (MediaType.json, try engine.topology.json()) }
        case "/metrics":
            content = {
                (PrometheusText.mediaType, Array(PrometheusText.render(status, engine.metrics.totals).utf8))
            }
        default: return HTTPResponse(Problem(.unknownPath, "\(request.path) is not a path of a replicator"))
        }
        guard request.method == .GET || request.method == .HEAD else {
            let problem = Problem(.methodNotAllowed, "\(request.path) takes GET and HEAD, not \(request.method)")
            return HTTPResponse(problem, headers: [("allow", "GET, HEAD")])
        }
        do {
            let (type, bytes) = try content()
            return HTTPResponse(status: 200, headers: [("content-type", type)], body: ByteBuffer(bytes: bytes))
        } catch {
            return HTTPResponse(Problem(.internalError, "\(error)"))
        }
    }

    private var status: ReplicatorStatus {
        ReplicatorStatus(
            version: version, epoch: engine.topology.epoch, uptimeSeconds: (ContinuousClock.now - start).inSeconds,
            shards: engine.shards)
    }
}

extension HTTPResponse {
    init(_ problem: Problem, headers: [(name: String, value: String)] = []) {
        self.init(
            status: problem.kind.status, headers: [("content-type", MediaType.problem)] + headers,
            body: ByteBuffer(string: problem.json))
    }
}

extension Problem {
    init(_ rejection: HTTPRejection) {
        switch rejection {
        case .malformed(let reason): self.init(.badRequest, reason)
        case .timedOut: self.init(.requestTimeout, "the request did not arrive in time")
        case .bodyTooLarge(let limit): self.init(.valueTooLarge, "a body has at most \(limit) bytes here")
        case .targetTooLong(let limit): self.init(.targetTooLong, "the request target has at most \(limit) bytes")
        case .unknownExpectation(let text): self.init(.expectationFailed, "\(text) is not supported: expect 100-continue")
        case .headersTooLarge(let limit): self.init(.headersTooLarge, "the header fields have at most \(limit) bytes")
        case .overloaded: self.init(.overloaded, "too many bytes of requests are in flight: try again")
        }
    }
}
