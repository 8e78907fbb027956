import Core
import Shard
import Sharding
import Wire

/// What a node does about a topology that it is shown. Decides, does nothing.
///
/// Invariants: only a topology that supersedes the current one is adopted; it is saved before anything is done by it;
/// a shard's term never goes back.
struct TopologyAdoption {
    /// Of this node.
    var address: NodeAddress
    var current: Topology
    /// The roles of the replicas that are open, by the names of their shards.
    var roles: [String: ShardRole]
    /// The shards whose replica is this node's and could not be opened. A topology does not mend that, so that it is not
    /// tried again: the next start does, or whoever rebuilds the replica.
    var absent: Set<String> = []

    enum Decision: Equatable {
        /// The sender is told why.
        case refuse(Problem)
        /// It is the current one, or an older one.
        case ignore
        case adopt([Step])
    }

    /// To be done in their order.
    enum Step: Equatable {
        /// Saves the topology, durably.
        case persist
        /// Takes no writes any more, or takes batches of a newer term.
        case follow(shard: String, term: UInt64)
        /// Opens a replica that was not served here, in the role the topology says.
        case open(shard: String)
        /// Begins a term. Where the replica has promised that term elsewhere it goes on following.
        case lead(shard: String, term: UInt64)
        /// Serves by the topology; returns when every event loop does.
        case publish
        /// Closes a replica that is not this node's any more, and keeps its files.
        case close(shard: String)
    }

    func decide(on incoming: Topology) throws -> Decision {
        guard incoming.cluster == current.cluster else {
            return .refuse(
                Problem(
                    .badRequest,
                    "This topology is of cluster \"\(incoming.cluster)\", but this node belongs to cluster "
                        + "\"\(current.cluster)\"."))
        }
        guard try incoming.supersedes(current) else { return .ignore }
        if let known = TopologyAdoption.shardThatGoesBack(from: current, to: incoming),
            let shown = incoming.shard(named: known.name)
        {
            return .refuse(
                Problem(
                    .staleTerm,
                    "This topology of epoch \(incoming.epoch) has \(known.name) in term \(shown.term), but "
                        + "\(known.leader) leads it in term \(known.term): start from GET \(APIPath.topology)."))
        }
        return .adopt(steps(to: incoming))
    }

    /// What to decide on where `shown` is what somebody else has: that, or what is made of it and the current one where
    /// both have one epoch.
    func incoming(_ shown: Topology) throws -> Topology {
        guard shown.epoch == current.epoch else { return shown }
        return try TopologyAdoption.reconciled(current, shown) ?? shown
    }

    /// A shard, as `current` has it, whose term is lower in `incoming`.
    private static func shardThatGoesBack(from current: Topology, to incoming: Topology) -> ShardTopology? {
        current.shards.first { known in
            incoming.shard(named: known.name).map { $0.term < known.term } ?? false
        }
    }

    private func steps(to incoming: Topology) -> [Step] {
        var follow: [Step] = []
        var open: [Step] = []
        var lead: [Step] = []
        for shard in incoming.shards where shard.replicas.contains(address) {
            guard let role = roles[shard.name] else {
                if !absent.contains(shard.name) { open.append(.open(shard: shard.name)) }
                continue
            }
            let wanted: ShardRole =
                shard.leader == address ? .leader(term: shard.term) : .follower(term: shard.term)
            guard role != wanted else { continue }
            if wanted.isLeader {
                lead.append(.lead(shard: shard.name, term: shard.term))
            } else if role.isLeader || shard.term > role.term {
                follow.append(.follow(shard: shard.name, term: shard.term))
            }
        }
        let close = roles.keys.sorted().filter { name in
            !(incoming.shard(named: name)?.replicas.contains(address) ?? false)
        }
        // Who stops leading does so before anybody is sent to the new leader; a replica is closed only when no
        // event loop uses it.
        return [.persist] + follow + open + lead + [.publish] + close.map { .close(shard: $0) }
    }

    /// The topology that both of two lead to, where neither will do: made while their makers could not talk, they have
    /// one epoch, or each moves the leader of another shard, so that neither can be adopted by whoever has the other.
    /// Every shard is as the one with its higher term has it, else as the superseding one.
    ///
    /// Its epoch is above both, so that those who look at epochs alone, as routers, clients and the replicator do, learn
    /// of it whichever of the two they have. Whoever meets the two makes the same one of them. Nil where one of the two
    /// will do.
    static func reconciled(_ own: Topology, _ other: Topology) throws -> Topology? {
        guard own.cluster == other.cluster, own != other else { return nil }
        let (newer, older) = try own.supersedes(other) ? (own, other) : (other, own)
        guard newer.epoch == older.epoch || shardThatGoesBack(from: older, to: newer) != nil else { return nil }
        let shards = newer.shards.map { shard in
            guard let known = older.shard(named: shard.name), known.term > shard.term else { return shard }
            var merged = shard
            merged.term = known.term
            merged.leader = known.leader
            merged.followers = known.followers
            return merged
        }
        return try Topology(cluster: own.cluster, epoch: newer.epoch + 1, shards: shards)
    }
}
