import Core
import Logging
import ServiceSupport
import Shard
import Sharding

/// What the event loops of a storage node share. Immutable.
final class Node: Sendable {
    let configuration: StorageNodeConfiguration
    let topology: Topology
    let topologyDocument: [UInt8]
    /// By position in `topology.shards`; nil where this node hosts no replica of the shard.
    let replicas: [ShardReplica?]
    /// The fields of a redirect to each shard's replicas, leader first, by position.
    let redirectFields: [[[UInt8]]]
    let readers: ReaderPool
    let metrics: NodeMetrics
    let started = ContinuousClock.now
    var logger: Logger { configuration.logger }

    init(configuration: StorageNodeConfiguration, replicas: [ShardReplica?], readers: ReaderPool) throws {
        self.configuration = configuration
        self.topology = configuration.topology
        self.topologyDocument = try configuration.topology.json()
        self.replicas = replicas
        self.readers = readers
        self.metrics = NodeMetrics(topology: configuration.topology, replicas: replicas)
        self.redirectFields = configuration.topology.shards.map { shard in
            shard.replicas.map(RoutedQuery.redirectFields)
        }
    }

    func replica(ofShardNamed name: some StringProtocol) -> ShardReplica? {
        guard let position = topology.shards.firstIndex(where: { name == $0.name }) else { return nil }
        return replicas[position]
    }
}
