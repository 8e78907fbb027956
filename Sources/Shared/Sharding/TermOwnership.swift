public import Core

/// Whose the terms are: every term of a shard belongs to one of its replicas, and only that may lead it.
extension ShardTopology {
    /// The most replicas a shard may have, its leader counted: so many owners the terms are shared among.
    public static let replicasMax = 16

    /// The lowest term above `seen` that belongs to `candidate`.
    ///
    /// Two replicas that are promoted by force in two halves of a partition know nothing of each other. With one term
    /// for both, each half would take the other's leader for its own, and a position would no longer name one batch.
    /// So each of the ``replicasMax`` classes of terms modulo ``replicasMax`` belongs to one replica at the most.
    ///
    /// A replica's class is one of its own, from a hash of its address. Where that is taken by a replica whose address
    /// sorts before, it is the next that is free. As long as both halves know the same replicas, which is the rule, no
    /// two have one class. The place among the sorted addresses would do that as well, but moves when a replica before
    /// it is added or removed: halves that disagree about one replica would then disagree about most classes. Like
    /// this they disagree only about a replica that had to give way to the very one that only one half knows, and even
    /// then it takes two forced promotions and equal terms for harm: the batches of the loser are found out by their
    /// versions and saved, as those of any replica that has diverged, and the leader begins a newer term when a
    /// replica refuses it.
    ///
    /// `candidate` must be one of ``replicas``, which ``Topology`` limits to ``replicasMax``.
    public func nextTerm(of candidate: NodeAddress, above seen: UInt64) -> UInt64 {
        let classes = UInt64(ShardTopology.replicasMax)
        // What comes from other nodes may be any number; terms that large are refused by every replica.
        let lowest = min(seen, .max - 2 * classes) + 1
        return lowest + (termClass(of: candidate) + classes - lowest % classes) % classes
    }

    private func termClass(of candidate: NodeAddress) -> UInt64 {
        precondition(
            replicas.contains(candidate) && replicas.count <= ShardTopology.replicasMax,
            "\(candidate) is one of at most \(ShardTopology.replicasMax) replicas")
        let classes = UInt64(ShardTopology.replicasMax)
        var taken: Set<UInt64> = []
        for replica in replicas.sorted() {
            var own = ConsistentHashRing.place(name: replica.description, index: 0) % classes
            while taken.contains(own) { own = (own + 1) % classes }
            if replica == candidate { return own }
            taken.insert(own)
        }
        preconditionFailure("the candidate is a replica")
    }
}
