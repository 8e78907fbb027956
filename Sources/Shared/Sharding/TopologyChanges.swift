public import Core

extension Topology {
    /// Whether this document replaces `other`: the higher epoch, and between two of one epoch the one whose
    /// document is greater byte by byte, so that nodes that were told two different ones end with the same.
    public func supersedes(_ other: Topology) throws -> Bool {
        if epoch != other.epoch { return epoch > other.epoch }
        guard self != other else { return false }
        return try other.json().lexicographicallyPrecedes(json())
    }

    /// The next epoch's topology with one more follower; nil where `node` holds a replica of the shard already.
    ///
    /// Throws `KVError(.notFound)` where there is no such shard.
    public func adding(_ node: NodeAddress, to shard: String) throws -> Topology? {
        let position = try position(ofShardNamed: shard)
        guard !shards[position].replicas.contains(node) else { return nil }
        return try changing(position) { $0.followers.append(node) }
    }

    /// The next epoch's topology without that follower; nil where `node` holds no replica of the shard.
    ///
    /// Throws `KVError(.notFound)` where there is no such shard, `.invalidArgument` where `node` leads it.
    public func removing(_ node: NodeAddress, from shard: String) throws -> Topology? {
        let position = try position(ofShardNamed: shard)
        guard shards[position].leader != node else {
            throw KVError(
                .invalidArgument, "\(node) leads \(shard): move the leadership first with kv failover \(shard) --to")
        }
        guard shards[position].followers.contains(node) else { return nil }
        return try changing(position) { $0.followers.removeAll { $0 == node } }
    }

    /// The topology in which `node` leads the shard and the leader so far follows. Epoch and term become one number
    /// above everything seen.
    /// - Parameter newestTerm: the highest term that any replica of the shard has seen.
    ///
    /// Throws `KVError(.notFound)` where there is no such shard or `node` holds no replica of it.
    public func promoting(_ node: NodeAddress, in shard: String, above newestTerm: UInt64) throws -> Topology {
        let position = try position(ofShardNamed: shard)
        guard shards[position].replicas.contains(node) else {
            throw KVError(.notFound, "\(node) holds no replica of \(shard)")
        }
        let next = max(epoch, newestTerm) + 1
        return try changing(position, epoch: next) { shard in
            shard.term = next
            guard shard.leader != node else { return }
            shard.followers = shard.followers.map { $0 == node ? shard.leader : $0 }
            shard.leader = node
        }
    }

    private func changing(
        _ position: Int, epoch next: UInt64? = nil, _ change: (inout ShardTopology) -> Void
    ) throws -> Topology {
        var shards = shards
        change(&shards[position])
        return try Topology(cluster: cluster, epoch: next ?? epoch + 1, shards: shards)
    }

    private func position(ofShardNamed name: String) throws -> Int {
        guard let position = shards.firstIndex(where: { $0.name == name }) else {
            let known = shards.map(\.name).joined(separator: ", ")
            throw KVError(.notFound, "there is no shard \(name.prefix(64)); there are \(known)")
        }
        return position
    }
}
