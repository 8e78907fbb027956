import Core
import NIOCore
import NIOPosix
import TestSupport
import Testing
import Wire

@testable import Shard

private func address(_ port: Int) -> NodeAddress { NodeAddress(host: "n", port: port) }
private func position(_ lsn: UInt64, term: UInt64 = 1) -> LogPosition {
    LogPosition(term: term, lsn: lsn, version: Version(rawValue: lsn << 16))
}

/// The tracker's promises, said as plainly as possible: every wait is looked at after every event.
private struct AckModel {
    struct Wait {
        var id: Int
        var target: AckTarget
        var lsn: UInt64
        var writes: Int
    }

    var term: UInt64?
    var followers: [NodeAddress] = []
    var acked: [NodeAddress: UInt64] = [:]
    var reported: [NodeAddress: UInt64] = [:]
    var waits: [Wait] = []
    var held = 0

    func progress(_ lsn: UInt64) -> AckProgress {
        let having = followers.filter { follower in acked[follower].map { $0 >= lsn } == true }
        return AckProgress(replicas: 1 + having.count, of: 1 + followers.count)
    }

    func outcome(_ target: AckTarget, _ lsn: UInt64) -> AckOutcome? {
        guard term != nil else { return .ended(progress(lsn)) }
        switch target {
        case .follower(let follower):
            guard followers.contains(follower) else { return .ended(progress(lsn)) }
            return reported[follower].map { $0 >= lsn } == true ? .reached : nil
        case .level(let level):
            let all = 1 + followers.count
            let needed: Int
            switch level {
            case .leader: needed = 1
            case .replicas(let count): needed = count
            case .quorum: needed = all / 2 + 1
            case .all: needed = all
            }
            return progress(lsn).replicas >= needed ? .reached : nil
        }
    }

    mutating func settle() -> [Int: AckOutcome] {
        var ended: [Int: AckOutcome] = [:]
        for wait in waits {
            guard let outcome = outcome(wait.target, wait.lsn) else { continue }
            ended[wait.id] = outcome
            held -= wait.writes
        }
        waits.removeAll { ended[$0.id] != nil }
        return ended
    }
}

/// Does one random thing to the tracker and to the model and compares.
private struct AckSchedule {
    var random: SeededGenerator
    var tracker = AckTracker<Int>(waitersMax: 12)
    var model = AckModel()
    var tokens: [(wait: Int, token: AckTracker<Int>.Token)] = []
    var lastWait = 0

    init(seed: UInt64) { random = SeededGenerator(seed: seed) }

    private mutating func lsn() -> UInt64 { .random(in: 0...20, using: &random) }

    private mutating func target() -> AckTarget {
        switch Int.random(in: 0...5, using: &random) {
        case 0: .level(.leader)
        case 1: .level(.quorum)
        case 2: .level(.all)
        case 3: .follower(address(.random(in: 1...4, using: &random)))
        default: .level(.replicas(.random(in: 2...4, using: &random)))
        }
    }

    mutating func step() {
        switch Int.random(in: 0...19, using: &random) {
        case 0...7: add()
        case 8...14: report()
        case 15...16: cancel()
        case 17: lead()
        case 18 where Int.random(in: 0...3, using: &random) == 0: stop()
        default: reserveAndRelease()
        }
        #expect(tracker.held == model.held)
        #expect(tracker.waiting == model.waits.count)
        #expect(tracker.held <= tracker.waitersMax)
        let lsn = lsn()
        #expect(tracker.progress(lsn: lsn) == model.progress(lsn))
    }

    private mutating func add() {
        let writes = Int.random(in: 1...3, using: &random)
        let admitted = tracker.reserve(writes)
        #expect(admitted == (model.held + writes <= 12))
        guard admitted else { return }
        let (target, lsn) = (target(), lsn())
        lastWait += 1
        let admission = tracker.add(target, lsn: lsn, writes: writes, lastWait)
        if let outcome = model.outcome(target, lsn) {
            #expect(admission == .ended(outcome))
            return
        }
        guard case .waiting(let token) = admission else {
            Issue.record("ended at once with \(admission)")
            return
        }
        tokens.append((wait: lastWait, token: token))
        model.waits.append(AckModel.Wait(id: lastWait, target: target, lsn: lsn, writes: writes))
        model.held += writes
    }

    private mutating func report() {
        let follower = address(.random(in: 1...5, using: &random))
        let term = UInt64.random(in: 0...9, using: &random) == 0 ? 99 : tracker.term ?? 1
        let lsn = lsn()
        let ended = tracker.acked(follower, position(lsn, term: term), atMilliseconds: 0)
        if term == model.term, model.followers.contains(follower) {
            model.acked[follower] = max(model.acked[follower] ?? 0, lsn)
            model.reported[follower] = lsn
        }
        compare(ended)
    }

    private mutating func cancel() {
        guard let (wait, token) = tokens.randomElement(using: &random) else { return }
        let progress = tracker.cancel(token)
        guard let index = model.waits.firstIndex(where: { $0.id == wait }) else {
            #expect(progress == nil)
            return
        }
        let cancelled = model.waits.remove(at: index)
        model.held -= cancelled.writes
        #expect(progress == model.progress(cancelled.lsn))
    }

    private mutating func lead() {
        let term = (tracker.term ?? 1) + UInt64.random(in: 0...1, using: &random)
        let followers = (1...4).filter { _ in Bool.random(using: &random) }.map(address)
        if model.term != term {
            model.acked = [:]
            model.reported = [:]
        }
        model.acked = model.acked.filter { followers.contains($0.key) }
        model.reported = model.reported.filter { followers.contains($0.key) }
        model.term = term
        model.followers = followers
        compare(tracker.lead(term: term, followers: followers))
    }

    private mutating func stop() {
        model.term = nil
        let ended = tracker.stopLeading()
        compare(ended)
        model.followers = []
        model.acked = [:]
        model.reported = [:]
    }

    private mutating func reserveAndRelease() {
        guard tracker.reserve(2) else {
            #expect(model.held > 10)
            return
        }
        tracker.release(2)
    }

    private mutating func compare(_ ended: [AckTracker<Int>.Ended]) {
        let expected = model.settle()
        #expect(ended.count == expected.count)
        for wait in ended { #expect(expected[wait.payload] == wait.outcome) }
    }
}

/// A tracker that can be asked inside of an expectation.
private final class Tracked {
    private var tracker: AckTracker<Int>

    init(waitersMax: Int = 100) { tracker = AckTracker(waitersMax: waitersMax) }

    func lead(term: UInt64, followers: [NodeAddress]) { _ = tracker.lead(term: term, followers: followers) }

    func add(_ target: AckTarget, lsn: UInt64, _ wait: Int) -> AckTracker<Int>.Admission? {
        tracker.reserve(1) ? tracker.add(target, lsn: lsn, writes: 1, wait) : nil
    }

    func waits(for target: AckTarget, lsn: UInt64, _ wait: Int) -> Bool {
        if case .waiting = add(target, lsn: lsn, wait) { true } else { false }
    }

    /// The waits that a report ends.
    func acked(_ follower: NodeAddress, _ position: LogPosition) -> [Int] {
        tracker.acked(follower, position, atMilliseconds: 0).map(\.payload)
    }
}

@Suite struct AckTrackerTests {
    @Test(arguments: 0..<200 as Range<UInt64>)
    func agreesWithAModelOfEveryWait(seed: UInt64) {
        var schedule = AckSchedule(seed: seed)
        for _ in 0..<300 { schedule.step() }
    }

    /// Many waits come and go, so that the place of those that have gone is used again.
    @Test func keepsCountOverManyWaits() {
        let tracked = Tracked(waitersMax: 1_000)
        tracked.lead(term: 1, followers: [address(1)])
        var reached: [Int] = []
        for lsn in 1...2_000 {
            #expect(tracked.waits(for: .level(.all), lsn: UInt64(lsn), lsn))
            if lsn % 3 == 0 { reached += tracked.acked(address(1), position(UInt64(lsn - lsn % 300))) }
        }
        #expect(reached == Array(1...1_800))
        #expect(tracked.acked(address(1), position(2_000)) == Array(1_801...2_000))
    }

    @Test func endsWaitsInTheOrderOfTheirBatches() {
        let tracked = Tracked()
        tracked.lead(term: 1, followers: [address(1)])
        for lsn in [5, 3, 9, 4] as [UInt64] { #expect(tracked.waits(for: .level(.all), lsn: lsn, Int(lsn))) }
        #expect(tracked.acked(address(1), position(5)) == [3, 4, 5])
        #expect(tracked.acked(address(1), position(9)) == [9])
    }

    /// Its lsn may be of a batch that this leader does not have.
    @Test func ignoresPositionsOfAnotherTerm() {
        let tracked = Tracked()
        tracked.lead(term: 7, followers: [address(1)])
        #expect(tracked.waits(for: .level(.all), lsn: 5, 1))
        #expect(tracked.acked(address(1), position(50, term: 6)) == [])
        #expect(tracked.acked(address(1), position(50, term: 8)) == [])
        #expect(tracked.acked(address(1), position(5, term: 7)) == [1])
    }

    /// A follower that came back with less must not be handed the leadership for what it once had.
    @Test func handsOverOnlyByTheNewestReport() {
        let tracked = Tracked()
        tracked.lead(term: 1, followers: [address(1)])
        #expect(tracked.acked(address(1), position(9)) == [])
        #expect(tracked.acked(address(1), position(2)) == [])
        #expect(tracked.add(.level(.all), lsn: 9, 1) == .ended(.reached))
        #expect(tracked.waits(for: .follower(address(1)), lsn: 9, 2))
        #expect(tracked.acked(address(1), position(9)) == [2])
    }
}

@Suite struct ShardAcksTests {
    @Test func callsBackOnceAndTellsWhatItKnows() throws {
        let clock = ManualClock()
        let acks = ShardAcks(waitersMax: 2, clock: clock.clock)
        acks.lead(term: 1, followers: [address(1), address(2)])
        let outcomes = Collector<AckOutcome>()
        try acks.reserve(writes: 2)
        #expect(throws: KVError.self) { try acks.reserve() }
        guard case .waiting(let token) = acks.wait(for: .level(.quorum), lsn: 4, { outcomes.add($0) }) else {
            Issue.record("nobody has it and nothing waits")
            return
        }
        acks.acked(address(2), position(4))
        clock.advance(30)
        #expect(outcomes.all == [.reached])
        #expect(acks.cancel(token) == nil)
        #expect(acks.held == 1)
        #expect(acks.followers.map(\.address) == [address(2)])
        #expect(acks.followers.first?.lsn == 4)
        #expect(acks.followers.first?.millisecondsAgo == 30)
    }

    @Test func waitsForOneFollowerUntilADeadline() async throws {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let acks = ShardAcks(waitersMax: 4, clock: .system)
        acks.lead(term: 1, followers: [address(1), address(2)])
        let reached = acks.wait(until: .follower(address(1)), has: 3, on: eventLoop, deadline: .distantFuture)
        let missed = acks.wait(until: .follower(address(2)), has: 3, on: eventLoop, deadline: .now() + .milliseconds(5))
        acks.acked(address(1), position(3))
        #expect(try await reached.get())
        #expect(try await !missed.get())
        let lost = acks.wait(until: .follower(address(2)), has: 3, on: eventLoop, deadline: .distantFuture)
        acks.stopLeading()
        #expect(try await !lost.get())
        #expect(acks.held == 0)
        #expect(
            try await !acks.wait(until: .follower(address(2)), has: 3, on: eventLoop, deadline: .distantFuture).get())
    }

    /// What a follower has that is about to be taken out of the shard is not left to the leader alone.
    @Test func whoLeavesCountsNoMore() async throws {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let acks = ShardAcks(waitersMax: 4, clock: .system)
        acks.lead(term: 1, followers: [address(1), address(2)])
        acks.acked(address(1), position(3))
        acks.mark(address(1), isLeaving: true)
        let kept = acks.wait(until: .level(.replicas(2)), has: 3, on: eventLoop, deadline: .distantFuture)
        acks.acked(address(1), position(4))
        #expect(acks.held == 1)
        acks.acked(address(2), position(3))
        #expect(try await kept.get())
        // It stays after all.
        let stays = acks.wait(until: .level(.replicas(2)), has: 4, on: eventLoop, deadline: .distantFuture)
        #expect(acks.held == 1)
        acks.mark(address(1), isLeaving: false)
        #expect(try await stays.get())
    }
}
