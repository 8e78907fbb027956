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
    }

    enum Action: Sendable {
        case feed(ShardFeed.Action)
        case feedNotice(ShardFeed.Notice)
        case follower(Int, FollowerProgress.Action)
    }

    let shard: ShardTopology
    private(set) var feed: ShardFeed
    private(set) var followers: [FollowerProgress]
    private var random: SplitMix64

    init(shard: ShardTopology, limits: ReplicationLimits, seed: UInt64) {
        self.shard = shard
        self.feed = ShardFeed(limits: limits)
        self.followers = shard.followers.map { _ in FollowerProgress(limits: limits) }
        self.random = SplitMix64(seed: seed)
    }

    /// One question and three timers of the feed; a probe, a read, a push and a timer of each follower.
    static func outstandingMax(followers: Int) -> Int { 4 + 4 * followers }

    mutating func handle(_ event: Event, now: Duration) -> [Action] {
        var actions: [Action] = []
        switch event {
        case .start:
            for index in followers.indices { tell(index, .start, &actions) }
        case .feed(let event):
            let tailBefore = feed.window?.tail
            let isQuiet = event.isQuiet
            let (action, notice) = feed.handle(event, now: now, random: &random)
            if let action { actions.append(.feed(action)) }
            if let notice { actions.append(.feedNotice(notice)) }
            if feed.window?.tail != tailBefore {
                for index in followers.indices { serve(index, &actions) }
            }
            if isQuiet {
                for index in followers.indices { tell(index, .checkUp, &actions) }
            }
        case .follower(let index, let event):
            follow(index, event, &actions)
        }
        let demand = demand
        if let demand, demand == feed.window?.tail, isEveryFedFollowerAtTail { feed.releaseUnwanted() }
        if let action = feed.next(demand: demand, now: now) { actions.append(.feed(action)) }
        return actions
    }

    func status() -> ReplicatorStatus.Shard {
        ReplicatorStatus.Shard(
            name: shard.name, leader: shard.leader, leaderLsn: feed.leaderLSN, leaderError: feed.error,
            followers: zip(shard.followers, followers).map { address, progress in
                ReplicatorStatus.Follower(
                    address: address, state: progress.state.reported, term: progress.acked.term,
                    lsn: progress.acked.lsn,
                    lagBatches: feed.leaderLSN > progress.acked.lsn ? feed.leaderLSN - progress.acked.lsn : 0,
                    bytesInFlight: progress.bytesInFlight, lastError: progress.lastError)
            })
    }

    private mutating func follow(_ index: Int, _ event: FollowerProgress.Event, _ actions: inout [Action]) {
        guard case .read(let position, let outcome) = event else {
            tell(index, event, &actions)
            serve(index, &actions)
            return
        }
        // Who reaches the end of the log by reading for itself is where the feed can begin.
        var isAtEnd = false
        switch outcome {
        case .segment(let segment, let leaderLSN):
            feed.observe(leaderLSN: leaderLSN)
            if segment.last.lsn >= leaderLSN { adopt(segment.last, &actions) }
        case .nothingNew(let leaderLSN):
            feed.observe(leaderLSN: leaderLSN)
            isAtEnd = true
            adopt(position, &actions)
        case .cannotContinue, .failed:
            break
        }
        tell(index, event, &actions)
        if isAtEnd, let wanted = followers[index].wanted, case .outside = feed.supply(after: wanted.after) {
            // Reading again at once would answer the same.
            tell(index, .pause, &actions)
        }
        serve(index, &actions)
    }

    private mutating func adopt(_ position: LogPosition, _ actions: inout [Action]) {
        let tailBefore = feed.window?.tail
        feed.adopt(position, isWanted: demand != nil)
        guard feed.window?.tail != tailBefore else { return }
        for index in followers.indices { serve(index, &actions) }
    }

    /// Gives a follower what the window has for it.
    private mutating func serve(_ index: Int, _ actions: inout [Action]) {
        guard let wanted = followers[index].wanted else { return }
        switch feed.supply(after: wanted.after) {
        case .segment(let segment) where wanted.isPushable:
            tell(index, .offered(segment), &actions)
        case .nothingNew where wanted.isPushable:
            tell(index, .atTail, &actions)
        case .segment, .nothingNew:
            // In the window: it gets more when its push is answered.
            break
        case .outside:
            if wanted.isReadable { tell(index, .outsideWindow, &actions) }
        }
    }

    private mutating func tell(_ index: Int, _ event: FollowerProgress.Event, _ actions: inout [Action]) {
        actions += followers[index].handle(event, random: &random).map { .follower(index, $0) }
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

extension ShardFeed.Event {
    /// Whether it comes without batches, so that nothing would be heard of the followers. A quiet feed has such an
    /// event every `longPollWait` or `idleInterval`.
    fileprivate var isQuiet: Bool {
        switch self {
        case .timerFired, .read(_, .segment): false
        case .position, .read: true
        }
    }
}

extension FollowerProgress.State {
    var reported: ReplicatorStatus.State {
        switch self {
        case .probe: .probe
        case .replicate: .replicate
        case .needsSnapshot: .needsSnapshot
        }
    }
}
