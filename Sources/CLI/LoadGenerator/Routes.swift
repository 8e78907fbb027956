import Core
import Sharding

/// Where the keys of a topology are served, by numbers of nodes. Belongs to one loop.
struct Routes {
    struct Shard {
        var leader: Int
        /// The leader among them.
        var replicas: [Int]
        /// Which replica was read last.
        var turn = 0
    }

    let epoch: UInt64
    private let topology: Topology
    private(set) var shards: [Shard]
    /// Every node that serves a shard.
    let nodes: [Int]

    /// - Parameter number: the number of a node; nil where it cannot be reached at all.
    init(_ topology: Topology, number: (NodeAddress) -> Int?) {
        self.topology = topology
        epoch = topology.epoch
        shards = topology.shards.map { shard in
            let replicas = shard.replicas.compactMap(number)
            return Shard(leader: number(shard.leader) ?? -1, replicas: replicas)
        }
        nodes = topology.nodes.compactMap(number)
    }

    /// The position of the shard that owns `key`.
    func position(of key: UnsafeRawBufferPointer) -> Int {
        shards.count == 1 ? 0 : topology.position(of: HashSlot(key: key))
    }

    /// -1 where no node is known.
    func leader(_ position: Int) -> Int { shards[position].leader }

    mutating func nextReplica(_ position: Int) -> Int {
        let count = shards[position].replicas.count
        guard count > 0 else { return -1 }
        shards[position].turn = shards[position].turn + 1 < count ? shards[position].turn + 1 : 0
        return shards[position].replicas[shards[position].turn]
    }

    /// A node redirected a write, or a read that the leader has to answer: until a newer topology is known.
    mutating func learn(leader node: Int, of position: Int) { shards[position].leader = node }
}
