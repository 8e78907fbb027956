import Core
import NIOCore
import ServiceSupport
import Sharding
import Wire

/// A topology with what is derived from it once: its JSON and its header field.
struct TopologyDocument: Sendable {
    let topology: Topology
    /// The content of `GET /topology`.
    let json: ByteBuffer
    /// `kv-epoch: …` with its CRLF.
    let epochField: [UInt8]
    /// Sorted.
    let nodes: [NodeAddress]

    init(_ topology: Topology) throws {
        self.topology = topology
        var json = ByteBuffer(bytes: try topology.json())
        json.writeStaticString("\n")
        self.json = json
        self.epochField = KVHeader.epochField(topology.epoch)
        self.nodes = topology.nodes
    }
}

/// Where requests go, as of one topology and one state of the nodes' health: what each event loop decides from.
///
/// Immutable; a change makes a new one with a higher ``generation``.
final class RoutingTable: Sendable {
    /// Positions in ``RoutingTable/nodes``.
    struct Shard: Sendable, Equatable {
        /// nil where the leader is known dead.
        let leader: Int?
        /// The replicas that reads go to: those that are ready; where none is, those that are alive.
        let readers: [Int]
    }

    /// Rises with every new table.
    let generation: UInt64
    let document: TopologyDocument
    let nodes: [NodeAddress]
    /// At the position of a shard in the topology.
    let shards: [Shard]
    /// For each node the fields of a redirect to it, up to where the path follows.
    let redirectFields: [[UInt8]]
    /// Names of the shards without a replica that has answered and is alive. Stricter than what requests go by, so
    /// that a router which has just started does not call itself ready on trust.
    let unprovenShards: [String]

    var topology: Topology { document.topology }

    init(generation: UInt64, document: TopologyDocument, health: [NodeAddress: NodeHealth]) {
        self.generation = generation
        self.document = document
        let nodes = document.nodes
        self.nodes = nodes
        let positions = Dictionary(uniqueKeysWithValues: nodes.enumerated().map { ($1, $0) })
        func isAlive(_ node: Int) -> Bool { health[nodes[node]]?.isAlive ?? true }
        self.shards = document.topology.shards.map { shard in
            let replicas = shard.replicas.compactMap { positions[$0] }
            let alive = replicas.filter(isAlive)
            let ready = alive.filter { health[nodes[$0]]?.isPreferredForReads ?? true }
            return Shard(
                leader: positions[shard.leader].flatMap { isAlive($0) ? $0 : nil },
                readers: ready.isEmpty ? alive : ready)
        }
        self.unprovenShards = document.topology.shards
            .filter { shard in !shard.replicas.contains { health[$0]?.hasAnswered ?? false } }.map(\.name)
        self.redirectFields = nodes.map(RoutedQuery.redirectFields)
    }
}
