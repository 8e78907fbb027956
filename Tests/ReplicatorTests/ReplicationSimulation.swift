import Core
import NIOCore
import Sharding
import Wire

@testable import ReplicatorService

/// Frames for tests; the content of a batch does not matter to a replicator.
func makeFrame(_ position: LogPosition, batchBytes: Int) -> ByteBuffer {
    var bytes = ByteBuffer()
    LogFrame(
        position: position, batch: ByteBuffer(repeating: UInt8(truncatingIfNeeded: position.lsn), count: batchBytes)
    )
    .encode(into: &bytes)
    return bytes
}

/// One leader, its followers and the network between them and a ``ShardReplication``, in virtual time.
///
/// Everything that can go wrong does, by chance, until ``faultsEnd``: lost requests, lost answers, requests that
/// arrive twice and late, delays, restarts of every node, followers that come back with less than they had said.
final class ReplicationSimulation {
    struct Faults {
        var lossPercent: UInt64 = 0
        var duplicatePercent: UInt64 = 0
        var delayMicrosecondsMax: UInt64 = 200
        var restarts = false
        var rollbacks = false
        /// Parts of snapshots that do not match their checksum.
        var corruptPercent: UInt64 = 0
        /// Pushes that are not sent, because others to the same node come first.
        var postponedPercent: UInt64 = 0
        /// Events in times when memory is short.
        var tightPercent: UInt64 = 0
    }

    final class Leader {
        var frames: [(position: LogPosition, bytes: ByteBuffer)] = []
        /// When each frame was appended, in milliseconds, rounded down.
        var appendedAt: [Int64] = []
        var firstRetained: UInt64 = 1
        var term: UInt64 = 1
        var isUp = true
        /// What it was told of each follower; lost in a restart.
        var acks: [NodeAddress: LogPosition] = [:]
        var reportCount = 0
        var waiters: [(after: LogPosition, deadline: Duration, reply: (ReadOutcome) -> Void)] = []
        var readCount = 0
        var checkpoints = SimulatedCheckpoints()
        var restarts = 0
        /// Gives no snapshots.
        var isDamaged = false

        var last: LogPosition { frames.last?.position ?? .start }
    }

    final class Follower {
        var applied: [LogPosition] = []
        var isUp = true
        /// Takes requests and never answers.
        var isSilent = false
        var gapCount = 0
        var pushCount = 0
        var heartbeatCount = 0
        /// Every position it ever had.
        var appliedEver: Set<LogPosition> = []
        var reception = SimulatedReception()
        var restarts = 0
        /// Has to be rebuilt; on its disk, so that a restart does not mend it.
        var damage: String?
        /// Takes no batches any more, until it is rebuilt.
        var isStopped = false

        var position: LogPosition { applied.last ?? .start }
    }

    let limits: ReplicationLimits
    var faults: Faults
    let leader = Leader()
    let followers: [Follower]
    /// Each is a replicator; one, if nothing else is said.
    var replications: [ShardReplication]
    /// Answers to a replicator that was restarted meanwhile go nowhere.
    private var incarnations: [Int]
    private let seed: UInt64
    private(set) var now = Duration.zero
    private var outstanding: [Int]
    private(set) var outstandingSeen = 0
    private(set) var bytesInFlightSeen = 0
    private(set) var windowBytesSeen = 0
    private(set) var eventCount = 0
    /// Clocks sent that were newer than the state they stood with.
    private(set) var wrongClocks = 0
    /// Acks of positions that the follower never had.
    private(set) var unfoundedAcks = 0
    private(set) var notices: [String] = []
    /// How often the leader was asked for a snapshot.
    var openCount = 0
    var random: TestRandom
    private var queue: [(time: Duration, order: Int, run: () -> Void)] = []
    private var order = 0

    init(seed: UInt64, followers count: Int, replicators: Int = 1, limits: ReplicationLimits, faults: Faults) {
        self.seed = seed
        self.limits = limits
        self.faults = faults
        self.random = TestRandom(seed: seed)
        self.followers = (0..<count).map { _ in Follower() }
        let shard = ShardTopology(
            name: "shard-0", index: 0, term: 1, leader: NodeAddress(host: "leader", port: 1),
            followers: (0..<count).map { NodeAddress(host: "follower\($0)", port: 1) }, slots: [])
        replications = (0..<replicators).map {
            ShardReplication(shard: shard, limits: limits, seed: seed &+ UInt64($0))
        }
        incarnations = replications.map { _ in 0 }
        outstanding = replications.map { _ in 0 }
    }

    var replication: ShardReplication { replications[0] }

    func start() {
        for who in replications.indices { handle(.start, who) }
    }

    /// A replicator keeps nothing: it begins anew, and what was on its way still arrives at the nodes.
    func restartReplicator(_ who: Int) {
        incarnations[who] += 1
        outstanding[who] = 0
        replications[who] = ShardReplication(
            shard: replications[who].shard, limits: limits, seed: random.next())
        handle(.start, who)
    }

    func schedule(after delay: Duration, _ run: @escaping () -> Void) {
        order += 1
        let entry = (time: now + delay, order: order, run: run)
        let index = queue.firstIndex { $0.time > entry.time } ?? queue.count
        queue.insert(entry, at: index)
    }

    /// Runs what is due until `end`, or until `isDone`.
    @discardableResult func run(until end: Duration, isDone: () -> Bool = { false }) -> Bool {
        while !isDone() {
            guard let first = queue.first, first.time <= end else {
                now = max(now, end)
                return isDone()
            }
            queue.removeFirst()
            now = first.time
            first.run()
        }
        return true
    }

    func chance(_ percent: UInt64) -> Bool { random.next() % 100 < percent }

    func append(batchBytes: Int) {
        let last = leader.last
        let position = LogPosition(
            term: leader.term, lsn: last.lsn + 1,
            version: Version(rawValue: last.version.rawValue + 1 + random.next() % 5))
        leader.frames.append((position, makeFrame(position, batchBytes: batchBytes)))
        leader.appendedAt.append(now.wholeMilliseconds)
        guard leader.isUp else { return }
        let waiters = leader.waiters
        leader.waiters = []
        for waiter in waiters { waiter.reply(leaderAnswer(after: waiter.after) ?? .failed("unreachable")) }
    }

    func crashLeader() {
        leader.isUp = false
        leader.restarts += 1
        leader.acks = [:]
        leader.checkpoints.all = []
        leader.checkpoints.isMaking = false
        let waiters = leader.waiters
        leader.waiters = []
        for waiter in waiters { waiter.reply(.failed("connection reset")) }
    }

    func crashFollower(_ follower: Follower) {
        follower.isUp = false
        follower.restarts += 1
        // Killed while it was being installed: it comes up with the old one or with the new one.
        if follower.reception.isInstalling, chance(50), let manifest = follower.reception.manifest {
            finishInstall(manifest, follower)
        }
        follower.reception.restart()
    }

    var isConverged: Bool {
        followers.allSatisfy { $0.damage == nil && $0.applied == leader.frames.map(\.position) }
    }

    /// Whether the leader knows that every follower has everything.
    var isAcknowledged: Bool { replication.shard.followers.allSatisfy { leader.acks[$0] == leader.last } }

    // MARK: the replicator's side

    private func handle(_ event: ShardReplication.Event, _ who: Int) {
        eventCount += 1
        let isTight = faults.tightPercent > 0 && random.next() % 100 < faults.tightPercent
        for action in replications[who].handle(event, now: now, isTight: isTight) { perform(action, who) }
        outstandingSeen = max(outstandingSeen, outstanding[who])
        for progress in replications[who].followers {
            bytesInFlightSeen = max(bytesInFlightSeen, progress.bytesInFlight)
        }
        windowBytesSeen = max(windowBytesSeen, replications[who].feed.window?.footprint ?? 0)
    }

    /// Notes a request or timer; what is returned takes its answer to the one who waits for it.
    private func expectAnswer(_ who: Int) -> (ShardReplication.Event) -> Void {
        outstanding[who] += 1
        let incarnation = incarnations[who]
        return { event in
            guard incarnation == self.incarnations[who] else { return }
            self.outstanding[who] -= 1
            self.handle(event, who)
        }
    }

    func wait(_ duration: Duration, _ who: Int, _ event: ShardReplication.Event) {
        let answer = expectAnswer(who)
        schedule(after: duration) { answer(event) }
    }

    func note(_ notice: Any) { notices.append("\(notice)") }

    private func perform(_ action: ShardReplication.Action, _ who: Int) {
        switch action {
        case .feedNotice(let notice): note(notice)
        case .follower(_, .notice(let notice)): note(notice)
        case .feed(.wait(let duration, let timer)):
            wait(duration, who, .feed(.timerFired(timer)))
        case .feed(.read(let position)):
            read(position, wait: limits.longPollWait, who) { .feed(.read(after: position, $0)) }
        case .feed(.askPosition):
            ask(isUp: { self.leader.isUp }, { .position(self.leader.last, .leader) }, who, { .feed(.position($0)) })
        case .follower(let index, .wait(let duration)):
            wait(duration, who, .follower(index, .timerFired))
        case .follower(let index, .probe):
            probe(index, who) { .follower(index, .probed($0)) }
        case .follower(let index, .read(let position, _)):
            read(position, wait: .zero, who) { .follower(index, .read(after: position, $0)) }
        case .follower(let index, .push(let push)):
            self.push(push, index, who)
        case .follower(let index, .snapshot(let action)):
            perform(action, index, who)
        case .report(let report):
            self.report(report, who)
        case .waitToReport(let duration):
            wait(duration, who, .reportTimerFired)
        }
    }

    func probe(_ index: Int, _ who: Int, _ event: @escaping (PositionOutcome) -> ShardReplication.Event) {
        let follower = followers[index]
        ask(
            isUp: { follower.isUp && !follower.isSilent && !follower.reception.isInstalling },
            { .position(follower.position, .follower, damaged: follower.damage) }, who, event)
    }

    // MARK: the network

    private var delay: Duration { .microseconds(Int64(random.next() % faults.delayMicrosecondsMax)) }

    /// Sends a request and its answer back; `serve` runs at the node, perhaps twice, and answers through its argument.
    func exchange<Outcome>(
        timeout: Duration, failed: Outcome, _ who: Int, _ serve: @escaping (@escaping (Outcome) -> Void) -> Void,
        _ event: @escaping (Outcome) -> ShardReplication.Event
    ) {
        let answer = expectAnswer(who)
        var isAnswered = false
        let finish: (Outcome) -> Void = { outcome in
            guard !isAnswered else { return }
            isAnswered = true
            answer(event(outcome))
        }
        schedule(after: timeout) { finish(failed) }
        let copies = chance(faults.duplicatePercent) ? 2 : 1
        for copy in 0..<copies where !chance(faults.lossPercent) {
            let late = copy == 1 ? Duration.milliseconds(Int64(random.next() % 300)) : .zero
            schedule(after: delay + late) {
                serve { outcome in
                    guard !self.chance(self.faults.lossPercent) else { return }
                    self.schedule(after: self.delay) { finish(outcome) }
                }
            }
        }
    }

    private func ask(
        isUp: @escaping () -> Bool, _ position: @escaping () -> PositionOutcome, _ who: Int,
        _ event: @escaping (PositionOutcome) -> ShardReplication.Event
    ) {
        exchange(
            timeout: limits.answerTimeout, failed: .failed("timed out"), who,
            { reply in reply(isUp() ? position() : .failed("refused")) }, event)
    }

    private func read(
        _ position: LogPosition, wait: Duration, _ who: Int, _ event: @escaping (ReadOutcome) -> ShardReplication.Event
    ) {
        exchange(
            timeout: wait + limits.answerTimeout, failed: .failed("timed out"), who,
            { reply in
                self.leader.readCount += 1
                if let outcome = self.leaderAnswer(after: position) { return reply(outcome) }
                guard wait > .zero else { return reply(.nothingNew(self.leaderClock)) }
                let deadline = self.now + wait
                self.leader.waiters.append((position, deadline, reply))
                self.schedule(after: wait) {
                    let due = self.leader.waiters.filter { $0.deadline <= self.now }
                    self.leader.waiters.removeAll { $0.deadline <= self.now }
                    for waiter in due { waiter.reply(.nothingNew(self.leaderClock)) }
                }
            }, event)
    }

    private func push(_ push: LogPush, _ index: Int, _ who: Int) {
        let follower = followers[index]
        if push.segment != nil, faults.postponedPercent > 0, random.next() % 100 < faults.postponedPercent {
            return schedule(after: .zero) { self.handle(.follower(index, .pushed(.postponed)), who) }
        }
        if let clock = push.clock { wrongClocks += check(clock) ? 0 : 1 }
        exchange(
            timeout: limits.pushTimeout, failed: .failed("timed out"), who,
            { reply in
                guard follower.isUp else { return reply(.failed("refused")) }
                guard !follower.isSilent, !follower.reception.isInstalling else { return }
                guard !follower.isStopped else {
                    follower.pushCount += 1
                    return reply(.failed("a block is damaged"))
                }
                reply(self.apply(push, to: follower))
            }, { .follower(index, .pushed($0)) })
    }

    private func report(_ report: AckReport, _ who: Int) {
        for ack in report.acks {
            guard let index = replications[who].shard.followers.firstIndex(of: ack.follower) else { continue }
            if !followers[index].appliedEver.contains(ack.position), ack.position != .start { unfoundedAcks += 1 }
        }
        exchange(
            timeout: limits.answerTimeout, failed: .failed("timed out"), who,
            { reply in
                guard self.leader.isUp else { return reply(.failed("refused")) }
                self.leader.reportCount += 1
                for ack in report.acks { self.leader.acks[ack.follower] = ack.position }
                reply(.taken)
            }, { .reported($0) })
    }

    // MARK: the nodes

    private var leaderClock: LeaderClock {
        LeaderClock(term: leader.term, lsn: leader.last.lsn, milliseconds: UInt64(now.wholeMilliseconds))
    }

    /// Whether the leader had committed nothing above the clock's lsn at the clock's time.
    private func check(_ clock: LeaderClock) -> Bool {
        guard let milliseconds = clock.milliseconds, clock.lsn < leader.last.lsn else { return true }
        return leader.appendedAt[Int(clock.lsn)] >= Int64(milliseconds)
    }

    /// What the leader answers at once; nil where it has nothing new.
    private func leaderAnswer(after position: LogPosition) -> ReadOutcome? {
        guard leader.isUp else { return .failed("refused") }
        if position.lsn > 0 {
            guard position.lsn <= leader.last.lsn, leader.frames[Int(position.lsn) - 1].position == position else {
                return .cannotContinue("diverged", isDiverged: true)
            }
        }
        guard position.lsn + 1 >= leader.firstRetained else { return .cannotContinue("truncated") }
        guard position.lsn < leader.last.lsn else { return nil }
        var bytes = ByteBuffer()
        for frame in leader.frames[Int(position.lsn)...] {
            guard bytes.readableBytes == 0 || bytes.readableBytes + frame.bytes.readableBytes <= limits.batchBytesMax
            else { break }
            bytes.writeImmutableBuffer(frame.bytes)
        }
        do {
            let segment = try LogSegment(verifying: bytes, after: position, leaderTerm: leader.term)
            return .segment(segment, leaderClock)
        } catch {
            preconditionFailure("the leader's own frames hold: \(error)")
        }
    }

    /// A follower as the protocol has it: skips what it has, refuses what leaves a gap.
    private func apply(_ push: LogPush, to follower: Follower) -> PushOutcome {
        guard let segment = push.segment else {
            follower.heartbeatCount += 1
            follower.appliedEver.insert(follower.position)
            return .accepted(follower.position, damaged: follower.damage)
        }
        follower.pushCount += 1
        var bytes = segment.bytes
        var fresh: [LogPosition] = []
        while let frame = try? LogFrame.decode(from: &bytes) {
            if frame.position.lsn > follower.position.lsn { fresh.append(frame.position) }
        }
        guard let first = fresh.first else { return .accepted(follower.position, damaged: follower.damage) }
        guard first.lsn == follower.position.lsn + 1 else {
            follower.gapCount += 1
            return .rejected(follower.position)
        }
        follower.applied += fresh
        follower.appliedEver.formUnion(fresh)
        return .accepted(follower.position, damaged: follower.damage)
    }
}
