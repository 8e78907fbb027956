import Core
import NIOCore
import Sharding
import Wire

@testable import ReplicatorService

/// A replicator's process: ``ShardReplication`` with the simulated network for its transport.
final class SimulatedReplicator {
    unowned let world: Simulation
    let name: String
    private var run: Run?

    init(_ world: Simulation, _ name: String) {
        self.world = world
        self.name = name
    }

    var description: String {
        guard let run else { return "down" }
        let status = run.replication.status(now: .microseconds(world.now))
        return "epoch \(run.topology.epoch), leader \(status.leader) \(status.leaderLsn) \(status.leaderError ?? ""), "
            + status.followers.map { "\($0.address) \($0.state) \($0.lsn) \($0.lastError ?? "")" }.joined(
                separator: "; ")
    }

    func start() {
        guard run == nil else { return }
        let run = Run(self, world.original)
        self.run = run
        run.begin()
    }

    func crash() {
        guard run != nil else { return }
        world.note("\(name) crashes")
        run = nil
    }

    fileprivate func isCurrent(_ run: Run) -> Bool { self.run === run }

    /// What dies with the process.
    fileprivate final class Run {
        let replicator: SimulatedReplicator
        var topology: Topology
        var replication: ShardReplication
        /// Rises when the replication begins anew: what was asked for before is answered to nobody.
        var generation = 0
        var outstanding = 0
        var isFetching = false
        let limits: ReplicationLimits

        var world: Simulation { replicator.world }

        init(_ replicator: SimulatedReplicator, _ topology: Topology) {
            self.replicator = replicator
            self.topology = topology
            var limits = ReplicationLimits()
            limits.batchBytesMax = 700
            limits.inFlightBytesMax = 1_400
            limits.windowBytesMax = 4_000
            limits.readAheadBytesMax = 1_400
            limits.snapshotRangeBytesMax = 30
            self.limits = limits
            replication = ShardReplication(
                shard: topology.shards[0], limits: limits, seed: replicator.world.random.next())
        }

        func begin() { handle(.start) }

        private var isCurrent: Bool { replicator.isCurrent(self) }

        private func handle(_ event: ShardReplication.Event) {
            for action in replication.handle(event, now: .microseconds(world.now)) { perform(action) }
            if outstanding > ShardReplication.outstandingMax(followers: replication.shard.followers.count) {
                world.ledger.violated("\(replicator.name) has \(outstanding) actions under way")
            }
        }

        /// Runs `body` with a way to answer, which counts as one action under way.
        private func begin<Outcome>(
            _ event: @escaping (Outcome) -> ShardReplication.Event, _ body: (@escaping (Outcome) -> Void) -> Void
        ) {
            outstanding += 1
            let generation = generation
            body { outcome in
                guard self.isCurrent, self.generation == generation else { return }
                self.outstanding -= 1
                self.handle(event(outcome))
            }
        }

        private func wait(_ duration: Duration, _ event: ShardReplication.Event) {
            begin({ event }) { (reply: @escaping (()) -> Void) in
                world.after(Instant(duration / .microseconds(1))) { reply(()) }
            }
        }

        private func ask<Outcome>(
            _ node: NodeAddress, _ timeout: Duration, failed: Outcome,
            _ event: @escaping (Outcome) -> ShardReplication.Event,
            _ serve: @escaping (SimulatedNode.Process, @escaping (Outcome) -> Void) -> Void
        ) {
            begin(event) { reply in
                guard let other = world.node(node) else { return reply(failed) }
                world.network.exchange(
                    from: replicator.name, to: other, timeout: Instant(timeout / .microseconds(1)),
                    failed: (failed, UInt64(0)),
                    { process, reply in serve(process) { reply(($0, process.topology.epoch)) } },
                    { outcome, epoch in
                        guard self.isCurrent else { return }
                        self.observe(epoch, of: node)
                        reply(outcome)
                    })
            }
        }

        // MARK: Topologies

        private func observe(_ epoch: UInt64, of node: NodeAddress) {
            guard epoch > topology.epoch, !isFetching, let other = world.node(node) else { return }
            isFetching = true
            world.network.exchange(
                from: replicator.name, to: other, timeout: 1_000_000, failed: Topology?.none, { $1($0.topology) }
            ) { theirs in
                guard self.isCurrent else { return }
                self.isFetching = false
                guard let theirs, theirs.epoch > self.topology.epoch else { return }
                self.restart(theirs)
            }
        }

        private func restart(_ topology: Topology) {
            let isSame = topology.shards[0] == self.topology.shards[0]
            self.topology = topology
            guard !isSame else { return }
            generation += 1
            outstanding = 0
            replication = ShardReplication(shard: topology.shards[0], limits: limits, seed: world.random.next())
            begin()
        }

        // MARK: Actions

        private func perform(_ action: ShardReplication.Action) {
            let leader = replication.shard.leader
            switch action {
            case .feedNotice, .follower(_, .notice): break
            case .feed(.wait(let duration, let timer)): wait(duration, .feed(.timerFired(timer)))
            case .feed(.askPosition):
                ask(leader, limits.answerTimeout, failed: PositionOutcome.failed("no answer"), { .feed(.position($0)) })
                {
                    $0.position($1)
                }
            case .feed(.read(let position)):
                readLog(leader, position, limits.longPollWait) { .feed(.read(after: position, $0)) }
            case .report(let report):
                ask(leader, limits.answerTimeout, failed: ReportOutcome.failed("no answer"), { .reported($0) }) {
                    $0.take(report, $1)
                }
            case .waitToReport(let duration): wait(duration, .reportTimerFired)
            case .follower(let index, let action): perform(action, index, leader)
            }
        }

        private func readLog(
            _ leader: NodeAddress, _ position: LogPosition, _ wait: Duration,
            _ event: @escaping (ReadOutcome) -> ShardReplication.Event
        ) {
            let bytesMax = limits.batchBytesMax
            ask(leader, wait + limits.answerTimeout, failed: ReadOutcome.failed("no answer"), event) {
                $0.readLog(after: position, wait: Instant(wait / .microseconds(1)), bytesMax: bytesMax, $1)
            }
        }

        private func perform(_ action: FollowerProgress.Action, _ index: Int, _ leader: NodeAddress) {
            let follower = replication.shard.followers[index]
            switch action {
            case .probe:
                ask(
                    follower, limits.answerTimeout, failed: PositionOutcome.failed("no answer"),
                    { .follower(index, .probed($0)) }
                ) { $0.position($1) }
            case .read(let position, _):
                readLog(leader, position, .zero) { .follower(index, .read(after: position, $0)) }
            case .push(let push):
                ask(
                    follower, limits.pushTimeout, failed: PushOutcome.failed("no answer"),
                    { .follower(index, .pushed($0)) }
                ) { $0.take(push, $1) }
            case .wait(let duration): wait(duration, .follower(index, .timerFired))
            case .snapshot(let action): perform(action, index, follower, leader)
            case .notice: break
            }
        }
    }
}

// MARK: - Snapshots

extension SimulatedReplicator.Run {
    private func perform(
        _ action: SnapshotTransfer.Action, _ index: Int, _ follower: NodeAddress, _ leader: NodeAddress
    ) {
        func event(_ event: SnapshotTransfer.Event) -> ShardReplication.Event { .follower(index, .snapshot(event)) }
        switch action {
        case .awaitTurn: wait(.zero, event(.turn(nil)))
        case .waitToRetry(let duration): wait(duration, event(.retryTimerFired))
        case .waitToTouch(let duration): wait(duration, event(.touchTimerFired))
        case .open(let lsn):
            ask(leader, limits.snapshotWorkTimeout, failed: .lost, { event(.opened(Self.opening($0))) }) {
                $0.openSnapshot(atLeast: lsn, $1)
            }
        case .offer(let manifest):
            ask(follower, limits.pushTimeout, failed: .lost, { event(.offered(Self.offering($0))) }) {
                $0.beginSnapshot(manifest, $1)
            }
        case .fetch(let range):
            ask(
                leader, limits.pushTimeout, failed: .lost, { event(.fetched(range, Self.fetching($0, range))) }
            ) {
                $0.readSnapshot(id: range.id, file: range.file, offset: range.offset, length: range.length, $1)
            }
        case .send(let chunk):
            let range = chunk.range
            ask(follower, limits.pushTimeout, failed: .lost, { event(.sent(range, Self.sending($0))) }) {
                $0.appendSnapshot(id: range.id, file: range.file, offset: range.offset, bytes: range.length, $1)
            }
        case .install(let manifest, _):
            ask(follower, limits.snapshotWorkTimeout, failed: .lost, { event(.installed(Self.installing($0))) }) {
                $0.installSnapshot(id: manifest.id, $1)
            }
        case .probe:
            ask(
                follower, limits.answerTimeout, failed: PositionOutcome.failed("no answer"), { event(.probed($0)) }
            ) { $0.position($1) }
        case .release(let id):
            ask(leader, limits.answerTimeout, failed: .lost, { _ in event(.released) }) {
                $0.releaseSnapshot(id: id, $1)
            }
        case .discard(let id):
            ask(follower, limits.answerTimeout, failed: .lost, { _ in event(.released) }) {
                $0.discardSnapshot(id: id, $1)
            }
        case .notice: break
        }
    }

    private typealias Answer = SimulatedNode.Process.SnapshotAnswer

    private static func opening(_ answer: Answer<SnapshotManifest>) -> SnapshotOpening {
        switch answer {
        case .value(let manifest): .opened(manifest)
        case .refused(let error) where error.code == .corrupted: .damaged("\(error)")
        case .refused(let error): .failed("\(error)")
        case .lost: .failed("no answer")
        }
    }

    private static func offering(_ answer: Answer<SnapshotReceipt>) -> SnapshotOffering {
        switch answer {
        case .value(let receipt): .receipt(receipt)
        case .refused(let error):
            switch error.code {
            case .snapshotBusy: .busy("\(error)")
            case .snapshotMismatch, .staleTerm: .useless("\(error)")
            default: .failed("\(error)")
            }
        case .lost: .failed("no answer")
        }
    }

    private static func fetching(_ answer: Answer<Int>, _ range: SnapshotRange) -> SnapshotFetching {
        switch answer {
        case .value: .chunk(SnapshotChunk(range: range, bytes: ByteBuffer(), checksum: "00000000"))
        case .refused(let error): error.code == .unknownSnapshot ? .gone("\(error)") : .failed("\(error)")
        case .lost: .failed("no answer")
        }
    }

    private static func sending(_ answer: Answer<SnapshotReceipt>) -> SnapshotSending {
        switch answer {
        case .value(let receipt): receipt.files.first.map { .taken($0.received) } ?? .failed("no file")
        case .refused(let error):
            switch error.code {
            case .snapshotBusy, .snapshotMismatch: .overtaken("\(error)")
            default: .failed("\(error)")
            }
        case .lost: .failed("no answer")
        }
    }

    private static func installing(_ answer: Answer<LogPosition>) -> SnapshotInstalling {
        switch answer {
        case .value(let position): .installed(position)
        case .refused(let error):
            switch error.code {
            case .snapshotBusy: .busy("\(error)")
            case .snapshotMismatch: .incomplete("\(error)")
            case .staleTerm: .useless("\(error)")
            default: .failed("\(error)")
            }
        case .lost: .failed("no answer")
        }
    }
}
