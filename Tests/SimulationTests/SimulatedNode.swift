import Core
import NIOCore
import ServiceSupport
import Sharding
import Synchronization
import Wire

@testable import ReplicatorService
@testable import Shard
@testable import StorageNodeService

/// A machine with a disk and a clock, and the storage node's process while it runs.
final class SimulatedNode {
    unowned let world: Simulation
    let address: NodeAddress
    let name: String
    let disk = SimulatedDisk()
    let clock = SimulatedClock()
    private(set) var process: Process?
    /// A file of its replica is, until that is rebuilt.
    var isDamaged = false
    private var isStopped = false
    private var deferred: [() -> Void] = []

    init(_ world: Simulation, _ address: NodeAddress) {
        self.world = world
        self.address = address
        name = address.description
        if world.sabotage == .forgetPromises { disk.state.withLock { $0.forgetsPromises = true } }
    }

    func start() {
        guard process == nil else { return }
        disk.state.withLock { state in
            state.isDead = false
            state.writesUntilDeath = nil
        }
        world.note("\(name) starts at \(disk.last)")
        let process = Process(self)
        self.process = process
        process.start()
    }

    /// SIGKILL: everything but the disk is gone.
    func crash(_ reason: String) {
        guard process != nil else { return }
        world.note("\(name) crashes: \(reason)")
        process = nil
        disk.state.withLock { state in
            state.isDead = false
            state.writesUntilDeath = nil
            state.fresh = []
        }
    }

    /// Kills the process in one of its next writes, of which the last may be kept.
    func dieInAWrite(after writes: Int, keepsLast: Bool) {
        disk.state.withLock { state in
            state.writesUntilDeath = writes
            state.keepsLastWrite = keepsLast
        }
    }

    /// SIGSTOP, and SIGCONT after that time.
    func stop(for duration: Instant) {
        guard !isStopped else { return }
        world.note("\(name) is stopped for \(duration / 1_000) ms")
        isStopped = true
        world.after(duration) {
            self.isStopped = false
            let deferred = self.deferred
            self.deferred = []
            for run in deferred { run() }
        }
    }

    func whenAwake(_ run: @escaping () -> Void) {
        if isStopped { deferred.append(run) } else { run() }
    }

    /// What dies with the process.
    final class Process {
        let node: SimulatedNode
        var topology: Topology
        var replica: SimulatedReplica?
        /// Changes of topology and replicas that wait for the one under way.
        private var changes: [(@escaping () -> Void) -> Void] = []
        private var isChanging = false
        var startHold: WriteHold?
        var question: StartQuestion?
        var doubt: TermDoubt?

        var world: Simulation { node.world }
        var isAlive: Bool { node.process === self }
        var shard: ShardTopology? { topology.shard(named: SimulatedReplica.shard) }

        init(_ node: SimulatedNode) {
            self.node = node
            topology = node.disk.read { $0.topology } ?? node.world.original
        }

        /// Runs later, unless the process is gone then.
        func after(_ delay: Instant, _ run: @escaping () -> Void) {
            world.after(delay) {
                self.node.whenAwake {
                    guard self.isAlive else { return }
                    run()
                }
            }
        }

        /// One change at a time; each says when it is done.
        func change(_ body: @escaping (@escaping () -> Void) -> Void) {
            changes.append(body)
            nextChange()
        }

        private func nextChange() {
            guard !isChanging, !changes.isEmpty, isAlive else { return }
            isChanging = true
            let body = changes.removeFirst()
            body {
                guard self.isAlive else { return }
                self.isChanging = false
                self.nextChange()
            }
        }
    }
}

// MARK: - What replicators ask

extension SimulatedNode.Process {
    func position(_ reply: (PositionOutcome) -> Void) {
        guard let replica else { return reply(.failed("no replica")) }
        reply(.position(replica.commits.committed, replica.role.isLeader ? .leader : .follower, damaged: damage))
    }

    private var damage: String? { node.isDamaged ? "a block" : nil }

    func readLog(after position: LogPosition, wait: Instant, bytesMax: Int, _ reply: @escaping (ReadOutcome) -> Void) {
        guard let replica, replica.role.isLeader else { return reply(.failed("not the leader")) }
        switch replica.read(after: position, bytesMax: bytesMax) {
        case .frames(let frames, _):
            do {
                let clock = leaderClock(replica)
                let segment = try LogSegment(verifying: frames, after: position, leaderTerm: clock.term)
                reply(.segment(segment, clock))
            } catch {
                world.ledger.violated("the frames of \(node.name) do not hold: \(error)")
            }
        case .caughtUp where wait > 0:
            let deadline = world.now + wait
            replica.waitForCommit(after: position, wait: wait) {
                self.readLog(after: position, wait: max(0, deadline - self.world.now), bytesMax: bytesMax, reply)
            }
        case .caughtUp: reply(.nothingNew(leaderClock(replica)))
        case .needsDisk: reply(.failed("needs the disk"))
        case .truncated(let first): reply(.cannotContinue("the log begins at \(first)"))
        case .diverged(let reason): reply(.cannotContinue(reason))
        }
    }

    private func leaderClock(_ replica: SimulatedReplica) -> LeaderClock {
        let clock = node.clock.wall
        let committed = replica.commits.committed
        return LeaderClock(
            term: committed.term, lsn: committed.lsn, milliseconds: replica.role.isLeader ? clock : nil)
    }

    func take(_ push: LogPush, _ reply: @escaping (PushOutcome) -> Void) {
        guard let replica else { return reply(.failed("no replica")) }
        var frames: [LogFrame] = []
        if var bytes = push.segment?.bytes {
            while let frame = try? LogFrame.decode(from: &bytes) { frames.append(frame) }
        }
        var term = push.term
        if world.sabotage == .takeOldTerms { term = max(term, replica.core.newestTerm) }
        let isQueued = replica.apply(frames, leaderTerm: term) { outcome in
            let position = outcome.position
            if outcome.failure == nil || outcome.failure?.code == .logMismatch {
                self.world.ledger.tookWord(ofTerm: push.term, by: self.node)
                self.hear(push, at: position)
            }
            switch outcome.failure?.code {
            case nil: reply(.accepted(position, damaged: self.damage))
            case .logMismatch: reply(.rejected(position))
            default: reply(.failed("\(outcome.failure.map { "\($0)" } ?? "")"))
            }
        }
        if !isQueued { reply(.failed("overloaded")) }
    }

    private func hear(_ push: LogPush, at position: LogPosition) {
        guard let replica else { return }
        let now = node.clock.reading
        if let clock = push.clock, let milliseconds = clock.milliseconds {
            replica.freshness.heartbeat(
                ReplicaFreshness.Heartbeat(lsn: clock.lsn, clockMilliseconds: milliseconds, term: push.term),
                position: position, now: now)
        } else {
            replica.freshness.applied(position, now: now)
        }
        if replica.freshness.hasCaughtUp { node.disk.write { $0.isJoining = false } }
    }

    func take(_ report: AckReport, _ reply: (ReportOutcome) -> Void) {
        guard let replica, replica.role.isLeader else { return reply(.failed("not the leader")) }
        for ack in report.acks {
            replica.end(replica.acks.acked(ack.follower, ack.position, atMilliseconds: node.clock.monotonic))
        }
        reply(.taken)
    }
}

// MARK: - What clients ask

extension SimulatedNode.Process {
    enum WriteAnswer {
        case done(LogPosition, Version, isReached: Bool)
        case elsewhere(NodeAddress?)
        case failed
    }

    /// As many replicas of as many as the leader counts must have it before `isReached` is answered.
    func write(
        _ operation: WriteOperation, ack level: AckLevel, timeout: Instant, _ reply: @escaping (WriteAnswer) -> Void
    ) {
        guard let replica, let shard else { return reply(.elsewhere(self.shard?.leader)) }
        guard shard.leader == node.address, replica.role.isLeader else { return reply(.elsewhere(shard.leader)) }
        guard level == .leader || replica.acks.reserve(1) else { return reply(.failed) }
        let isQueued = replica.submit([operation]) { receipt in
            guard receipt.failure == nil, let version = receipt.version(at: 0) else {
                if level != .leader { replica.acks.release(1) }
                return reply(.elsewhere(nil))
            }
            guard level != .leader else { return reply(.done(receipt.position, version, isReached: true)) }
            self.await(level, receipt.position, timeout) { isReached in
                if isReached, let shard = self.shard {
                    self.world.ledger.reached(level, receipt.position, of: shard.replicas)
                }
                reply(.done(receipt.position, version, isReached: isReached))
            }
        }
        if !isQueued {
            if level != .leader { replica.acks.release(1) }
            reply(.failed)
        }
    }

    private func await(
        _ level: AckLevel, _ position: LogPosition, _ timeout: Instant, _ reply: @escaping (Bool) -> Void
    ) {
        guard let replica else { return reply(false) }
        var target = AckTarget.level(level)
        if world.sabotage == .oneAckTooFew { target = .level(.leader) }
        switch replica.acks.add(target, lsn: position.lsn, writes: 1, { reply($0 == .reached) }) {
        case .ended(let outcome): reply(outcome == .reached)
        case .waiting(let token):
            after(timeout) { if replica.acks.cancel(token) != nil { reply(false) } }
        }
    }

    enum ReadAnswer {
        /// From a replica that stood there, and how old it said it was.
        case value(LogPosition, lagMilliseconds: UInt64?)
        case elsewhere(NodeAddress?)
        case failed
    }

    func read(minVersion: Version, _ reply: (ReadAnswer) -> Void) {
        guard let replica, let shard else { return reply(.elsewhere(self.shard?.leader)) }
        let leads = shard.leader == node.address
        let lag = leads ? nil : replica.freshness.asOf.map { UInt64(clamping: Int64(node.clock.monotonic) - $0) }
        let decision = ReadDecision(
            Guarantees(), minVersion: minVersion,
            at: ReadDecision.Situation(
                leads: leads, isLeader: replica.role.isLeader, isJoining: replica.isJoining, lagMilliseconds: lag,
                mayWait: false), newest: replica.newestVersion)
        switch decision {
        case .answer: reply(.value(replica.commits.committed, lagMilliseconds: lag))
        case .redirectToLeader: reply(.elsewhere(shard.leader))
        case .waitForVersion, .refuseVersion, .leaderIsChanging: reply(.failed)
        }
    }
}
