import Core
import Logging
import NIOCore
import Shard
import Sharding
import Wire

/// Carries a ``HandoverProgress`` out.
struct Handover {
    let admin: ShardAdmin
    let replica: ShardReplica
    let target: NodeAddress
    let eventLoop: any EventLoop

    private var node: Node { admin.node }
    private var name: String { replica.configuration.name }

    /// Hands the leadership of the shard to `target`. No other change of topology or replicas runs meanwhile.
    ///
    /// Throws a `Problem`.
    func run() async throws -> FailoverReport {
        let report = try await node.keeper.change { change in try await self.run(change) }
        await admin.spreading.showToAll(except: target)
        return report
    }

    private struct Run {
        var hold: WriteHold?
        var heldSince: ContinuousClock.Instant?
        var held: Duration = .zero
        var outcome: Result<HandoverProgress.Outcome, Problem>?
    }

    private func run(_ change: borrowing TopologyKeeper.Change) async throws -> FailoverReport {
        let topology = node.keeper.topology
        guard let shard = topology.shard(named: name), shard.leader == node.address, replica.role.isLeader else {
            throw Problem(.notLeader, "This node does not lead \(name) any more: see kv status.")
        }
        var progress = try HandoverProgress(
            topology: topology, shard: shard, to: target, newestTerm: replica.newestTerm)
        var run = Run()
        var actions = progress.handle(.begun)
        while !actions.isEmpty {
            let action = actions.removeFirst()
            if let event = await perform(action, topology, &run, change) { actions += progress.handle(event) }
        }
        guard let outcome = run.outcome else {
            throw Problem(.internalError, "The handover of \(name) ended without an outcome.")
        }
        let reached = try outcome.get()
        return report(reached, shard, run.held)
    }

    private func perform(
        _ action: HandoverProgress.Action, _ before: Topology, _ run: inout Run,
        _ change: borrowing TopologyKeeper.Change
    ) async -> HandoverProgress.Event? {
        do {
            switch action {
            case .askStanding: return await askStanding()
            case .hold:
                let hold = try await replica.hold(milliseconds: HandoverProgress.holdMillisecondsMax)
                run.hold = hold
                run.heldSince = .now
                return .held(hold.position)
            case .wait(let lsn):
                let deadline = NIODeadline.now() + .milliseconds(HandoverProgress.catchUpMillisecondsMax)
                let isReached = try await replica.acks.wait(
                    until: .follower(target), has: lsn, on: eventLoop, deadline: deadline
                ).get()
                return isReached ? .caughtUp : .notCaughtUp
            case .persist(let topology):
                try await node.keeper.persist(topology, change)
                return .persisted
            case .persistBefore:
                try await node.keeper.persist(before, change)
            case .stepDown(let term):
                try await replica.become(.follower(term: term), during: run.hold)
                return .steppedDown
            case .show(let topology): return await show(topology)
            case .publish(let topology):
                try await node.keeper.publish(topology, change)
                return .published
            case .release:
                if let hold = run.hold { await replica.release(hold) }
                run.held = run.heldSince.map { .now - $0 } ?? .zero
            case .finish(let outcome): run.outcome = .success(outcome)
            case .fail(let problem): run.outcome = .failure(problem)
            }
            return nil
        } catch {
            node.logger.error("handover failed", metadata: ["shard": "\(name)", "reason": "\(error)"])
            return .failed(Problem(error))
        }
    }

    private func askStanding() async -> HandoverProgress.Event {
        do {
            let document = try await node.peers.history(ofShard: name, at: target)
            return .standing(
                try document.position.position, newestTerm: document.newestTerm, own: replica.position)
        } catch {
            return .silent("\(error)")
        }
    }

    private func show(_ topology: Topology) async -> HandoverProgress.Event {
        do {
            let theirs = try await node.peers.show(topology, to: target)
            guard theirs == topology else { return .unconfirmed("it has the topology of epoch \(theirs.epoch)") }
            return .confirmed
        } catch {
            return .unconfirmed("\(error)")
        }
    }

    private func report(
        _ outcome: HandoverProgress.Outcome, _ before: ShardTopology, _ held: Duration
    ) -> FailoverReport {
        let (seconds, attoseconds) = held.components
        let milliseconds = Double(seconds) * 1_000 + Double(attoseconds) / 1e15
        node.logger.notice(
            "handed the leadership over",
            metadata: [
                "shard": "\(name)", "to": "\(target)", "term": "\(outcome.term)",
                "epoch": "\(outcome.topology.epoch)", "writes held ms": "\(Int(milliseconds))",
            ])
        return FailoverReport(
            shard: name, epoch: outcome.topology.epoch, term: outcome.term, leader: target,
            previousLeader: before.leader, previousTerm: before.term, lsn: outcome.position.lsn,
            version: outcome.position.version.hexDigits, isComplete: true, leaderLastSeen: nil, unreachable: [],
            writesHeldMilliseconds: milliseconds)
    }
}
