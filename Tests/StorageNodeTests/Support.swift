import Core
import Sharding
import Wire

let n1 = NodeAddress(host: "127.0.0.1", port: 1)
let n2 = NodeAddress(host: "127.0.0.1", port: 2)
let n3 = NodeAddress(host: "127.0.0.1", port: 3)

/// A topology of shards `s0`, `s1`, … that share the slots evenly.
func makeTopology(
    epoch: UInt64 = 1, cluster: String = "test", _ shards: [(term: UInt64, replicas: [NodeAddress])]
) throws -> Topology {
    let each = HashSlot.count / shards.count
    return try Topology(
        cluster: cluster, epoch: epoch,
        shards: shards.enumerated().map { position, shard in
            let last = position == shards.count - 1 ? HashSlot.count - 1 : (position + 1) * each - 1
            return ShardTopology(
                name: "s\(position)", index: position, term: shard.term, leader: shard.replicas[0],
                followers: Array(shard.replicas.dropFirst()),
                slots: [
                    SlotRange(
                        first: HashSlot(rawValue: UInt16(position * each)), last: HashSlot(rawValue: UInt16(last)))
                ])
        })
}

func position(_ term: UInt64, _ lsn: UInt64) -> LogPosition {
    LogPosition(term: term, lsn: lsn, version: Version(rawValue: lsn << 16 | 1))
}
