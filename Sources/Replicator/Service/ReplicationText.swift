import Core
import Wire

/// The metrics that come and go with the topology: what stands in ``ReplicatorStatus``, in the Prometheus text
/// format. A registry keeps what it once registered, so these are written from the status.
enum ReplicationText {
    private typealias Sample = (labels: String, value: String)

    static func render(_ shards: [ReplicatorStatus.Shard]) -> String {
        func perShard(_ value: (ReplicatorStatus.Shard) -> UInt64) -> [Sample] {
            shards.map { ("{shard=\(quote($0.name))}", "\(value($0))") }
        }
        func perFollower(_ value: (ReplicatorStatus.Follower) -> UInt64) -> [Sample] {
            shards.flatMap { shard in
                shard.followers.map {
                    ("{follower=\(quote($0.address.description)),shard=\(quote(shard.name))}", "\(value($0))")
                }
            }
        }
        return family("leader_up", "1 while the leader can be read.", perShard { $0.leaderError == nil ? 1 : 0 })
            + family("leader_lsn", "The last lsn the leader reported.", perShard(\.leaderLsn))
            + family("follower_lsn", "The last lsn the follower reported.", perFollower(\.lsn))
            + family("lag_batches", "Batches the leader has and the follower has not.", perFollower(\.lagBatches))
            + family("bytes_in_flight", "Bytes held for the follower.", perFollower { UInt64($0.bytesInFlight) })
            + family(
                "needs_snapshot", "1 while the log cannot feed the follower.",
                perFollower { $0.state == .needsSnapshot || $0.state == .snapshot ? 1 : 0 })
            + family(
                "snapshot_bytes_done", "Bytes that the follower has of the snapshot it is rebuilt from.",
                perFollower { $0.snapshot?.bytesDone ?? 0 })
            + family(
                "snapshot_bytes_total", "Bytes of the snapshot the follower is rebuilt from; 0 while there is none.",
                perFollower { $0.snapshot?.bytesTotal ?? 0 })
    }

    private static func family(_ name: String, _ help: String, _ samples: [Sample]) -> String {
        let name = "distribkv_replicator_\(name)"
        return samples.reduce("# HELP \(name) \(help)\n# TYPE \(name) gauge\n") {
            $0 + "\(name)\($1.labels) \($1.value)\n"
        }
    }

    /// A label value: backslash, quote and line feed escaped.
    private static func quote(_ value: String) -> String {
        let escaped = value.unicodeScalars.map { scalar in
            switch scalar {
            case "\\": "\\\\"
            case "\"": "\\\""
            case "\n": "\\n"
            default: String(scalar)
            }
        }
        return "\"\(escaped.joined())\""
    }
}
