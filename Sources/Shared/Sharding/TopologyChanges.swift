public import Core

extension Topology {
    /// Whether this document replaces `other`: the higher epoch, or at one epoch the higher term of the first shard, by
    /// name, whose terms differ; where they differ in neither, the document that is greater byte by byte. So nodes that
    /// were told two different ones end with the same.
    public func supersedes(_ other: Topology) throws -> Bool {
        if epoch != other.epoch { return epoch > other.epoch }
        guard self != other else { return false }
        for shard in shards.sorted(by: { $0.name < $1.name }) {
            guard let theirs = other.shard(named: shard.name), theirs.term != shard.term else { continue }
            return shard.term > theirs.term
        }
        return try other.json().lexicographicallyPrecedes(json())
    }

    /// The next epoch's topology with one more follower; nil where `node` holds a replica of the shard already.
    ///
    /// Throws `KVError(.notFound)` where there is no such shard, `.invalidArgument` where it has
    /// ``ShardTopology/replicasMax`` replicas.
    public func adding(_ node: NodeAddress, to shard: String) throws -> Topology? {
        let position = try position(ofShardNamed: shard)
        let replicas = shards[position].replicas
        guard !replicas.contains(node) else { return nil }
        guard replicas.count < ShardTopology.replicasMax else {
            throw KVError(
                .invalidArgument,
                "\(shard) has \(replicas.count) replicas, as many as a shard may have: remove one first")
        }
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

    /// The topology in which `node` leads the shard and the leader so far follows. Epoch and term become one number:
    /// the lowest above everything seen that is a term of `node`, see ``ShardTopology/nextTerm(of:above:)``.
    /// - Parameter newestTerm: the highest term that any replica of the shard has seen.
    ///
    /// Throws `KVError(.notFound)` where there is no such shard or `node` holds no replica of it.
    public func promoting(_ node: NodeAddress, in shard: String, above newestTerm: UInt64) throws -> Topology {
        let position = try position(ofShardNamed: shard)
        guard shards[position].replicas.contains(node) else {
            throw KVError(.notFound, "\(node) holds no replica of \(shard)")
        }
        let next = shards[position].nextTerm(of: node, above: max(epoch, newestTerm))
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
