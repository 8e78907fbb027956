import Core
import HTTPServer
import ServiceSupport
import Shard
import Sharding
import Wire

/// Why a replica that the topology gives to this node is not served at the moment.
enum ReplicaAbsence: Sendable {
    /// A snapshot takes its place.
    case installing
    /// It could not be opened.
    case failed(KVError)
}

/// What a node serves, as of one topology: what each event loop decides from.
///
/// Immutable; a change makes a new one with a higher ``generation``.
final class NodeView: Sendable {
    let generation: UInt64
    let topology: Topology
    /// The answer to `GET /topology`.
    let topologyDocument: HTTPResponse
    /// Its `etag`.
    let topologyTag: String
    /// `kv-epoch: …` with its CRLF.
    let epochField: [UInt8]
    /// By position in `topology.shards`; nil where this node serves no replica of the shard.
    let replicas: [ShardReplica?]
    /// By position: whether this node leads the shard for its clients. Changes after the replica's own role, so that
    /// whoever is redirected finds the other node ready.
    let leads: [Bool]
    /// By position: why a replica that belongs here is not in `replicas`.
    let absences: [ReplicaAbsence?]
    /// The fields of a redirect to each shard's replicas, leader first, by position.
    let redirectFields: [[[UInt8]]]

    /// - Parameters:
    ///   - address: of this node.
    ///   - replicas: those that are open, by the names of their shards.
    ///   - absences: of the others that the topology gives to this node.
    init(
        generation: UInt64, topology: Topology, address: NodeAddress, replicas: [String: ShardReplica],
        absences: [String: ReplicaAbsence] = [:]
    ) throws {
        self.generation = generation
        self.topology = topology
        let json = try topology.json()
        topologyTag = TopologyTag.field(epoch: topology.epoch, document: json)
        var document = HTTPResponse(json: json)
        document.headers.append((name: "etag", value: topologyTag))
        topologyDocument = document
        epochField = KVHeader.epochField(topology.epoch)
        self.replicas = topology.shards.map { replicas[$0.name] }
        self.absences = topology.shards.map { absences[$0.name] }
        leads = topology.shards.map { $0.leader == address }
        redirectFields = topology.shards.map { shard in shard.replicas.map(RoutedQuery.redirectFields) }
    }

    func position(ofShardNamed name: some StringProtocol) -> Int? {
        topology.shards.firstIndex { name == $0.name }
    }

    /// nil where this node serves no replica of the shard.
    func replica(ofShardNamed name: some StringProtocol) -> ShardReplica? {
        position(ofShardNamed: name).flatMap { replicas[$0] }
    }

    var openReplicas: [String: ShardReplica] {
        Dictionary(
            uniqueKeysWithValues: zip(topology.shards, replicas).compactMap { shard, replica in
                replica.map { (shard.name, $0) }
            })
    }

    var absentReplicas: [String: ReplicaAbsence] {
        Dictionary(
            uniqueKeysWithValues: zip(topology.shards, absences).compactMap { shard, absence in
                absence.map { (shard.name, $0) }
            })
    }

    /// Tells the replicas that lead who their followers are, and the others that nobody is.
    func tellWhoseAcknowledgementsCount() {
        for (position, shard) in topology.shards.enumerated() {
            guard let replica = replicas[position] else { continue }
            if leads[position], case .leader(let term) = replica.role {
                replica.acks.lead(term: term, followers: shard.followers)
            } else {
                replica.acks.stopLeading()
            }
        }
    }

    /// What to answer where the topology names this node as the shard's leader, and it does not serve it as such.
    func leaderOutOfService(at position: Int) -> Problem {
        let shard = topology.shards[position]
        guard let replica = replicas[position] else {
            if absences[position] != nil { return absence(ofShardNamed: shard.name) }
            return Problem(.unavailable, "This node leads \(shard.name) and cannot serve it now: see /readyz.")
        }
        guard !replica.role.isLeader, replica.newestTerm > shard.term else {
            return Problem(.unavailable, "The leadership of \(shard.name) is changing: try again.")
        }
        return Problem(
            .unavailable,
            "This node led \(shard.name) in term \(shard.term), has promised term \(replica.newestTerm) to another and has "
                + "not heard that it leads: try again; if it stays so, look at kv status and use kv failover \(shard.name).",
            members: ["shard": shard.name, "promised_term": "\(replica.newestTerm)"])
    }

    /// What to answer to a request about a shard of which no replica is served here.
    func absence(ofShardNamed name: some StringProtocol) -> Problem {
        if let position = position(ofShardNamed: name), let absence = absences[position] {
            return switch absence {
            case .installing: Problem(.unavailable, "The replica of \(name) is being rebuilt here: try again.")
            case .failed(let error):
                Problem(
                    .unavailable,
                    "The replica of \(name) is not open here: \(error)"
                        + (leads[position] ? "; kv failover \(name) has a follower lead" : ""))
            }
        }
        let known = replicas.compactMap { $0?.configuration.name }.joined(separator: ", ")
        return Problem(
            .unknownShard,
            "\(name.prefix(64)) is not here; this node hosts \(known.isEmpty ? "no shard" : known).")
    }
}
