import Core
import HTTPServer
import ServiceSupport
import Shard
import Sharding
import Wire

extension NodeView {
    /// The answer to `GET /readyz`.
    ///
    /// Ready while every open replica takes what its role lets it take, and at least one of them serves reads. One that
    /// is new or being rebuilt redirects its reads to the leader, and the node's other shards need not suffer from it.
    /// A damaged one serves what it can, and says no all the same.
    var readiness: HTTPResponse {
        var serving = 0
        var waiting: [String] = []
        for (position, shard) in topology.shards.enumerated() {
            if let replica = replicas[position] {
                if let failure = replica.failure {
                    return NodeView.notReady("Shard \(shard.name) takes no writes: \(failure)")
                }
                if let damage = replica.damage {
                    return NodeView.notReady("The replica of shard \(shard.name) is damaged: \(damage)")
                }
                if let failure = replica.background.failure {
                    return NodeView.notReady("Shard \(shard.name) will stop taking writes: \(failure)")
                }
                if replica.isJoining {
                    waiting.append(NodeView.progress(of: replica, named: shard.name))
                } else {
                    serving += 1
                }
                continue
            }
            switch absences[position] {
            case nil: continue
            case .installing: waiting.append("\(shard.name) is being rebuilt")
            case .failed: return HTTPResponse(problem: absence(ofShardNamed: shard.name))
            }
        }
        if serving > 0 { return HTTPResponse(text: "ok") }
        guard !waiting.isEmpty else { return NodeView.notReady("This node is no replica of any shard.") }
        return NodeView.notReady("This node serves no reads yet: \(waiting.joined(separator: "; ")).")
    }

    private static func notReady(_ detail: String) -> HTTPResponse {
        HTTPResponse(problem: Problem(.unavailable, detail))
    }

    private static func progress(of replica: ShardReplica, named name: String) -> String {
        guard let seen = replica.freshness.leaderLastSeen else {
            return "\(name) waits for the replicator to bring its leader's log"
        }
        return "\(name) has \(replica.position.lsn) of its leader's \(seen.lsn) batches"
    }
}
