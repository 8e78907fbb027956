import Core
import Logging
import Sharding
import Wire

/// What a shard's replication notices, as lines of the log.
extension ShardRunner {
    func log(_ notice: ShardFeed.Notice) {
        switch notice {
        case .leaderLost(let text):
            logger.warning(
                "cannot read from the leader; trying again", metadata: ["node": "\(shard.leader)", "error": "\(text)"])
        case .leaderBack:
            logger.info("reading from the leader again", metadata: ["node": "\(shard.leader)"])
        }
    }

    func log(_ notice: FollowerProgress.Notice, _ follower: NodeAddress) {
        switch notice {
        case .followerLost(let text):
            logger.warning(
                "cannot feed the follower; trying again", metadata: ["node": "\(follower)", "error": "\(text)"])
        case .followerBack:
            logger.info("feeding the follower again", metadata: ["node": "\(follower)"])
        case .needsSnapshot(let reason):
            logger.warning(
                "the log cannot feed the follower; it is rebuilt from a snapshot",
                metadata: ["node": "\(follower)", "reason": "\(reason)"])
        case .snapshotFailed(let text):
            logger.warning(
                "the snapshot did not help the follower; taking another one soon",
                metadata: ["node": "\(follower)", "error": "\(text)"])
        case .damaged(let damage):
            logger.warning(
                "the follower is damaged; it is rebuilt from a snapshot",
                metadata: ["node": "\(follower)", "damage": "\(damage)"])
        case .whole:
            logger.notice("the follower is whole again", metadata: ["node": "\(follower)"])
        case .canBeFedAgain:
            logger.info("the follower can be fed from the log again", metadata: ["node": "\(follower)"])
        }
    }

    func log(_ notice: SnapshotTransfer.Notice, _ follower: NodeAddress) {
        switch notice {
        case .started(let manifest, let bytesThere):
            logger.info(
                "sending the follower a snapshot",
                metadata: [
                    "node": "\(follower)", "id": "\(manifest.id)", "lsn": "\(manifest.position.lsn)",
                    "files": "\(manifest.files.count)", "bytes": "\(manifest.bytesTotal)",
                    "bytes_there": "\(bytesThere)",
                ])
        case .interrupted(let text):
            logger.warning(
                "the snapshot is interrupted; going on soon", metadata: ["node": "\(follower)", "error": "\(text)"])
        case .resumed:
            logger.info("going on with the snapshot", metadata: ["node": "\(follower)"])
        case .installed(let manifest, let bytesSent, let duration):
            let seconds = max(duration.inSeconds, 0.001)
            logger.notice(
                "the follower has put the snapshot in place",
                metadata: [
                    "node": "\(follower)", "id": "\(manifest.id)", "lsn": "\(manifest.position.lsn)",
                    "bytes": "\(manifest.bytesTotal)", "bytes_sent": "\(bytesSent)",
                    "milliseconds": "\(duration.wholeMilliseconds)",
                    "bytes_per_second": "\(Int(Double(bytesSent) / seconds))",
                ])
        }
    }
}
