/// Assigns slots to shards.
public enum ConsistentHashRing {
    /// slot → position in `names`, 16,384 entries.
    public static func assign(shards names: [String]) -> [UInt16] {
        (0..<HashSlot.count).map { UInt16($0 * names.count / HashSlot.count) }
    }
}
