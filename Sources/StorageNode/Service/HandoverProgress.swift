import Core
import Sharding
import Wire

/// A planned change of leader, as the leader so far carries it out. Decides, does nothing: what happened goes in, what
/// to do next comes out.
///
/// Invariants: nothing is given away before the new leader has every batch, and no batch is written after that; writes
/// are held from then until requests are sent to the new leader; every path that holds them lets them go.
struct HandoverProgress {
    /// How long writes are held at the most.
    static let holdMillisecondsMax: UInt64 = 1_000
    /// How long the new leader may take for what it lacks, once writes are held.
    static let catchUpMillisecondsMax: Int64 = 600
    /// Who lacks more than that is not waited for.
    static let lagBatchesMax: UInt64 = 2_000

    enum Event: Equatable {
        case begun
        /// The new leader's position and the highest term it knows; `own` is where the leader so far stood then.
        case standing(LogPosition, newestTerm: UInt64, own: LogPosition)
        case silent(String)
        case held(LogPosition)
        case caughtUp
        /// It did not get there in time.
        case notCaughtUp
        case persisted
        case steppedDown
        /// The new leader has the topology, and leads by it.
        case confirmed
        /// It did not say so.
        case unconfirmed(String)
        case published
        /// Something here went wrong at the last action.
        case failed(Problem)
    }

    enum Action: Equatable {
        case askStanding
        case hold
        case wait(untilLsn: UInt64)
        case persist(Topology)
        /// Still holding the writes.
        case stepDown(term: UInt64)
        /// Nobody has heard of the topology: goes back to the one before.
        case persistBefore
        case show(Topology)
        case publish(Topology)
        case release
        case finish(Outcome)
        case fail(Problem)
    }

    struct Outcome: Equatable {
        var topology: Topology
        var term: UInt64
        var position: LogPosition
    }

    private enum Stage: Equatable {
        case new
        case asking
        case holding
        case waiting
        case persisting
        case steppingDown
        case showing
        case publishing(unconfirmed: String?)
        case done
    }

    private let shard: ShardTopology
    private let topology: Topology
    private let target: NodeAddress
    /// The highest term the leader so far knows.
    private let newestTerm: UInt64
    private var stage = Stage.new
    private var position = LogPosition.start
    private var next: Topology?

    /// Throws `bad-request` where `target` cannot lead.
    init(topology: Topology, shard: ShardTopology, to target: NodeAddress, newestTerm: UInt64) throws(Problem) {
        guard target != shard.leader else {
            throw Problem(.badRequest, "\(target) leads \(shard.name) already.")
        }
        guard shard.followers.contains(target) else {
            let known = shard.followers.map(\.description).joined(separator: ", ")
            throw Problem(
                .badRequest,
                "\(target) holds no replica of \(shard.name): "
                    + (known.isEmpty ? "it has no followers." : "its followers are \(known)."))
        }
        self.topology = topology
        self.shard = shard
        self.target = target
        self.newestTerm = newestTerm
    }

    mutating func handle(_ event: Event) -> [Action] {
        switch (stage, event) {
        case (.new, .begun):
            stage = .asking
            return [.askStanding]
        case (.asking, .standing(let standing, let newest, let own)):
            if let problem = refusal(standing, newest, own) { return end(problem, isHeld: false) }
            stage = .holding
            return [.hold]
        case (.asking, .silent(let reason)):
            return end(
                Problem(
                    .replicaUnreachable,
                    "\(target) does not answer (\(reason)): start it, or hand \(shard.name) to another follower."),
                isHeld: false)
        case (.holding, .held(let position)):
            self.position = position
            stage = .waiting
            return [.wait(untilLsn: position.lsn)]
        case (.waiting, .caughtUp): return persist()
        case (.waiting, .notCaughtUp):
            return end(
                Problem(
                    .followerBehind,
                    "\(target) did not reach lsn \(position.lsn) of \(shard.name) within "
                        + "\(HandoverProgress.catchUpMillisecondsMax) ms: see that a replicator runs, and try again."),
                isHeld: true)
        default: return handleOnceCaughtUp(event)
        }
    }

    private mutating func handleOnceCaughtUp(_ event: Event) -> [Action] {
        switch (stage, event) {
        case (.persisting, .persisted):
            guard let next, let term = next.shard(named: shard.name)?.term else { return [] }
            stage = .steppingDown
            return [.stepDown(term: term)]
        case (.steppingDown, .steppedDown):
            guard let next else { return [] }
            stage = .showing
            return [.show(next)]
        case (.steppingDown, .failed(let problem)):
            // The hold was over: writes go on here, and the topology is known to nobody else.
            return [.persistBefore] + end(problem, isHeld: true)
        case (.showing, .confirmed), (.showing, .unconfirmed):
            guard let next else { return [] }
            if case .unconfirmed(let reason) = event {
                stage = .publishing(unconfirmed: reason)
            } else {
                stage = .publishing(unconfirmed: nil)
            }
            return [.publish(next)]
        case (.publishing(let unconfirmed), .published):
            return [.release, conclusion(unconfirmed)]
        case (.publishing, .failed(let problem)): return end(problem, isHeld: true)
        case (.holding, .failed(let problem)): return end(problem, isHeld: false)
        case (.waiting, .failed(let problem)), (.persisting, .failed(let problem)): return end(problem, isHeld: true)
        default: return []
        }
    }

    private mutating func persist() -> [Action] {
        do {
            let next = try topology.promoting(target, in: shard.name, above: newestTerm)
            self.next = next
            stage = .persisting
            return [.persist(next)]
        } catch {
            return end(Problem(.internalError, "The next topology cannot be made: \(error)."), isHeld: true)
        }
    }

    private mutating func conclusion(_ unconfirmed: String?) -> Action {
        stage = .done
        guard let next, let term = next.shard(named: shard.name)?.term else {
            return .fail(Problem(.internalError, "The next topology is missing."))
        }
        guard let unconfirmed else { return .finish(Outcome(topology: next, term: term, position: position)) }
        return .fail(
            Problem(
                .replicaUnreachable,
                "\(target) has every write of \(shard.name) and is to lead it from epoch \(next.epoch) on, but did "
                    + "not confirm that (\(unconfirmed)). It will as soon as it learns the topology; see kv status."))
    }

    private mutating func end(_ problem: Problem, isHeld: Bool) -> [Action] {
        stage = .done
        return (isHeld ? [.release] : []) + [.fail(problem)]
    }

    private func refusal(_ standing: LogPosition, _ newest: UInt64, _ own: LogPosition) -> Problem? {
        // With a term above that one, this would take the shard from whoever has the promise and may lead already.
        guard newest <= newestTerm else {
            return Problem(
                .topologyConflict,
                "\(target) has promised term \(newest) of \(shard.name) to a node that takes it over: look at kv status, "
                    + "and try again once all go by one leader.", members: ["term": "\(newest)"])
        }
        guard standing.term == own.term else {
            // However few batches it lacks: of the leader's term it has none yet.
            return Problem(
                .followerBehind,
                "\(target) ends in term \(standing.term) of \(shard.name) and has nothing of term \(own.term) yet, in which "
                    + "\(shard.leader) leads: right after a change of leader that takes a moment, so try again; if it "
                    + "stays so, see that a replicator runs.", members: ["term": "\(standing.term)"])
        }
        let lag = own.lsn - min(own.lsn, standing.lsn)
        guard lag <= HandoverProgress.lagBatchesMax else {
            return Problem(
                .followerBehind,
                "\(target) is \(lag) batches behind in \(shard.name): wait until kv status shows it close, "
                    + "or choose another follower.",
                members: ["lag_batches": "\(lag)"])
        }
        return nil
    }
}
