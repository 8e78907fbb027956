public import Core

/// A shard before it owns slots: its name, number and the nodes that serve it.
public struct ShardPlacement: Hashable, Sendable {
    public var name: String
    /// The `idx` of sharding.toml.
    public var index: Int
    public var leader: NodeAddress
    public var followers: [NodeAddress]

    public init(name: String, index: Int, leader: NodeAddress, followers: [NodeAddress]) {
        self.name = name
        self.index = index
        self.leader = leader
        self.followers = followers
    }
}

extension Topology {
    /// The topology that placements written down by a person describe: shards by rising index, slots from
    /// ``ConsistentHashRing``.
    ///
    /// Every shard's term is `epoch`. A term rises only together with the epoch, so no term of an older epoch is
    /// higher: whoever leads now is above every earlier leader, and no process needs to know the history.
    /// The same arguments give the same document on every machine and in every version.
    /// Throws `KVError(.invalidData)` where there is no shard or an invariant of ``Topology`` does not hold.
    public static func placing(cluster: String, epoch: UInt64, shards placements: [ShardPlacement]) throws -> Topology {
        let placements = placements.sorted { $0.index < $1.index }
        let names = placements.map(\.name)
        guard !names.isEmpty, Set(names).count == names.count, names.count <= ConsistentHashRing.shardsMax else {
            throw KVError(
                .invalidData,
                "a topology has 1 to \(ConsistentHashRing.shardsMax) shards, each with a name of its own")
        }
        let ranges = SlotRange.ranges(of: ConsistentHashRing.assign(shards: names), shards: names.count)
        return try Topology(
            cluster: cluster, epoch: epoch,
            shards: placements.enumerated().map { position, placement in
                ShardTopology(
                    name: placement.name, index: placement.index, term: epoch, leader: placement.leader,
                    followers: placement.followers, slots: ranges[position])
            })
    }
}

extension SlotRange {
    /// Joins neighbouring slots of one owner.
    /// - Parameter table: slot → position of its shard, 16,384 entries.
    /// - Returns: for every shard its ranges, ascending and not touching each other.
    static func ranges(of table: [UInt16], shards: Int) -> [[SlotRange]] {
        var ranges = [[SlotRange]](repeating: [], count: shards)
        var first = 0
        for slot in 1...table.count where slot == table.count || table[slot] != table[first] {
            ranges[Int(table[first])].append(
                SlotRange(first: HashSlot(rawValue: UInt16(first)), last: HashSlot(rawValue: UInt16(slot - 1))))
            first = slot
        }
        return ranges
    }
}
