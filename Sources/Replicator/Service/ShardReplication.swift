import Core
import Sharding
import Wire

/// The replication of one shard, from its leader to all its followers, without any I/O.
///
/// Pure: an event in, actions out. Every action but a notice is answered later by exactly one event; the
/// number of outstanding actions is bounded by ``outstandingMax``.
struct ShardReplication {
    enum Event: Sendable {
        case start
        case feed(ShardFeed.Event)
        /// The number is the follower's place in the topology.
        case follower(Int, FollowerProgress.Event)
        case reported(ReportOutcome)
        case reportTimerFired
    }

    enum Action: Sendable {
        case feed(ShardFeed.Action)
        case feedNotice(ShardFeed.Notice)
        case follower(Int, FollowerProgress.Action)
        /// To the leader; the answer is ``Event/reported(_:)``.
        case report(AckReport)
        /// The answer is ``Event/reportTimerFired``.
        case waitToReport(Duration)
    }

    let shard: ShardTopology
    private(set) var feed: ShardFeed
    private(set) var followers: [FollowerProgress]
    private var reporting: AckReporting
    private var random: SplitMix64

    init(shard: ShardTopology, limits: ReplicationLimits, seed: UInt64) {
        self.shard = shard
        self.feed = ShardFeed(limits: limits)
        self.followers = shard.followers.map { _ in FollowerProgress(limits: limits) }
        self.reporting = AckReporting(limits: limits)
        self.random = SplitMix64(seed: seed)
    }

    /// One question and three timers of the feed, a report and its timer; of each follower a probe, a read, a push and a
    /// timer, and of its snapshot a step, a fetch, a part being sent, two timers, a release and a discard.
    static func outstandingMax(followers: Int) -> Int { 6 + 11 * followers }

    /// - Parameter isTight: frames larger than the window's share are not kept for a follower that is busy.
    mutating func handle(_ event: Event, now: Duration, isTight: Bool = false) -> [Action] {
        var actions: [Action] = []
        switch event {
        case .start:
            for index in followers.indices { tell(index, .start, now, &actions) }
        case .feed(let event):
            feed(event, now, &actions)
        case .follower(let index, let event):
            let confirmed = followers[index].confirmed
            follow(index, event, now, &actions)
            if followers[index].confirmed != confirmed { reporting.request() }
        case .reported(let outcome):
            if let wait = reporting.reported(outcome, random: &random) { actions.append(.waitToReport(wait)) }
        case .reportTimerFired:
            reporting.timerFired()
        }
        switch reporting.next(now: now) {
        case .report:
            if let report = reporting.begin(acks, now: now) { actions.append(.report(report)) }
        case .wait(let duration): actions.append(.waitToReport(duration))
        case nil: break
        }
        let demand = demand
        // Where nobody is fed, nobody waits for them either.
        if isTight || demand == nil || (demand == feed.window?.tail && isEveryFedFollowerAtTail) {
            feed.releaseUnwanted()
        }
        if let action = feed.next(demand: demand, now: now) { actions.append(.feed(action)) }
        return actions
    }

    func status(now: Duration) -> ReplicatorStatus.Shard {
        ReplicatorStatus.Shard(
            name: shard.name, leader: shard.leader, leaderLsn: feed.leaderLSN, leaderError: feed.error,
            followers: zip(shard.followers, followers).map { address, progress in
                var follower = ReplicatorStatus.Follower(
                    address: address, state: progress.state.reported, term: progress.acked.term,
                    lsn: progress.acked.lsn,
                    lagBatches: feed.leaderLSN > progress.acked.lsn ? feed.leaderLSN - progress.acked.lsn : 0,
                    bytesInFlight: progress.bytesInFlight, lastError: progress.lastError)
                follower.snapshot = progress.snapshotProgress(now: now)
                return follower
            })
    }

    private mutating func feed(_ event: ShardFeed.Event, _ now: Duration, _ actions: inout [Action]) {
        let tailBefore = feed.window?.tail
        let wasReading = feed.isReading
        let (action, notice) = feed.handle(event, now: now, random: &random)
        if let action { actions.append(.feed(action)) }
        if let notice { actions.append(.feedNotice(notice)) }
        if case .leaderLost = notice {
            // It may come back with less than they have confirmed.
            for index in followers.indices { followers[index].forgetConfirmation() }
        }
        if feed.window?.tail != tailBefore || feed.isReading != wasReading {
            for index in followers.indices { serve(index, now, &actions) }
        }
        guard case .read(let position, .nothingNew(let clock)) = event, position == feed.window?.tail else { return }
        for index in followers.indices where followers[index].acked == position {
            tell(index, .beat(clock), now, &actions)
        }
        // Said again, for a leader that has been restarted.
        reporting.request()
    }

    /// What followers have confirmed to the leader of this term.
    private var acks: [AckReport.Ack] {
        guard let term = feed.clock?.term else { return [] }
        return zip(shard.followers, followers).compactMap { address, progress in
            guard let confirmed = progress.confirmed, confirmed.leaderTerm == term else { return nil }
            return AckReport.Ack(follower: address, position: confirmed.position)
        }
    }

    private mutating func follow(
        _ index: Int, _ event: FollowerProgress.Event, _ now: Duration, _ actions: inout [Action]
    ) {
        guard case .read(let position, let outcome) = event else {
            tell(index, event, now, &actions)
            serve(index, now, &actions)
            return
        }
        // Who reaches the end of the log by reading for itself is where the feed can begin.
        var isAtEnd = false
        switch outcome {
        case .segment(let segment, let clock):
            feed.observe(leaderLSN: clock.lsn)
            if segment.last.lsn >= clock.lsn { adopt(segment.last, now, &actions) }
        case .nothingNew(let clock):
            feed.observe(leaderLSN: clock.lsn)
            isAtEnd = true
            adopt(position, now, &actions)
        case .cannotContinue, .failed:
            break
        }
        tell(index, event, now, &actions)
        if isAtEnd, let wanted = followers[index].wanted, case .outside = feed.supply(after: wanted.after) {
            // Reading again at once would answer the same.
            tell(index, .pause, now, &actions)
        }
        serve(index, now, &actions)
    }

    private mutating func adopt(_ position: LogPosition, _ now: Duration, _ actions: inout [Action]) {
        let tailBefore = feed.window?.tail
        feed.adopt(position, isWanted: demand != nil)
        guard feed.window?.tail != tailBefore else { return }
        for index in followers.indices { serve(index, now, &actions) }
    }

    /// Gives a follower what the window has for it.
    private mutating func serve(_ index: Int, _ now: Duration, _ actions: inout [Action]) {
        guard let wanted = followers[index].wanted else { return }
        switch feed.supply(after: wanted.after) {
        case .segment(let segment) where wanted.isPushable:
            tell(index, .offered(segment, feed.clock), now, &actions)
        case .nothingNew where wanted.isPushable:
            tell(index, .atTail, now, &actions)
        case .segment, .nothingNew:
            // In the window: it gets more when its push is answered.
            break
        case .outside:
            // Another replicator may have brought it beyond the window: the feed's read is then about to catch up.
            if feed.isReading, let tail = feed.window?.tail, wanted.after.lsn > tail.lsn { return }
            if wanted.isReadable { tell(index, .outsideWindow, now, &actions) }
        }
    }

    private mutating func tell(
        _ index: Int, _ event: FollowerProgress.Event, _ now: Duration, _ actions: inout [Action]
    ) {
        actions += followers[index].handle(event, now: now, random: &random).map { .follower(index, $0) }
    }

    /// The position of the fastest follower that lives from the window.
    private var demand: LogPosition? {
        guard let window = feed.window else { return nil }
        return followers.lazy.filter { $0.isFed && window.bytes(after: $0.acked) != nil }.map(\.acked).max()
    }

    private var isEveryFedFollowerAtTail: Bool {
        guard let window = feed.window else { return true }
        return followers.allSatisfy { !$0.isFed || $0.acked == window.tail || window.bytes(after: $0.acked) == nil }
    }
}

extension FollowerProgress.State {
    var reported: ReplicatorStatus.State {
        switch self {
        case .probe: .probe
        case .replicate: .replicate
        case .snapshot: .snapshot
        case .needsSnapshot: .needsSnapshot
        }
    }
}
