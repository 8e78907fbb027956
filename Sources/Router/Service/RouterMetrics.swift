import Observability
import Sharding

/// What a router counts.
struct RouterMetrics: Sendable {
    let registry: MetricsRegistry
    let proxied: Counter
    let proxiedInFlight: Gauge
    let retries: Counter
    let batches: Counter
    let scans: Counter
    let refused: Counter

    init(registry: MetricsRegistry) {
        self.registry = registry
        proxied = registry.counter(
            "distribkv_router_proxied_total", help: "Requests that were answered through a node.")
        proxiedInFlight = registry.gauge(
            "distribkv_router_proxied_in_flight", help: "Proxied requests that wait for a node.")
        retries = registry.counter(
            "distribkv_router_proxy_retries_total", help: "Further nodes that were asked after one failed.")
        batches = registry.counter("distribkv_router_batches_total", help: "Batches that were begun.")
        scans = registry.counter("distribkv_router_scans_total", help: "Pages of scans that were asked for.")
        refused = registry.counter(
            "distribkv_router_refused_total", help: "Requests about keys that were answered with a problem.")
    }

    /// The redirects answered by one event loop: its own cache line, which no other loop writes.
    func redirects(loop: Int) -> Counter {
        registry.counter(
            "distribkv_router_redirects_total", help: "Requests that were redirected to a node.",
            labels: ["loop": "\(loop)"])
    }

    func register(_ cluster: ClusterView) {
        registry.gauge("distribkv_router_epoch", help: "Epoch of the topology in use.") {
            Double(cluster.table.topology.epoch)
        }
        registry.gauge("distribkv_router_nodes", help: "Nodes of the topology.") { Double(cluster.nodes.count) }
        registry.gauge("distribkv_router_nodes_alive", help: "Nodes of the topology that answer.") {
            Double(cluster.nodes.count { $0.health.isAlive })
        }
    }
}
