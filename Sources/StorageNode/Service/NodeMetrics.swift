import Core
import Observability
import Shard
import Sharding

/// What a storage node counts, for `GET /metrics`.
final class NodeMetrics: Sendable {
    let registry = MetricsRegistry()
    let hits: Counter
    let misses: Counter
    /// Reads that memory could not answer.
    let diskReads: Counter
    let writes: Counter
    let failedWrites: Counter
    let redirects: Counter

    /// - Parameter views: whose replicas are shown; which they are, and their roles, may change.
    init(views: NodeViews) {
        registry.registerProcessMetrics(role: "storage-node", version: BuildInformation.version)
        let reads = "distribkv_reads_total"
        hits = registry.counter(reads, help: "Reads of keys, by outcome.", labels: ["outcome": "hit"])
        misses = registry.counter(reads, help: "Reads of keys, by outcome.", labels: ["outcome": "miss"])
        diskReads = registry.counter(
            "distribkv_disk_reads_total", help: "Reads that memory could not answer.")
        let writeFamily = "distribkv_writes_total"
        writes = registry.counter(writeFamily, help: "Writes of keys, by outcome.", labels: ["outcome": "done"])
        failedWrites = registry.counter(
            writeFamily, help: "Writes of keys, by outcome.", labels: ["outcome": "failed"])
        redirects = registry.counter(
            "distribkv_redirects_total", help: "Requests for keys sent to another node.")
        registry.gauge("distribkv_epoch", help: "The epoch of the topology this node serves.") {
            Double(views.current.topology.epoch)
        }
        gauges("distribkv_shard_lsn", "The newest batch of the log.", views) { Double($0.position.lsn) }
        gauges("distribkv_shard_term", "The term of that batch.", views) { Double($0.position.term) }
        gauges("distribkv_shard_writable", "0 where a failed write has stopped the shard.", views) {
            $0.failure == nil ? 1 : 0
        }
    }

    /// A gauge for each replica that is served, labelled with the role it has now.
    private func gauges(
        _ name: String, _ help: String, _ views: NodeViews, _ value: @escaping @Sendable (ShardReplica) -> Double
    ) {
        registry.gauges(name, help: help) {
            let view = views.current
            return view.topology.shards.indices.compactMap { position in
                guard let replica = view.replicas[position] else { return nil }
                let role = view.leads[position] ? "leader" : "follower"
                return MetricsRegistry.Reading(
                    labels: ["shard": view.topology.shards[position].name, "role": role], value: value(replica))
            }
        }
    }
}
