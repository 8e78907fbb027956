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

        var position: LogPosition { applied.last ?? .start }
    }

    let limits: ReplicationLimits
    var faults: Faults
    let leader = Leader()
    let followers: [Follower]
    var replication: ShardReplication
    private(set) var now = Duration.zero
    private(set) var outstanding = 0
    private(set) var outstandingSeen = 0
    private(set) var bytesInFlightSeen = 0
    private(set) var windowBytesSeen = 0
    private(set) var eventCount = 0
    /// Clocks sent that were newer than the state they stood with.
    private(set) var wrongClocks = 0
    /// Acks of positions that the follower never had.
    private(set) var unfoundedAcks = 0
    private(set) var notices: [String] = []
    var random: TestRandom
    private var queue: [(time: Duration, order: Int, run: () -> Void)] = []
    private var order = 0

    init(seed: UInt64, followers count: Int, limits: ReplicationLimits, faults: Faults) {
        self.limits = limits
        self.faults = faults
        self.random = TestRandom(seed: seed)
        self.followers = (0..<count).map { _ in Follower() }
        let shard = ShardTopology(
            name: "shard-0", index: 0, term: 1, leader: NodeAddress(host: "leader", port: 1),
            followers: (0..<count).map { NodeAddress(host: "follower\($0)", port: 1) }, slots: [])
        replication = ShardReplication(shard: shard, limits: limits, seed: seed)
    }

    func start() { handle(.start) }

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
        leader.acks = [:]
        let waiters = leader.waiters
        leader.waiters = []
        for waiter in waiters { waiter.reply(.failed("connection reset")) }
    }

    var isConverged: Bool { followers.allSatisfy { $0.applied == leader.frames.map(\.position) } }

    /// Whether the leader knows that every follower has everything.
    var isAcknowledged: Bool { replication.shard.followers.allSatisfy { leader.acks[$0] == leader.last } }

    // MARK: the replicator's side

    private func handle(_ event: ShardReplication.Event) {
        eventCount += 1
        for action in replication.handle(event, now: now) { perform(action) }
        outstandingSeen = max(outstandingSeen, outstanding)
        for progress in replication.followers { bytesInFlightSeen = max(bytesInFlightSeen, progress.bytesInFlight) }
        windowBytesSeen = max(windowBytesSeen, replication.feed.window?.footprint ?? 0)
    }

    private func answer(_ event: @escaping @autoclosure () -> ShardReplication.Event) {
        outstanding -= 1
        handle(event())
    }

    private func perform(_ action: ShardReplication.Action) {
        switch action {
        case .feedNotice(let notice): notices.append("\(notice)")
        case .follower(_, .notice(let notice)): notices.append("\(notice)")
        case .feed(.wait(let duration, let timer)):
            outstanding += 1
            schedule(after: duration) { self.answer(.feed(.timerFired(timer))) }
        case .feed(.read(let position)):
            read(position, wait: limits.longPollWait) { .feed(.read(after: position, $0)) }
        case .feed(.askPosition):
            ask(isUp: { self.leader.isUp }, { .position(self.leader.last, .leader) }, { .feed(.position($0)) })
        case .follower(let index, .wait(let duration)):
            outstanding += 1
            schedule(after: duration) { self.answer(.follower(index, .timerFired)) }
        case .follower(let index, .probe):
            let follower = followers[index]
            ask(
                isUp: { follower.isUp && !follower.isSilent }, { .position(follower.position, .follower) },
                { .follower(index, .probed($0)) })
        case .follower(let index, .read(let position, _)):
            read(position, wait: .zero) { .follower(index, .read(after: position, $0)) }
        case .follower(let index, .push(let push)):
            self.push(push, index)
        case .report(let report):
            self.report(report)
        case .waitToReport(let duration):
            outstanding += 1
            schedule(after: duration) { self.answer(.reportTimerFired) }
        }
    }

    // MARK: the network

    private var delay: Duration { .microseconds(Int64(random.next() % faults.delayMicrosecondsMax)) }

    /// Sends a request and its answer back; `serve` runs at the node, perhaps twice, and answers through its argument.
    private func exchange<Outcome>(
        timeout: Duration, failed: Outcome, _ serve: @escaping (@escaping (Outcome) -> Void) -> Void,
        _ event: @escaping (Outcome) -> ShardReplication.Event
    ) {
        outstanding += 1
        var isAnswered = false
        let finish: (Outcome) -> Void = { outcome in
            guard !isAnswered else { return }
            isAnswered = true
            self.answer(event(outcome))
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
        isUp: @escaping () -> Bool, _ position: @escaping () -> PositionOutcome,
        _ event: @escaping (PositionOutcome) -> ShardReplication.Event
    ) {
        exchange(
            timeout: limits.answerTimeout, failed: .failed("timed out"),
            { reply in reply(isUp() ? position() : .failed("refused")) }, event)
    }

    private func read(
        _ position: LogPosition, wait: Duration, _ event: @escaping (ReadOutcome) -> ShardReplication.Event
    ) {
        exchange(
            timeout: wait + limits.answerTimeout, failed: .failed("timed out"),
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

    private func push(_ push: LogPush, _ index: Int) {
        let follower = followers[index]
        if let clock = push.clock { wrongClocks += check(clock) ? 0 : 1 }
        exchange(
            timeout: limits.pushTimeout, failed: .failed("timed out"),
            { reply in
                guard follower.isUp else { return reply(.failed("refused")) }
                guard !follower.isSilent else { return }
                reply(self.apply(push, to: follower))
            }, { .follower(index, .pushed($0)) })
    }

    private func report(_ report: AckReport) {
        for ack in report.acks {
            guard let index = replication.shard.followers.firstIndex(of: ack.follower) else { continue }
            if !followers[index].appliedEver.contains(ack.position), ack.position != .start { unfoundedAcks += 1 }
        }
        exchange(
            timeout: limits.answerTimeout, failed: .failed("timed out"),
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
                return .cannotContinue("diverged")
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
            return .accepted(follower.position)
        }
        follower.pushCount += 1
        var bytes = segment.bytes
        var fresh: [LogPosition] = []
        while let frame = try? LogFrame.decode(from: &bytes) {
            if frame.position.lsn > follower.position.lsn { fresh.append(frame.position) }
        }
        guard let first = fresh.first else { return .accepted(follower.position) }
        guard first.lsn == follower.position.lsn + 1 else {
            follower.gapCount += 1
            return .rejected(follower.position)
        }
        follower.applied += fresh
        follower.appliedEver.formUnion(fresh)
        return .accepted(follower.position)
    }
}
