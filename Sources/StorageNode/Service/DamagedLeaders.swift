import Core
import Logging
import NIOCore
import Shard
import Sharding
import Wire

/// Has damaged leaders hand over to followers that are whole; then they are damaged followers, and are rebuilt.
///
/// A handover destroys nothing, but the rebuilding after it does: so a follower must be known to be whole before.
struct DamagedLeaders: Sendable {
    struct Limits: Sendable {
        /// From one look at the shards that are led here to the next.
        var intervalMilliseconds: UInt64 = 1_000
        /// From one attempt to hand a shard over to the next.
        var pauseMilliseconds: UInt64 = 10_000
    }

    /// What is remembered of a shard from attempt to attempt.
    struct Attempt: Sendable {
        var nextMilliseconds: UInt64 = 0
        /// The scrubs that were begun at followers, by their numbers.
        var scrubs: [NodeAddress: UInt64] = [:]
        /// What it waits for, as logged last.
        var reason: String?
    }

    let admin: ShardAdmin
    let limits: Limits
    let eventLoop: any EventLoop

    private var node: Node { admin.node }
    private var now: UInt64 { ShardClock.system.monotonicMilliseconds() }

    /// Looks after the shards that this node leads, until the task is cancelled.
    func run() async {
        var attempts: [String: Attempt] = [:]
        while !Task.isCancelled {
            do {
                try await Task.sleep(for: .milliseconds(limits.intervalMilliseconds))
            } catch {
                return
            }
            let damaged = damaged()
            attempts = attempts.filter { name, _ in damaged.contains { $0.shard.name == name } }
            let due = damaged.filter { attempts[$0.shard.name]?.nextMilliseconds ?? 0 <= now }
            let before = attempts
            // Side by side, as reading a follower may take long; never two for one shard.
            await withTaskGroup(of: (String, Attempt).self) { group in
                for (shard, replica) in due {
                    group.addTask {
                        (shard.name, await attempt(shard, replica, before[shard.name] ?? Attempt()))
                    }
                }
                for await (name, attempt) in group { attempts[name] = attempt }
            }
        }
    }

    /// What is led here, damaged, and has followers.
    private func damaged() -> [(shard: ShardTopology, replica: ShardReplica)] {
        let view = node.view
        return zip(view.topology.shards, view.replicas).compactMap { shard, replica in
            guard let replica, shard.leader == node.address, replica.role.isLeader, replica.damage != nil,
                !shard.followers.isEmpty
            else { return nil }
            return (shard, replica)
        }
    }

    private func attempt(_ shard: ShardTopology, _ replica: ShardReplica, _ before: Attempt) async -> Attempt {
        var attempt = before
        do {
            let standings = await standings(of: shard)
            let target = try Self.target(of: shard, standings, own: replica.position)
            try await requireWhole(target, shard.name, &attempt)
            // It may have come upon damage while it was read.
            guard try await node.peers.history(ofShard: shard.name, at: target).position.damaged == nil else {
                throw Problem(.followerBehind, "\(target) is damaged as well.")
            }
            _ = try await Handover(admin: admin, replica: replica, target: target, eventLoop: eventLoop).run()
        } catch {
            let reason = Problem(error).detail
            if attempt.reason != reason, !Task.isCancelled {
                node.logger.warning(
                    "this leader is damaged and has not handed over yet",
                    metadata: ["shard": "\(shard.name)", "reason": "\(reason)"])
            }
            attempt.reason = reason
        }
        attempt.nextMilliseconds = now + limits.pauseMilliseconds
        return attempt
    }

    private func standings(of shard: ShardTopology) async -> [NodeAddress: PositionDocument] {
        await withTaskGroup(of: (NodeAddress, PositionDocument?).self) { group in
            for follower in shard.followers {
                group.addTask { (follower, try? await node.peers.history(ofShard: shard.name, at: follower).position) }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }

    /// Who has most of those that can take over and know of no damage; of equal ones the first in the topology.
    ///
    /// Throws a `Problem` that says why nobody can.
    static func target(
        of shard: ShardTopology, _ standings: [NodeAddress: PositionDocument], own: LogPosition
    ) throws(Problem) -> NodeAddress {
        var best: (address: NodeAddress, lsn: UInt64)?
        var reasons: [String] = []
        for follower in shard.followers {
            guard let standing = standings[follower] else {
                reasons.append("\(follower) does not answer")
                continue
            }
            if let damaged = standing.damaged {
                reasons.append("\(follower) is damaged: \(damaged)")
            } else if standing.term != own.term
                || own.lsn > standing.lsn.addingReportingOverflow(HandoverProgress.lagBatchesMax).partialValue
            {
                reasons.append("\(follower) is behind")
            } else if best.map({ $0.lsn < standing.lsn }) ?? true {
                best = (follower, standing.lsn)
            }
        }
        if let best { return best.address }
        throw Problem(.followerBehind, "No follower of \(shard.name) is whole: \(reasons.joined(separator: "; ")).")
    }

    /// Has a follower read all that it has. Knowing of no damage is not enough: this replica, whose one damaged block may
    /// be whole there, is rebuilt from it.
    ///
    /// Throws a `Problem`, also while that goes on, and `PeerFailure`.
    private func requireWhole(_ follower: NodeAddress, _ shard: String, _ attempt: inout Attempt) async throws {
        let begun = attempt.scrubs[follower]
        let scrub = try await node.peers.scrub(ofShard: shard, at: follower, begins: begun == nil)
        attempt.scrubs[follower] = begun ?? scrub.number
        // One that ended early, or was begun before a restart, is begun anew.
        if !scrub.isRunning, scrub.failure != nil || scrub.number < begun ?? 0 { attempt.scrubs[follower] = nil }
        guard begun != nil, !scrub.isRunning, scrub.failure == nil, scrub.number >= begun ?? 0 else {
            throw PeerFailure.silent("\(follower) is being read, to see whether it is whole")
        }
        attempt.scrubs[follower] = nil
    }
}
