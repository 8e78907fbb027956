import Core
import Sharding

/// How a node compares topologies with its peers: every second or so it asks one of them. Decides, does nothing.
struct Gossip {
    /// From one question to the next, a fifth more or less at random.
    static let intervalMilliseconds: Int64 = 1_000

    /// Of this node.
    let address: NodeAddress

    /// What a peer said when it was asked for a topology other than ours.
    enum Answer {
        case same
        case topology(Topology)
        case silence
    }

    enum Action: Equatable {
        case nothing
        /// It is newer than ours, or made of both.
        case adopt(Topology)
        /// Ours is newer: the peer is to have it.
        case tell
        /// Not of this cluster.
        case complain(String)
    }

    func pauseMilliseconds(_ random: inout some RandomNumberGenerator) -> Int64 {
        Gossip.intervalMilliseconds * Int64.random(in: 80...120, using: &random) / 100
    }

    /// Whom to ask; nil where this node is alone.
    func peer(in topology: Topology, _ random: inout some RandomNumberGenerator) -> NodeAddress? {
        topology.nodes.filter { $0 != address }.randomElement(using: &random)
    }

    func action(on answer: Answer, own: Topology) throws -> Action {
        guard case .topology(let theirs) = answer, theirs != own else { return .nothing }
        guard theirs.cluster == own.cluster else { return .complain(theirs.cluster) }
        if let both = try TopologyAdoption.reconciled(own, theirs) { return .adopt(both) }
        return try theirs.supersedes(own) ? .adopt(theirs) : .tell
    }
}

/// Which leaders a node that starts lets take writes, and when: not before the other replicas of the shard were asked
/// whether there is another leader by now. Decides, does nothing.
struct StartQuestion {
    /// Whoever has said nothing by then counts as asked.
    static let waitMillisecondsMax: UInt64 = 3_000
    /// From an answer that did not come to the next question.
    static let retryMilliseconds: Int64 = 100

    /// By the names of the shards led here: who has neither answered nor refused yet.
    private(set) var waiting: [String: Set<NodeAddress>]

    init(topology: Topology, address: NodeAddress) {
        waiting = [:]
        for shard in topology.shards where shard.leader == address && !shard.followers.isEmpty {
            waiting[shard.name] = Set(shard.followers)
        }
    }

    /// Everybody to ask.
    var peers: [NodeAddress] { Set(waiting.values.joined()).sorted() }

    /// `peer` has answered, and its topology is adopted where it is newer; or it refuses connections.
    /// - Returns: the shards that may take writes now.
    mutating func settled(_ peer: NodeAddress) -> [String] {
        var released: [String] = []
        for name in waiting.keys.sorted() {
            waiting[name]?.remove(peer)
            guard waiting[name]?.isEmpty ?? false else { continue }
            waiting[name] = nil
            released.append(name)
        }
        return released
    }

    /// The time is over.
    mutating func timedOut() -> [String] {
        defer { waiting = [:] }
        return waiting.keys.sorted()
    }
}
