/// Assigns slots to shards by consistent hashing with bounded loads.
///
/// Every shard has ``pointsPerShard`` points on a ring of 2^64 positions; slot `s` stands at `s · 2^50`, so a
/// shard owns contiguous arcs of the slot space. Slots are taken in ascending order; each goes to the shard of
/// the first point at or after it whose shard is not full yet. Full is 1.10 × the mean: the overflow of an arc
/// goes on to the next shard of the ring, and so no shard gets much more than its share.
///
/// Only the names decide. Their order settles nothing but two points on one position. The result is part of
/// the contract: it may never differ between machines or versions, and golden digests in the tests hold it.
///
/// Karger et al., "Consistent Hashing and Random Trees", 1997; Mirrokni, Thorup and Zadimoghaddam, "Consistent
/// Hashing with Bounded Loads", 2018. Why these figures: `docs/adr/0004-consistent-hashing.md`.
public enum ConsistentHashRing {
    /// More shards than this are refused by `sharding.toml`. Balance and stability are verified up to 64.
    public static let shardsMax = 1_024
    static let pointsPerShard = 320
    /// The largest share of a shard, in percent of the mean.
    static let loadPercentMax = 110

    /// slot → position in `names`, 16,384 entries.
    ///
    /// Traps where there is no name, where two are equal, or where there are more than ``shardsMax``.
    public static func assign(shards names: [String]) -> [UInt16] {
        precondition(!names.isEmpty && names.count <= shardsMax, "1 to \(shardsMax) shards")
        precondition(Set(names).count == names.count, "two shards share a name")
        let ring = points(of: names)
        let slotsMax = max(
            HashSlot.count * loadPercentMax / (100 * names.count), (HashSlot.count + names.count - 1) / names.count)
        var owned = [Int](repeating: 0, count: names.count)
        var next = 0
        return (0..<HashSlot.count).map { slot in
            let place = UInt64(slot) << 50
            while next < ring.count, ring[next].place < place { next += 1 }
            var candidate = next % ring.count
            // Ends: slotsMax × shards ≥ slots, so some shard still has room.
            while owned[Int(ring[candidate].shard)] == slotsMax { candidate = (candidate + 1) % ring.count }
            let shard = ring[candidate].shard
            owned[Int(shard)] += 1
            return shard
        }
    }

    struct Point {
        let place: UInt64
        let shard: UInt16
    }

    /// All points in ring order.
    private static func points(of names: [String]) -> [Point] {
        var points: [Point] = []
        points.reserveCapacity(names.count * pointsPerShard)
        for (position, name) in names.enumerated() {
            for index in 0..<pointsPerShard {
                points.append(Point(place: place(name: name, index: index), shard: UInt16(position)))
            }
        }
        return points.sorted { ($0.place, $0.shard) < ($1.place, $1.shard) }
    }

    /// Where point `index` of the shard called `name` stands.
    ///
    /// FNV-1a (64 bits) over the name's UTF-8, then the `index`-th output of SplitMix64 from that seed, its first
    /// output being index 0: all arithmetic modulo 2^64.
    static func place(name: String, index: Int) -> UInt64 {
        var seed: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in name.utf8 { seed = (seed ^ UInt64(byte)) &* 0x100_0000_01B3 }
        var mixed = seed &+ UInt64(index + 1) &* 0x9E37_79B9_7F4A_7C15
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
