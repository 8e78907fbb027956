import Synchronization

/// A replica's role and newest term where every thread can read them without a lock; written by the writer's thread.
final class PublishedRole: Sendable {
    private let packed: Atomic<UInt64>
    private let newest: Atomic<UInt64>

    init(_ role: ShardRole) {
        packed = Atomic(PublishedRole.pack(role))
        newest = Atomic(role.term)
    }

    var role: ShardRole {
        get {
            let packed = packed.load(ordering: .acquiring)
            return packed & 1 == 1 ? .leader(term: packed >> 1) : .follower(term: packed >> 1)
        }
        set { packed.store(PublishedRole.pack(newValue), ordering: .releasing) }
    }

    var newestTerm: UInt64 {
        get { newest.load(ordering: .acquiring) }
        set { newest.store(newValue, ordering: .releasing) }
    }

    /// Terms stay below ``ShardRole/termMax``, so the lowest bit is free.
    private static func pack(_ role: ShardRole) -> UInt64 { role.term << 1 | (role.isLeader ? 1 : 0) }
}
