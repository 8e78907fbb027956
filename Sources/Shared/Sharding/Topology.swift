public import Core

/// A closed range of slots, `first...last`.
public struct SlotRange: Hashable, Sendable {
    public let first: HashSlot
    public let last: HashSlot

    public init(first: HashSlot, last: HashSlot) {
        precondition(first <= last, "a slot range runs upwards")
        self.first = first
        self.last = last
    }
}

/// One shard in a topology: who serves which slots.
public struct ShardTopology: Hashable, Sendable, Codable {
    public var name: String
    /// The `idx` of sharding.toml.
    public var index: Int
    /// Rises with every change of leader, by up to ``replicasMax``; the first term is 1.
    public var term: UInt64
    public var leader: NodeAddress
    public var followers: [NodeAddress]
    /// In ascending order, not touching each other.
    public var slots: [SlotRange]

    public init(
        name: String, index: Int, term: UInt64, leader: NodeAddress, followers: [NodeAddress], slots: [SlotRange]
    ) {
        self.name = name
        self.index = index
        self.term = term
        self.leader = leader
        self.followers = followers
        self.slots = slots
    }

    enum CodingKeys: String, CodingKey {
        case name
        case index = "idx"
        case term, leader, followers, slots
    }

    /// Leader first.
    public var replicas: [NodeAddress] { [leader] + followers }
}

/// The versioned document every role shares: which shard owns a slot and which nodes serve the shard.
///
/// Immutable. Invariants: at least one shard; every slot belongs to exactly one shard; shard names and
/// indexes are unique; no address stands twice in one shard; a shard has at most ``ShardTopology/replicasMax``
/// replicas.
public struct Topology: Sendable, Hashable {
    public let cluster: String
    /// Rises with every change: by one, or to the new term of a shard; the highest one seen wins.
    public let epoch: UInt64
    public let shards: [ShardTopology]
    /// slot → position in `shards`; derived from `shards`.
    @usableFromInline let table: [UInt16]

    /// Throws `KVError(.invalidData)` where an invariant does not hold.
    public init(cluster: String, epoch: UInt64, shards: [ShardTopology]) throws {
        self.cluster = cluster
        self.epoch = epoch
        self.shards = shards
        self.table = try Topology.slotTable(of: shards)
    }

    /// The position in ``shards`` of the shard that owns `slot`: one array read.
    @inlinable public func position(of slot: HashSlot) -> Int { Int(table[Int(slot.rawValue)]) }

    public func shard(of slot: HashSlot) -> ShardTopology { shards[position(of: slot)] }

    public func shard(named name: String) -> ShardTopology? { shards.first { $0.name == name } }

    /// Every node that serves a shard, each once, sorted.
    public var nodes: [NodeAddress] { Set(shards.flatMap(\.replicas)).sorted() }

    private static func slotTable(of shards: [ShardTopology]) throws -> [UInt16] {
        func refuse(_ message: String) -> KVError { KVError(.invalidData, "invalid topology: \(message)") }
        guard !shards.isEmpty else { throw refuse("it has no shard") }
        guard Set(shards.map(\.name)).count == shards.count else { throw refuse("two shards share a name") }
        guard Set(shards.map(\.index)).count == shards.count else { throw refuse("two shards share an index") }
        for shard in shards {
            guard Set(shard.replicas).count == shard.replicas.count else {
                throw refuse("an address stands twice in shard \(shard.name)")
            }
            guard shard.replicas.count <= ShardTopology.replicasMax else {
                throw refuse(
                    "shard \(shard.name) has \(shard.replicas.count) replicas, at most \(ShardTopology.replicasMax) "
                        + "are allowed")
            }
        }
        // By ranges and not slot by slot, which takes milliseconds in a debug build.
        var runs: [(first: Int, count: Int, position: UInt16)] = []
        for (position, shard) in shards.enumerated() {
            for range in shard.slots {
                let first = Int(range.first.rawValue)
                runs.append((first, Int(range.last.rawValue) - first + 1, UInt16(position)))
            }
        }
        runs.sort { $0.first < $1.first }
        var next = 0
        for run in runs {
            guard run.first >= next else { throw refuse("slot \(run.first) belongs to two shards") }
            guard run.first == next else { throw refuse("slot \(next) belongs to no shard") }
            next += run.count
        }
        guard next == HashSlot.count else { throw refuse("slot \(next) belongs to no shard") }
        // The runs stand back to back from the first slot to the last, so each lies within.
        return [UInt16](unsafeUninitializedCapacity: HashSlot.count) { table, count in
            for run in runs {
                table[run.first..<run.first + run.count].initialize(repeating: run.position)
            }
            count = HashSlot.count
        }
    }

    // MARK: Comparing

    // Without the table, which follows from the shards and is most of the bytes.

    public static func == (left: Topology, right: Topology) -> Bool {
        left.epoch == right.epoch && left.cluster == right.cluster && left.shards == right.shards
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(cluster)
        hasher.combine(epoch)
        hasher.combine(shards)
    }
}
