import Core
import HTTPServer
import NIOCore
import NIOHTTP1
import Observability
import ServiceSupport
import Sharding
import Synchronization
import Wire

/// The router's own resources: `/topology`, `/status`, `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.
final class RouterResources: Sendable {
    private let cluster: ClusterView
    private let registry: MetricsRegistry
    private let mode: String
    private let started = NIODeadline.now()
    private let isStopping = Atomic<Bool>(false)

    init(cluster: ClusterView, registry: MetricsRegistry, mode: String) {
        self.cluster = cluster
        self.registry = registry
        self.mode = mode
    }

    /// From here on `/readyz` says no, so that who balances load over routers goes elsewhere.
    func stop() { isStopping.store(true, ordering: .relaxed) }

    /// - Parameter table: what the asking event loop goes by.
    func response(to request: HTTPRequest, table: RoutingTable) -> HTTPResponse {
        switch OperatingResource.requested(by: request) {
        case .resource(.topology):
            HTTPResponse(
                status: 200, headers: [(name: "content-type", value: MediaType.json)], body: table.document.json)
        case .resource(.status): HTTPResponse(document: status)
        case .resource(.healthz): HTTPResponse(text: "alive")
        case .resource(.readyz): readiness(table)
        case .resource(.metrics):
            HTTPResponse(text: registry.exposition(), mediaType: MetricsRegistry.contentType)
        case .resource(.openAPI): OpenAPI.response
        case .refused(let response): response
        }
    }

    private func readiness(_ table: RoutingTable) -> HTTPResponse {
        if isStopping.load(ordering: .relaxed) {
            return HTTPResponse(problem: Problem(.unavailable, "This router is shutting down."))
        }
        let unproven = table.unprovenShards
        guard unproven.isEmpty else {
            return HTTPResponse(
                problem: Problem(.unavailable, "No replica answers of: \(unproven.joined(separator: ", "))."))
        }
        return HTTPResponse(text: "ready")
    }

    private var status: RouterStatus {
        let now = NIODeadline.now()
        return RouterStatus(
            version: BuildInformation.version, mode: mode, epoch: cluster.table.topology.epoch,
            uptimeSeconds: (now - started).seconds,
            nodes: cluster.nodes.map { address, health in
                RouterStatus.Node(
                    address: address, healthy: health.isAlive, epoch: health.epoch,
                    lastAnswerSecondsAgo: health.lastAnswer.map { (now - $0).seconds }, lastError: health.lastError)
            })
    }
}

extension TimeAmount {
    fileprivate var seconds: Double { Double(nanoseconds / 1_000_000) / 1_000 }
}
