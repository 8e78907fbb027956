import Core
import Wire

/// `GET /metrics` in the Prometheus text format, version 0.0.4.
enum PrometheusText {
    static let mediaType = "text/plain; version=0.0.4; charset=utf-8"

    static func render(_ status: ReplicatorStatus, _ totals: ReplicatorMetrics.Totals) -> String {
        var text = ""
        func family(_ name: String, _ kind: String, _ help: String, _ samples: [(labels: String, value: String)]) {
            text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind)\n"
            for sample in samples { text += "\(name)\(sample.labels) \(sample.value)\n" }
        }
        func counter(_ name: String, _ help: String, _ value: UInt64) {
            family(name, "counter", help, [("", String(value))])
        }
        func perFollower(
            _ name: String, _ help: String, _ value: (ReplicatorStatus.Follower) -> String
        ) {
            family(
                name, "gauge", help,
                status.shards.flatMap { shard in
                    shard.followers.map {
                        ("{shard=\(quote(shard.name)),follower=\(quote($0.address.description))}", value($0))
                    }
                })
        }
        func perShard(_ name: String, _ help: String, _ value: (ReplicatorStatus.Shard) -> String) {
            family(name, "gauge", help, status.shards.map { ("{shard=\(quote($0.name))}", value($0)) })
        }

        family("distribkv_topology_epoch", "gauge", "Epoch of the topology in use.", [("", String(status.epoch))])
        family("distribkv_uptime_seconds", "gauge", "Time since start.", [("", String(status.uptimeSeconds))])
        counter("distribkv_replicator_fetches_total", "Answers of leaders that held batches.", totals.fetches)
        counter("distribkv_replicator_fetched_bytes_total", "Bytes of log frames read.", totals.fetchedBytes)
        counter("distribkv_replicator_pushes_total", "Requests that followers stored.", totals.pushes)
        counter("distribkv_replicator_pushed_batches_total", "Log batches that followers stored.", totals.pushedFrames)
        counter("distribkv_replicator_pushed_bytes_total", "Bytes of log frames that followers stored.", totals.pushedBytes)
        counter("distribkv_replicator_push_failures_total", "Pushes that failed or were refused.", totals.pushFailures)
        perShard("distribkv_replicator_leader_up", "1 while the leader can be read.") { $0.leaderError == nil ? "1" : "0" }
        perShard("distribkv_replicator_leader_lsn", "Last lsn the leader reported.") { String($0.leaderLsn) }
        perFollower("distribkv_replicator_follower_lsn", "Last lsn the follower reported.") { String($0.lsn) }
        perFollower("distribkv_replicator_lag_batches", "Batches the follower has not applied.") { String($0.lagBatches) }
        perFollower("distribkv_replicator_bytes_in_flight", "Bytes held for the follower.") { String($0.bytesInFlight) }
        perFollower("distribkv_replicator_needs_snapshot", "1 while it cannot be fed from the log.") {
            $0.state == .needsSnapshot ? "1" : "0"
        }
        return text
    }

    /// A label value: backslash, quote and line feed escaped.
    private static func quote(_ value: String) -> String {
        var quoted = "\""
        for character in value {
            switch character {
            case "\\": quoted += "\\\\"
            case "\"": quoted += "\\\""
            case "\n": quoted += "\\n"
            default: quoted.append(character)
            }
        }
        return quoted + "\""
    }
}
