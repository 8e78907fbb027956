import Core
import LSM
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
    let scans: Counter
    let writes: Counter
    /// Writes whose condition did not hold, and counters that could not be changed.
    let refusedWrites: Counter
    let failedWrites: Counter
    let batches: Counter
    let batchOperations: Counter
    let redirects: Counter
    /// Writes that waited for followers, and those of them that were answered without.
    let ackWaits: Counter
    let ackTimeouts: Counter
    let ackWaitSeconds: Histogram
    let snapshotBytesSent: Counter
    let snapshotBytesReceived: Counter
    let snapshotsInstalled: Counter
    let divergedWritesSaved: Counter

    /// - Parameters:
    ///   - views: whose replicas are shown; which they are, and their roles, may change.
    ///   - shared, budgets: what the replicas share.
    init(views: NodeViews, clock: ClockWatch, shared: SharedResources, budgets: ShardBudgets) {
        registry.registerProcessMetrics(role: "storage-node", version: BuildInformation.version)
        let reads = "distribkv_reads_total"
        hits = registry.counter(reads, help: "Reads of keys, by outcome.", labels: ["outcome": "hit"])
        misses = registry.counter(reads, help: "Reads of keys, by outcome.", labels: ["outcome": "miss"])
        diskReads = registry.counter(
            "distribkv_disk_reads_total", help: "Reads that memory could not answer.")
        scans = registry.counter("distribkv_scans_total", help: "Pages of scans that were asked for.")
        let writeFamily = "distribkv_writes_total"
        writes = registry.counter(writeFamily, help: "Writes of keys, by outcome.", labels: ["outcome": "done"])
        refusedWrites = registry.counter(
            writeFamily, help: "Writes of keys, by outcome.", labels: ["outcome": "refused"])
        failedWrites = registry.counter(
            writeFamily, help: "Writes of keys, by outcome.", labels: ["outcome": "failed"])
        batches = registry.counter("distribkv_batches_total", help: "Batches that were begun.")
        batchOperations = registry.counter(
            "distribkv_batch_operations_total", help: "Operations of batches, also those sent on to other nodes.")
        redirects = registry.counter(
            "distribkv_redirects_total", help: "Requests for keys sent to another node.")
        ackWaits = registry.counter("distribkv_ack_waits_total", help: "Writes that waited for followers.")
        ackTimeouts = registry.counter(
            "distribkv_ack_timeouts_total", help: "Writes that were answered 504 because followers were late.")
        ackWaitSeconds = registry.histogram(
            "distribkv_ack_wait_seconds", help: "From a write's place on the leader's disk to the end of its wait.")
        snapshotBytesSent = registry.counter(
            "distribkv_snapshot_bytes_sent_total", help: "Bytes of snapshots read for followers.")
        snapshotBytesReceived = registry.counter(
            "distribkv_snapshot_bytes_received_total", help: "Bytes of snapshots received.")
        snapshotsInstalled = registry.counter(
            "distribkv_snapshots_installed_total", help: "Replicas rebuilt from a snapshot.")
        divergedWritesSaved = registry.counter(
            "distribkv_diverged_writes_saved_total",
            help: "Writes saved to files because the shard's history has not got them.")
        registry.counter("distribkv_scrub_bytes_total", help: "Bytes that scrubs read.") { Double(ScrubTotals.bytes) }
        registry.counter("distribkv_scrub_passes_total", help: "Scrubs that read all of a replica.") {
            Double(ScrubTotals.passes)
        }
        registry.counter("distribkv_scrub_damaged_files_total", help: "Damaged files that scrubs found.") {
            Double(ScrubTotals.damagedFiles)
        }
        registry.counter(
            "distribkv_scrub_differences_total", help: "Followers found with other data than their leader's."
        ) { Double(ScrubTotals.differences) }
        registry.gauge("distribkv_epoch", help: "The epoch of the topology this node serves.") {
            Double(views.current.topology.epoch)
        }
        registry.gauge(
            "distribkv_clock_ahead_milliseconds",
            help: "How far this machine's clock is ahead of the time that is followed; 0 while it is followed."
        ) { Double(clock.ahead) }
        registry.counter(
            "distribkv_clock_jumps_total", help: "How often this machine's clock jumped ahead and was not followed."
        ) { Double(clock.jumps) }
        gauges(
            "distribkv_shard_version_ahead_milliseconds",
            "How far the newest version is ahead of the time, having come from a clock that was wrong.", views
        ) { Double($0.expiries.versionAheadMilliseconds) }
        registry.registerBudgets([
            Budget(name: "memtables", bytesMax: shared.memtables.bytesMax) {
                // For the next time: what was written out meanwhile shows only then.
                shared.memtables.look()
                return shared.memtables.usedBytes
            },
            Budget(name: "recent_batches", bytesMax: ShardBudgets.framesBytesMax) { budgets.framesUsedBytes },
            Budget(name: "waiting_writes", bytesMax: ShardBudgets.writesBytesMax) { budgets.writesUsedBytes },
            Budget(name: "block_cache", bytesMax: shared.options.blockCacheBytes) { shared.blockCacheUsedBytes },
        ])
        gauges("distribkv_shard_lsn", "The newest batch of the log.", views) { Double($0.position.lsn) }
        gauges("distribkv_shard_term", "The term of that batch.", views) { Double($0.position.term) }
        gauges("distribkv_shard_writable", "0 where a failed write has stopped the shard.", views) {
            $0.failure == nil ? 1 : 0
        }
        registry.gauges("distribkv_shard_damaged", help: "1 where the replica is damaged and has to be rebuilt.") {
            let view = views.current
            return view.topology.shards.indices.compactMap { position in
                let isDamaged: Bool
                switch (view.replicas[position], view.absences[position]) {
                case (let replica?, _): isDamaged = replica.damage != nil
                case (nil, .failed(let error)): isDamaged = error.code == .corrupted
                case (nil, _): return nil
                }
                return MetricsRegistry.Reading(
                    labels: [
                        "shard": view.topology.shards[position].name,
                        "role": view.leads[position] ? "leader" : "follower",
                    ], value: isDamaged ? 1 : 0)
            }
        }
        gauges("distribkv_shard_scrub_age_seconds", "Since the replica was last read as a whole.", views) {
            $0.secondsSinceScrub
        }
        gauges("distribkv_shard_background_ok", "0 while flushes or compactions of the shard's database fail.", views) {
            $0.background.failure == nil ? 1 : 0
        }
        gauges("distribkv_shard_lag_milliseconds", "How far a follower may be behind its leader.", views) {
            $0.role.isLeader ? nil : $0.freshness.lagMilliseconds.map { Double($0) }
        }
        gauges("distribkv_shard_ack_waiting", "Writes that wait for followers now.", views) {
            $0.role.isLeader ? Double($0.acks.held) : nil
        }
    }

    /// A gauge for each replica that is served, labelled with the role it has now.
    /// - Parameter value: nil where there is nothing to show of the replica.
    private func gauges(
        _ name: String, _ help: String, _ views: NodeViews, _ value: @escaping @Sendable (ShardReplica) -> Double?
    ) {
        registry.gauges(name, help: help) {
            let view = views.current
            return view.topology.shards.indices.compactMap { position in
                guard let replica = view.replicas[position], let value = value(replica) else { return nil }
                let role = view.leads[position] ? "leader" : "follower"
                return MetricsRegistry.Reading(
                    labels: ["shard": view.topology.shards[position].name, "role": role], value: value)
            }
        }
    }
}
