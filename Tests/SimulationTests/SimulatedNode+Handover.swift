import Core
import Sharding
import Wire

@testable import Shard
@testable import StorageNodeService

/// The planned change of leader: carries a ``HandoverProgress`` out.
extension SimulatedNode.Process {
    func handOver(to target: NodeAddress) {
        change { done in
            guard let replica = self.replica, let shard = self.shard, shard.leader == self.node.address,
                replica.role.isLeader,
                let progress = try? HandoverProgress(
                    topology: self.topology, shard: shard, to: target, newestTerm: replica.core.newestTerm)
            else { return done() }
            HandoverRun(self, replica, progress, target, done).handle(.begun)
        }
    }

    private final class HandoverRun {
        let process: SimulatedNode.Process
        let replica: SimulatedReplica
        let target: NodeAddress
        let before: Topology
        let done: () -> Void
        var progress: HandoverProgress
        var actions: [HandoverProgress.Action] = []
        var hold: WriteHold?

        init(
            _ process: SimulatedNode.Process, _ replica: SimulatedReplica, _ progress: HandoverProgress,
            _ target: NodeAddress, _ done: @escaping () -> Void
        ) {
            self.process = process
            self.replica = replica
            self.progress = progress
            self.target = target
            self.done = done
            before = process.topology
        }

        func handle(_ event: HandoverProgress.Event) {
            actions += progress.handle(event)
            next()
        }

        private func next() {
            guard process.isAlive else { return }
            guard !actions.isEmpty else {
                process.showToAll()
                return done()
            }
            let action = actions.removeFirst()
            perform(action)
        }

        private func perform(_ action: HandoverProgress.Action) {
            switch action {
            case .askStanding: askStanding()
            case .hold:
                do {
                    let hold = try replica.core.beginHold(milliseconds: HandoverProgress.holdMillisecondsMax)
                    self.hold = hold
                    handle(.held(hold.position))
                } catch {
                    handle(.failed(Problem(error)))
                }
            case .wait(let lsn): wait(lsn)
            case .persist(let topology): if process.persist(topology) { handle(.persisted) }
            case .persistBefore: if process.persist(before) { next() }
            case .stepDown(let term):
                do {
                    try replica.core.become(.follower(term: term), during: hold)
                    if replica.settle() { handle(.steppedDown) }
                } catch {
                    if replica.settle() { handle(.failed(Problem(error))) }
                }
            case .show(let topology): show(topology)
            case .publish(let topology):
                process.publish(topology)
                handle(.published)
            case .release:
                if let hold { replica.core.end(hold) }
                replica.wake()
                next()
            case .finish(let outcome):
                process.world.note("\(process.node.name) has handed over to \(target) at \(outcome.position)")
                next()
            case .fail: next()
            }
        }

        private func ask<Outcome>(
            failed: Outcome, _ serve: @escaping (SimulatedNode.Process, @escaping (Outcome) -> Void) -> Void,
            _ finish: @escaping (Outcome) -> Void
        ) {
            process.request(target, timeout: SimulatedNode.Process.answerTimeout, failed: failed, serve, finish)
        }

        private func askStanding() {
            ask(failed: PromotionDecision.Answer.silent("no answer"), { $0.standing($1) }) { answer in
                guard let standing = answer.standing else { return self.handle(.silent("no answer")) }
                self.handle(
                    .standing(
                        standing.position, newestTerm: standing.newestTerm, own: self.replica.commits.committed))
            }
        }

        private func wait(_ lsn: UInt64) {
            guard replica.acks.reserve(1) else { return handle(.failed(Problem(.overloaded, ""))) }
            let ended: (AckOutcome) -> Void = { self.handle($0 == .reached ? .caughtUp : .notCaughtUp) }
            switch replica.acks.add(.follower(target), lsn: lsn, writes: 1, ended) {
            case .ended(let outcome): ended(outcome)
            case .waiting(let token):
                process.after(Instant(HandoverProgress.catchUpMillisecondsMax) * 1_000) {
                    if self.replica.acks.cancel(token) != nil { self.handle(.notCaughtUp) }
                }
            }
        }

        private func show(_ topology: Topology) {
            ask(failed: Topology?.none, { $0.show(topology, $1) }) { theirs in
                self.handle(theirs == topology ? .confirmed : .unconfirmed("it has another topology"))
            }
        }
    }
}
