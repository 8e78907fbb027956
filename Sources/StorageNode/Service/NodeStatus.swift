import Configuration
import Core
import LSM
import Observability
import Shard
import Sharding
import Wire

extension Node {
    /// `GET /status`. Blocks: looks at files.
    func status() throws -> StorageNodeStatus {
        StorageNodeStatus(
            version: BuildInformation.version, node: configuration.address, epoch: topology.epoch,
            uptimeSeconds: uptimeSeconds, durability: configuration.storage.durability.rawValue,
            shards: try replicas.compactMap { replica in
                guard let replica else { return nil }
                let status = try replica.status()
                return StorageNodeStatus.Shard(
                    name: replica.configuration.name, role: status.role.isLeader ? .leader : .follower,
                    position: status.position, keysEstimate: status.sizes.keysEstimate,
                    diskBytes: status.sizes.tableBytes + status.sizes.logBytes,
                    memtableBytes: status.sizes.memtableBytes, logFirstLsn: status.logFirstLsn,
                    failure: status.failure?.description)
            })
    }

    private var uptimeSeconds: Double {
        let (seconds, attoseconds) = (ContinuousClock.now - started).components
        return Double(seconds) + Double(attoseconds / 1_000_000_000_000_000) / 1_000
    }
}
