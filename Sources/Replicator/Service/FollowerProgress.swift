import Core
import Wire

/// How far one follower is, and what to do for it next.
///
/// Pure: events in, actions out. Vocabulary of etcd's raft: probe → replicate → snapshot.
///
/// Invariants: at most one probe, one read of its own, one push and one timer are outstanding, and none of them while
/// it is rebuilt from a snapshot, which is a machine of its own; at most two segments are held, the one being pushed
/// and the one read ahead; what is pushed continues ``acked``.
/// The follower's own word about its position is final: after every doubt it is asked again. One that says that it is
/// damaged is rebuilt; while its leader cannot give a snapshot it is fed as others are, as far as it takes that.
struct FollowerProgress {
    enum State: Sendable, Equatable {
        case probe
        case replicate
        /// It is being rebuilt.
        case snapshot
        /// The log cannot feed it, and the last snapshot did not help; the next one comes after a pause.
        case needsSnapshot(String)
    }

    enum Event: Sendable {
        case start
        case probed(PositionOutcome)
        /// The window has this for it; only while ``wanted`` says that it can be pushed.
        case offered(LogSegment, LeaderClock?)
        /// It has all that the window has.
        case atTail
        /// The window does not hold what it needs.
        case outsideWindow
        case read(after: LogPosition, ReadOutcome)
        /// The leader has nothing more for it and yet the window cannot take it.
        case pause
        case pushed(PushOutcome)
        /// The leader has nothing new: time for a sign of life, if nothing else is on its way.
        case beat(LeaderClock)
        case timerFired
        case snapshot(SnapshotTransfer.Event)
    }

    enum Action: Sendable {
        case probe
        /// Answers at once, with or without batches. Doubtful: it did not take what it was sent last.
        case read(after: LogPosition, isDoubtful: Bool)
        case push(LogPush)
        case wait(Duration)
        case snapshot(SnapshotTransfer.Action)
        case notice(Notice)
    }

    enum Notice: Sendable {
        case followerLost(String)
        case followerBack
        /// The log cannot feed it, for this reason; said once until it can.
        case needsSnapshot(String)
        case snapshotFailed(String)
        case canBeFedAgain
        /// It is damaged and has to be rebuilt; said once until it is whole.
        case damaged(String)
        case whole
    }

    struct Confirmation: Equatable {
        let leaderTerm: UInt64
        let position: LogPosition
    }

    /// What it can take now.
    struct Wanted {
        let after: LogPosition
        /// False while a push is in flight: then only reading ahead makes sense.
        let isPushable: Bool
        let isReadable: Bool
    }

    private let limits: ReplicationLimits
    private(set) var state = State.probe
    /// What the follower said last.
    private(set) var acked = LogPosition.start
    /// What it answered to a push or heartbeat, for the leader of that push's term; nil while it is in doubt.
    private(set) var confirmed: Confirmation?
    /// The last failure, until things go well again.
    private(set) var lastError: String?

    private var pushing: LogPush?
    private var readAhead: (segment: LogSegment, clock: LeaderClock)?
    private var isReading = false
    private var isProbing = false
    private var isWaiting = false
    private var needsProbe = true
    private var isLost = false
    /// Rejections in a row.
    private var rejections = 0
    private var backoff: Backoff
    private var transfer: SnapshotTransfer
    private var snapshotBackoff: Backoff
    /// That the log cannot feed it has been said.
    private var isUnfed = false
    /// What is damaged in it, as it said last.
    private var damage: String?
    private var isDamageNoticed = false
    /// A damaged follower is not rebuilt before this.
    private var nextRebuild = Duration.zero
    /// The read on its way shall tell whether the leader has the follower's last batch.
    private var isComparing = false
    /// Why it could not be rebuilt the last time.
    private var rebuildFailure: String?
    private var now = Duration.zero

    init(limits: ReplicationLimits) {
        self.limits = limits
        self.backoff = Backoff(min: limits.backoffMin, max: limits.backoffMax)
        self.transfer = SnapshotTransfer(limits: limits)
        self.snapshotBackoff = Backoff(min: limits.snapshotBackoffMin, max: limits.snapshotBackoffMax)
    }

    var bytesInFlight: Int {
        (pushing?.byteCount ?? 0) + (readAhead?.segment.byteCount ?? 0) + transfer.bytesInFlight
    }

    /// Nil while no snapshot is on its way.
    func snapshotProgress(now: Duration) -> SnapshotProgress? {
        state == .snapshot ? transfer.progress(now: now) : nil
    }

    /// Whether the window should be kept going for it.
    var isFed: Bool { state == .replicate && !needsProbe && !isWaiting && !isRebuildDue }

    private var isRebuildDue: Bool { damage != nil && now >= nextRebuild }

    var wanted: Wanted? {
        guard state != .snapshot, !needsProbe, !isWaiting, !isRebuildDue, !isComparing, readAhead == nil else {
            return nil
        }
        let hasRoom = pushing.map { $0.byteCount + limits.batchBytesMax <= limits.inFlightBytesMax } ?? true
        return Wanted(
            after: pushedTo, isPushable: pushing == nil, isReadable: !isReading && hasRoom)
    }

    /// Where it is when the push on its way has been taken.
    private var pushedTo: LogPosition { pushing?.segment?.last ?? acked }

    mutating func handle(_ event: Event, now: Duration, random: inout SplitMix64) -> [Action] {
        self.now = now
        let actions = act(on: event, now: now, random: &random)
        // Whatever it was, it may be time for that by now.
        return isRebuildDue ? actions + proceed() : actions
    }

    private mutating func act(on event: Event, now: Duration, random: inout SplitMix64) -> [Action] {
        switch event {
        case .start: return proceed()
        case .timerFired:
            isWaiting = false
            return proceed()
        case .probed(let outcome): return probed(outcome, &random)
        case .atTail: return fedWell()
        case .offered(let segment, let clock):
            precondition(segment.base == acked, "what is pushed continues the follower")
            let push = push(LogPush(segment, clock))
            return fedWell() + push
        case .outsideWindow:
            precondition(!isReading, "one read at a time")
            isReading = true
            return [.read(after: pushedTo, isDoubtful: isLost)]
        case .read(let position, let outcome):
            isReading = false
            return isComparing
                ? compared(after: position, outcome, &random) : read(after: position, outcome, now, &random)
        case .pause: return wait(limits.backoffMin)
        case .pushed(let outcome): return pushed(outcome, &random)
        case .beat(let clock):
            guard isFed, !isReading, pushing == nil, readAhead == nil else { return [] }
            return push(LogPush(heartbeat: clock))
        case .snapshot(let event): return rebuilding(event, now, &random)
        }
    }

    private mutating func probed(_ outcome: PositionOutcome, _ random: inout SplitMix64) -> [Action] {
        isProbing = false
        switch outcome {
        case .position(let position, .follower, let damaged):
            needsProbe = false
            acked = position
            readAhead = nil
            if case .probe = state { state = .replicate }
            let notice = note(damaged)
            return notice + proceed()
        case .position(_, .leader, _):
            return failed("it says that it leads the shard: the topology is not the same everywhere", &random)
        case .failed(let text):
            return failed(text, &random)
        }
    }

    private mutating func read(
        after position: LogPosition, _ outcome: ReadOutcome, _ now: Duration, _ random: inout SplitMix64
    ) -> [Action] {
        // An answer to a question that is no longer asked, e.g. after a push that failed.
        guard !needsProbe, readAhead == nil, position == pushedTo else { return proceed() }
        switch outcome {
        case .segment(let segment, let clock):
            readAhead = (segment, clock)
            return fedWell() + proceed()
        case .nothingNew:
            return fedWell()
        case .cannotContinue(let reason, let isDiverged):
            // Until the push is answered it is not the follower's position that cannot be continued.
            guard pushing == nil else { return wait(backoff.wait(using: &random)) }
            return rebuild(because: reason, isDiverged: isDiverged, now)
        case .failed(let text):
            // The leader's failure, not the follower's: its position still holds.
            lastError = "reading from the leader: \(text)"
            return wait(backoff.wait(using: &random))
        }
    }

    private mutating func pushed(_ outcome: PushOutcome, _ random: inout SplitMix64) -> [Action] {
        guard let sent = pushing else { preconditionFailure("only what was pushed is answered") }
        pushing = nil
        switch outcome {
        case .accepted(let position, let damaged) where position > acked || sent.segment == nil:
            // After a heartbeat any position holds, also of one that came back with less.
            confirmed = Confirmation(leaderTerm: sent.term, position: position)
            // Another replicator may have brought it further.
            if position != sent.segment?.last ?? acked { readAhead = nil }
            acked = position
            rejections = 0
            backoff.reset()
            let notice = note(damaged)
            clearError()
            return notice + back() + proceed()
        case .accepted(let position, _):
            return failed("it took batches after \(acked) and is still at \(position)", &random)
        case .rejected(let position):
            rejections += 1
            readAhead = nil
            confirmed = nil
            let text = "it rejected batches after \(acked): it is at \(position)"
            guard rejections == 1, position != acked else { return failed(text, &random) }
            acked = position
            lastError = text
            return proceed()
        case .failed(let text):
            // A damaged one need not take what it is sent: then the next thing to try is to rebuild it.
            return failed(text, &random, notBefore: damage == nil ? .zero : nextRebuild)
        case .postponed:
            // Held by nobody meanwhile. Asked first, so that what is read next is not read for a node that has stopped.
            needsProbe = true
            readAhead = nil
            return wait(limits.backoffMin)
        }
    }

    /// Begins what can begin without the window.
    private mutating func proceed() -> [Action] {
        guard !isWaiting, state != .snapshot else { return [] }
        if needsProbe {
            guard !isProbing, pushing == nil else { return [] }
            isProbing = true
            return [.probe]
        }
        if isRebuildDue {
            guard pushing == nil, !isReading else { return [] }
            readAhead = nil
            isReading = true
            isComparing = true
            return [.read(after: acked, isDoubtful: true)]
        }
        guard pushing == nil, let (segment, clock) = readAhead else { return [] }
        readAhead = nil
        return push(LogPush(segment, clock))
    }

    private mutating func push(_ push: LogPush) -> [Action] {
        precondition(pushing == nil, "one push at a time")
        pushing = push
        return [.push(push)]
    }

    /// The leader's history contains the follower's position.
    private mutating func fedWell() -> [Action] {
        let wasUnfed = isUnfed
        isUnfed = false
        state = .replicate
        guard wasUnfed || (pushing == nil && readAhead == nil) else { return [] }
        // Nothing is left to try that could fail, so it is well.
        clearError()
        backoff.reset()
        if damage == nil { snapshotBackoff.reset() }
        return (wasUnfed ? [.notice(.canBeFedAgain)] : []) + back()
    }

    /// What it confirmed to a leader that may have lost it counts only when it is confirmed again.
    mutating func forgetConfirmation() { confirmed = nil }

    private mutating func back() -> [Action] {
        guard isLost else { return [] }
        isLost = false
        return [.notice(.followerBack)]
    }

    /// The follower did not do what it should: ask it again for its position, later.
    private mutating func failed(
        _ text: String, _ random: inout SplitMix64, notBefore earliest: Duration = .zero
    ) -> [Action] {
        needsProbe = true
        readAhead = nil
        confirmed = nil
        rejections = 0
        lastError = text
        if case .replicate = state { state = .probe }
        var actions: [Action] = []
        if !isLost {
            isLost = true
            actions.append(.notice(.followerLost(text)))
        }
        return actions + wait(max(backoff.wait(using: &random), earliest - now))
    }

    private mutating func wait(_ duration: Duration) -> [Action] {
        guard !isWaiting else { return [] }
        isWaiting = true
        return [.wait(duration)]
    }

    // MARK: damage

    private mutating func note(_ damaged: String?) -> [Action] {
        damage = damaged
        guard let damaged else {
            guard isDamageNoticed else { return [] }
            isDamageNoticed = false
            rebuildFailure = nil
            nextRebuild = .zero
            return [.notice(.whole)]
        }
        guard !isDamageNoticed else { return [] }
        isDamageNoticed = true
        return [.notice(.damaged(damaged))]
    }

    /// As long as it is damaged, that is what is wrong with it.
    private mutating func clearError() {
        lastError = damage.map { "it is damaged: \($0)" + (rebuildFailure.map { "; not rebuilt yet: \($0)" } ?? "") }
    }

    /// The leader has said whether it has what a damaged follower has.
    private mutating func compared(
        after position: LogPosition, _ outcome: ReadOutcome, _ random: inout SplitMix64
    ) -> [Action] {
        isComparing = false
        guard let damage, !needsProbe, position == acked else { return proceed() }
        switch outcome {
        case .segment, .nothingNew: return rebuild(because: "it is damaged: \(damage)", isDiverged: false, now)
        case .cannotContinue(_, let isDiverged):
            return rebuild(because: "it is damaged: \(damage)", isDiverged: isDiverged, now)
        case .failed(let text):
            lastError = "it is damaged, and reading from the leader: \(text)"
            return wait(backoff.wait(using: &random))
        }
    }

    // MARK: snapshots

    private mutating func rebuild(because reason: String, isDiverged: Bool, _ now: Duration) -> [Action] {
        needsProbe = true
        lastError = reason
        confirmed = nil
        // The last one's end is still on its way to the nodes.
        guard transfer.canBegin else { return wait(limits.backoffMin) }
        state = .snapshot
        let notice: [Action] = isUnfed || damage != nil ? [] : [.notice(.needsSnapshot(reason))]
        if damage == nil { isUnfed = true }
        return notice + transfer.begin(at: acked, isDiverged: isDiverged, now: now).map { .snapshot($0) }
    }

    private mutating func rebuilding(
        _ event: SnapshotTransfer.Event, _ now: Duration, _ random: inout SplitMix64
    ) -> [Action] {
        let (steps, ending) = transfer.handle(event, now: now, random: &random)
        let actions: [Action] = steps.map { .snapshot($0) }
        for case .notice(.interrupted(let text)) in steps { lastError = text }
        for case .notice(.resumed) in steps { lastError = nil }
        switch ending {
        case .installed(let position), .moved(let position):
            acked = position
            state = .probe
            if damage != nil { nextRebuild = now + snapshotBackoff.wait(using: &random) }
            return actions + proceed()
        case .failed(let text) where damage != nil:
            state = .probe
            nextRebuild = now + snapshotBackoff.wait(using: &random)
            let notice: [Action] = rebuildFailure == text ? [] : [.notice(.snapshotFailed(text))]
            rebuildFailure = text
            clearError()
            return actions + notice + proceed()
        case .failed(let text):
            lastError = text
            state = .needsSnapshot(text)
            return actions + [.notice(.snapshotFailed(text))] + wait(snapshotBackoff.wait(using: &random))
        case nil:
            return actions
        }
    }
}
