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

    init(topology: Topology, replicas: [ShardReplica?]) {
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
        for case (let shard, let replica?) in zip(topology.shards, replicas) {
            let labels = ["shard": shard.name, "role": replica.role.isLeader ? "leader" : "follower"]
            registry.gauge("distribkv_shard_lsn", help: "The newest batch of the log.", labels: labels) {
                Double(replica.position.lsn)
            }
            registry.gauge("distribkv_shard_term", help: "The term of that batch.", labels: labels) {
                Double(replica.position.term)
            }
            registry.gauge(
                "distribkv_shard_writable", help: "0 where a failed write has stopped the shard.", labels: labels
            ) { replica.failure == nil ? 1 : 0 }
        }
    }
}
