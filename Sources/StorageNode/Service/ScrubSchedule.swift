import Configuration
import Core
import LSM
import Logging
import Shard
import Sharding
import Wire

/// Has the node's replicas scrubbed in the background, one after the other: the one first that was read longest ago.
struct ScrubSchedule: Sendable {
    struct Limits: Sendable {
        /// From the start to the first look at what is due, and from one look to the next.
        var lookMilliseconds: UInt64 = 60_000
        /// A replica is read again so long after it was read as a whole.
        var restMilliseconds: UInt64 = 86_400_000
        /// What failed is tried again after so long.
        var retryMilliseconds: UInt64 = 3_600_000
        /// With the automatic pace, everything that the node has is read in so long.
        var spanSeconds = 7 * 86_400
        /// The automatic pace of a node that has little.
        var bytesPerSecondMin = 1 << 20
        /// A replica with larger tables is not compared with its followers: that reads all of it at once, on both sides.
        var digestBytesMax: UInt64 = 256 << 20
        /// Replicas are compared if nothing was written for so long.
        var quietMilliseconds: UInt64 = 1_000
    }

    let node: Node
    let limits: Limits

    private var clock: ShardClock { node.configuration.clock }

    /// Runs until the task is cancelled.
    func run() async {
        guard node.configuration.storage.scrubBytesPerSecond != 0 else { return }
        var tried: [String: UInt64] = [:]
        while !Task.isCancelled {
            do {
                try await Task.sleep(for: .milliseconds(limits.lookMilliseconds))
            } catch {
                return
            }
            while !Task.isCancelled, let replica = due(tried) {
                tried[replica.configuration.name] = clock.monotonicMilliseconds()
                if await replica.scrubSlowly(bytesPerSecond: bytesPerSecond) { await compare(replica) }
            }
        }
    }

    private func due(_ tried: [String: UInt64]) -> ShardReplica? {
        let (wall, monotonic) = (clock.wallMilliseconds(), clock.monotonicMilliseconds())
        return node.view.openReplicas.values
            .filter { replica in
                if let last = tried[replica.configuration.name], monotonic < last + limits.retryMilliseconds {
                    return false
                }
                let last = replica.lastScrub
                guard !last.isRunning else { return false }
                // One in the future is of a clock that was wrong.
                guard let whole = last.lastWholeMilliseconds, whole <= wall else { return true }
                return wall - whole >= limits.restMilliseconds
            }
            .min { ($0.lastScrub.lastWholeMilliseconds ?? 0) < ($1.lastScrub.lastWholeMilliseconds ?? 0) }
    }

    /// One pace for all replicas, since one is read at a time.
    private var bytesPerSecond: Int {
        if let configured = node.configuration.storage.scrubBytesPerSecond { return configured }
        // A replica that is being closed counts the next time.
        let bytes = node.view.openReplicas.values.reduce(0) { $0 + ((try? $1.database.tableBytes()) ?? 0) }
        return max(limits.bytesPerSecondMin, Int(bytes) / limits.spanSeconds)
    }

    // MARK: Comparing

    /// Compares what a leader holds with followers that stand where it stands, if that is cheap and nothing is being
    /// written. A difference is told and nothing else: it does not say which of the two is damaged.
    private func compare(_ replica: ShardReplica) async {
        do {
            let position = replica.position
            guard replica.isLeading, position.lsn > 0, try replica.database.tableBytes() <= limits.digestBytesMax else {
                return
            }
            try await Task.sleep(for: .milliseconds(limits.quietMilliseconds))
            let level = replica.acks.followers.filter { $0.lsn == position.lsn }.map(\.address)
            guard replica.position == position, !level.isEmpty else { return }
            let own = try await replica.digest(at: position.lsn)
            for follower in level where try await differs(follower, from: own, replica) { return }
            replica.note(difference: nil)
        } catch {
            // Somebody writes, or a follower is away: the next pass compares again.
            node.logger.debug(
                "the replicas were not compared: \(error)", metadata: ["shard": "\(replica.configuration.name)"])
        }
    }

    private func differs(
        _ follower: NodeAddress, from own: ReplicaDigest, _ replica: ShardReplica
    ) async throws -> Bool {
        let name = replica.configuration.name
        let request = DigestRequest(
            lsn: own.position.lsn, boundaries: own.ranges.dropFirst().map(\.start), expiringAfter: own.expiringAfter)
        let theirs = try await node.peers.digest(request, ofShard: name, at: follower)
        guard try theirs.position.position == own.position, theirs.expiringAfter == own.expiringAfter else {
            return false
        }
        let count = zip(own.ranges, theirs.ranges).count { $0 != $1 }
        guard count > 0 || theirs.ranges.count != own.ranges.count else { return false }
        replica.note(
            difference:
                "\(follower) and this leader hold different data of \(name) at lsn \(own.position.lsn), in \(count) "
                + "of \(own.ranges.count) ranges of keys; which of them is right is not known: kv verify \(name) compares all"
        )
        return true
    }
}
