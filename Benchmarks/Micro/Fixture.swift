import Core
import NIOCore
import Sharding

/// What the benchmarks work on: the same in every run.
enum Fixture {
    static let keyMask = 255
    static let keys = (0...keyMask).map { number in
        let digits = String(number * 390_625)
        return ByteBuffer(string: "key-" + String(repeating: "0", count: 8 - digits.count) + digits)
    }
    static let value = ByteBuffer(bytes: (0..<100).map { UInt8(97 + $0 * 7 % 26) })

    /// Shards of two replicas each, on as many nodes as there are shards.
    static func topology(shards count: Int) throws -> Topology {
        let names = (0..<count).map { "shard-\($0)" }
        let owners = ConsistentHashRing.assign(shards: names)
        var slots = [[SlotRange]](repeating: [], count: count)
        var first = 0
        for slot in 1...HashSlot.count where slot == HashSlot.count || owners[slot] != owners[first] {
            slots[Int(owners[first])].append(
                SlotRange(
                    first: HashSlot(rawValue: UInt16(first)), last: HashSlot(rawValue: UInt16(slot - 1))))
            first = slot
        }
        let shards = names.indices.map { index in
            ShardTopology(
                name: names[index], index: index, term: 1, leader: address(index),
                followers: [address((index + 1) % max(count, 2))], slots: slots[index])
        }
        return try Topology(cluster: "benchmark", epoch: 1, shards: shards)
    }

    static func address(_ index: Int) -> NodeAddress { NodeAddress(host: "127.0.0.1", port: 7_001 + index) }
}
