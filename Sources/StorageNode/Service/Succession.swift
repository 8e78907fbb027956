import Core
import Logging
import Shard
import Sharding
import Wire

/// Asks a follower that has more of a shard than this node, which was to lead it, to lead instead: as `kv failover` does
/// without `--force`, so that nothing which another replica has is lost.
struct Succession {
    private let node: Node
    /// What was said last of each shard, so that it is said once.
    private var told: [String: String] = [:]

    init(node: Node) { self.node = node }

    /// Looks after the shards that the topology has this node lead and that it does not lead.
    mutating func round() async {
        let waiting = zip(node.view.topology.shards, node.view.replicas).filter { shard, replica in
            shard.leader == node.address && replica.map { $0.isJoining } ?? false
        }
        told = told.filter { name, _ in waiting.contains { shard, _ in shard.name == name } }
        for case (let shard, let replica?) in waiting { await ask(shard, replica) }
    }

    private mutating func ask(_ shard: ShardTopology, _ replica: ShardReplica) async {
        let histories = await node.peers.histories(ofShard: shard.name, at: shard.followers)
        guard let most = histories.max(by: { $0.history.end < $1.history.end }), replica.position < most.history.end
        else {
            return tell(shard, "no follower that answers has more of the shard: start the others")
        }
        do throws(PeerFailure) {
            let request = PromoteRequest(epoch: node.view.topology.epoch, force: false)
            try await node.peers.promote(request, ofShard: shard.name, at: most.node)
            node.logger.notice(
                "the follower that has more leads the shard now",
                metadata: ["shard": "\(shard.name)", "leader": "\(most.node)", "lsn": "\(most.history.end.lsn)"])
        } catch {
            tell(shard, "\(most.node) does not lead it: \(error)")
        }
    }

    private mutating func tell(_ shard: ShardTopology, _ reason: String) {
        guard told.updateValue(reason, forKey: shard.name) != reason else { return }
        node.logger.warning(
            "nobody leads the shard: this node has lost the end of it",
            metadata: ["shard": "\(shard.name)", "reason": "\(reason)"])
    }
}
