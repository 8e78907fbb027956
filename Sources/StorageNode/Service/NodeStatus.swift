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
        let view = self.view
        var status = StorageNodeStatus(
            version: BuildInformation.version, node: configuration.address, epoch: view.topology.epoch,
            uptimeSeconds: uptimeSeconds, durability: configuration.storage.durability.rawValue,
            shards: try view.topology.shards.indices.compactMap { try shardStatus(at: $0, in: view) })
        let ahead = clockWatch.ahead
        if ahead > 0 { status.clockAheadMilliseconds = ahead }
        return status
    }

    private func shardStatus(at position: Int, in view: NodeView) throws -> StorageNodeStatus.Shard? {
        let name = view.topology.shards[position].name
        if let replica = view.replicas[position] { return try shardStatus(of: replica, named: name) }
        guard let absence = view.absences[position] else { return nil }
        var shard = StorageNodeStatus.Shard(
            name: name, role: view.leads[position] ? .leader : .follower, position: .start, keysEstimate: 0,
            diskBytes: 0, memtableBytes: 0, logFirstLsn: nil, failure: nil)
        switch absence {
        case .installing:
            shard.state = .installing
        case .failed(let error):
            shard.state = .failed
            if error.code == .corrupted { shard.damage = error.description }
            let remains = keeper.absent.known(ofShard: name)
            shard.snapshot = remains?.received.progress
            shard.setAside = remains?.setAside
            shard.failure = "the replica is not open: \(error)"
        }
        return shard
    }

    private func shardStatus(of replica: ShardReplica, named name: String) throws -> StorageNodeStatus.Shard {
        let status = try replica.status()
        var shard = StorageNodeStatus.Shard(
            name: name, role: status.role.isLeader ? .leader : .follower,
            position: status.position, keysEstimate: status.sizes.keysEstimate,
            diskBytes: status.sizes.tableBytes + status.sizes.logBytes,
            memtableBytes: status.sizes.memtableBytes, logFirstLsn: status.logFirstLsn,
            failure: (status.failure ?? replica.background.failure)?.description)
        shard.newestTerm = replica.newestTerm
        if status.role.isLeader {
            shard.state = .leading
            shard.followers = replica.acks.followers
        } else {
            shard.state = replica.isJoining ? .joining : .following
            shard.lagMilliseconds = replica.freshness.lagMilliseconds
        }
        if status.failure != nil { shard.state = .failed }
        shard.damage = replica.damage?.description
        shard.setAside = replica.setAside
        shard.snapshot = replica.received.progress
        let diverged = try replica.divergedWrites()
        if !diverged.isEmpty { shard.diverged = diverged }
        let scrub = replica.lastScrub
        if scrub.number > 0 { shard.scrub = scrub }
        return shard
    }

    private var uptimeSeconds: Double {
        let (seconds, attoseconds) = (ContinuousClock.now - started).components
        return Double(seconds) + Double(attoseconds / 1_000_000_000_000_000) / 1_000
    }
}
