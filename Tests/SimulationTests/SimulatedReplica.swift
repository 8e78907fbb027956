import Core
import LSM
import NIOCore
import Sharding
import Synchronization
import Wire

@testable import Shard

/// Where callbacks of the writer leave their outcomes, to be handed on when it is done.
final class Outbox<Outcome: Sendable>: Sendable {
    private let outcomes = Mutex<[(id: UInt64, outcome: Outcome)]>([])

    func put(_ id: UInt64, _ outcome: Outcome) { outcomes.withLock { $0.append((id, outcome)) } }

    func take() -> [(id: UInt64, outcome: Outcome)] {
        outcomes.withLock { outcomes in
            defer { outcomes = [] }
            return outcomes
        }
    }
}

/// The open replica of a process: the product's own writer, log in memory, acknowledgements and freshness, over a
/// simulated disk.
final class SimulatedReplica {
    static let shard = "shard-0"

    struct LogWaiter {
        let after: LogPosition
        let deadline: Instant
        let reply: () -> Void
    }

    unowned let process: SimulatedNode.Process
    var core: WriterCore
    let commits: CommitLog
    let inbox: WriterInbox
    var acks = AckTracker<(AckOutcome) -> Void>(waitersMax: 64)
    var freshness = ReplicaFreshness()
    var logWaiters: [LogWaiter] = []
    var leases = SnapshotLeases()
    var reception = SnapshotReception()
    private let receipts = Outbox<WriteReceipt>()
    private let applied = Outbox<ApplyOutcome>()
    private var writes: [UInt64: (WriteReceipt) -> Void] = [:]
    private var applies: [UInt64: (ApplyOutcome) -> Void] = [:]
    private var lastId: UInt64 = 0
    private var isDrainDue = false

    private var node: SimulatedNode { process.node }
    private var world: Simulation { process.node.world }

    /// Opens what is on the node's disk. A leader of a new term writes the term's first batch, in which the process
    /// can die: call ``settle()`` then.
    init(_ process: SimulatedNode.Process, role: ShardRole) {
        self.process = process
        let disk = process.node.disk
        var configuration = ShardConfiguration(name: SimulatedReplica.shard, cluster: "test", directory: "/nowhere")
        configuration.node = process.node.address
        configuration.batchOperationsMax = 4
        configuration.applyBatchesMax = 5
        configuration.ringBytesMax = 1_500
        commits = CommitLog(position: disk.last, ringBytesMax: configuration.ringBytesMax, waitersMax: 64)
        inbox = WriterInbox(shard: configuration.name, bytesMax: 1 << 20, operationsMax: 256)
        core = WriterCore(
            configuration: configuration, role: role, position: disk.last,
            latestSequence: disk.read { $0.records }, promise: disk.read { $0.promise }, sink: disk, values: disk,
            promises: disk, log: commits, inbox: inbox, clock: process.node.clock.shardClock,
            expiries: ExpiryClock(process.node.clock.shardClock), logger: Simulation.quietLogger)
        if let staging = disk.read({ $0.staging }) {
            reception.restore(staging.manifest, received: staging.received, now: process.node.clock.monotonic)
        }
        freshness.applied(commits.committed, now: process.node.clock.reading)
        try? core.startLeading()
    }

    var role: ShardRole { core.published.role }
    /// As `ShardReplica` has them.
    var isLeading: Bool { role == .leader(term: core.newestTerm) }
    var newestVersion: Version {
        let position = commits.committed
        return position.term == core.newestTerm ? position.version : .zero
    }
    var isJoining: Bool { node.disk.read { $0.isJoining } && !role.isLeader }

    // MARK: The writer

    /// Wakes the writer, which takes a moment: what comes meanwhile goes into the same batch.
    func wake() {
        guard !isDrainDue else { return }
        isDrainDue = true
        process.after(Instant(world.below(150))) {
            self.isDrainDue = false
            self.drain()
        }
    }

    private func drain() {
        guard process.replica === self else { return }
        let due = core.drain()
        guard settle() else { return }
        guard let due else { return }
        process.after(Instant(due) * 1_000 + 1) { self.wake() }
    }

    /// Hands on what came of the writer's last steps; false where the process died in one of them.
    @discardableResult func settle() -> Bool {
        let disk = node.disk
        let fresh = disk.state.withLock { state in
            defer { state.fresh = [] }
            return state.fresh
        }
        for entry in fresh { world.ledger.appended(entry, by: node) }
        if disk.read({ $0.isDead }) {
            node.crash("died in a write")
            return false
        }
        for (id, receipt) in receipts.take() { writes.removeValue(forKey: id)?(receipt) }
        for (id, outcome) in applied.take() { applies.removeValue(forKey: id)?(outcome) }
        if role.isLeader || freshness.hasCaughtUp, disk.read({ $0.isJoining }) {
            disk.write { $0.isJoining = false }
        }
        let ready = logWaiters.filter { $0.after.lsn < commits.committed.lsn }
        logWaiters.removeAll { $0.after.lsn < commits.committed.lsn }
        for waiter in ready { waiter.reply() }
        return true
    }

    func submit(_ operations: [WriteOperation], _ completion: @escaping (WriteReceipt) -> Void) -> Bool {
        lastId += 1
        let submission = Submission(operations: operations) { [receipts, lastId] in receipts.put(lastId, $0) }
        let load = WriterInbox.Load(bytes: operations.reduce(0) { $0 + $1.bytes }, operations: operations.count)
        guard (try? inbox.add(.write(submission), load)) != nil else { return false }
        writes[lastId] = completion
        wake()
        return true
    }

    func apply(_ frames: [LogFrame], leaderTerm: UInt64, _ completion: @escaping (ApplyOutcome) -> Void) -> Bool {
        lastId += 1
        let request = ApplyRequest(frames: frames, leaderTerm: leaderTerm) { [applied, lastId] in
            applied.put(lastId, $0)
        }
        let load = WriterInbox.Load(bytes: frames.reduce(0) { $0 + $1.encodedBytes }, operations: max(1, frames.count))
        guard (try? inbox.add(.apply(request), load)) != nil else { return false }
        applies[lastId] = completion
        wake()
        return true
    }

    // MARK: The log

    func read(after position: LogPosition, bytesMax: Int) -> LogRead {
        let answer = commits.read(after: position, bytesMax: bytesMax)
        if case .needsDisk = answer { return node.disk.readLog(after: position, bytesMax: bytesMax) }
        return answer
    }

    /// Calls back at the next batch after `position` or after `wait`.
    func waitForCommit(after position: LogPosition, wait: Instant, _ reply: @escaping () -> Void) {
        var isDone = false
        let once = {
            guard !isDone else { return }
            isDone = true
            reply()
        }
        logWaiters.append(LogWaiter(after: position, deadline: world.now + wait, reply: once))
        process.after(wait) {
            self.logWaiters.removeAll { $0.deadline <= self.world.now }
            once()
        }
    }

    // MARK: Acknowledgements

    func end(_ ended: [AckTracker<(AckOutcome) -> Void>.Ended]) {
        for wait in ended { wait.payload(wait.outcome) }
    }

    /// As the topology that is served by and the role have it.
    func tellWhoseAcknowledgementsCount() {
        guard let shard = process.topology.shard(named: SimulatedReplica.shard) else { return }
        if shard.leader == node.address, case .leader(let term) = core.role {
            end(acks.lead(term: term, followers: shard.followers))
        } else {
            end(acks.stopLeading())
        }
    }
}
