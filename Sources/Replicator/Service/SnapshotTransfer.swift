import Core
import Wire

/// How one follower is rebuilt from a snapshot of its leader.
///
/// Pure: events in, actions out. Open a checkpoint → offer it → copy range by range → install. Every doubt leads to
/// the same way back: wait, ask the follower where it is, offer the snapshot again and go on where its receipt says.
/// So it does not matter who was killed when, nor who else brings the follower something.
///
/// Invariants: at most one step (turn, opening, offer, installation, probe), one fetch, one send, one retry timer and
/// one touch timer are outstanding; at most ``ReplicationLimits/snapshotRangesAhead`` ranges are fetched, or being
/// fetched, beyond the one being sent; a turn is held only while the transfer moves.
struct SnapshotTransfer {
    enum Event: Sendable {
        /// Nil where nobody counts.
        case turn(Turn?)
        case opened(SnapshotOpening)
        case offered(SnapshotOffering)
        case fetched(SnapshotRange, SnapshotFetching)
        case sent(SnapshotRange, SnapshotSending)
        case installed(SnapshotInstalling)
        case probed(PositionOutcome)
        case retryTimerFired
        case touchTimerFired
        /// The answer to a release and to a discard, whatever came of it.
        case released
    }

    enum Action: Sendable {
        /// Wait until one more transfer may run in this process.
        case awaitTurn
        /// Ask the leader for a checkpoint; the lease on it lasts as long as something is read from it.
        /// It must end no earlier than the follower, if the leader's log does not.
        case open(atLeast: UInt64)
        /// To the follower.
        case offer(SnapshotManifest)
        /// From the leader, at the pace that is allowed.
        case fetch(SnapshotRange)
        /// To the follower.
        case send(SnapshotChunk)
        /// At the follower; takes long, as it reads all of it back. Diverged: the leader does not have the batch at which
        /// the follower ends, so that one has writes to save.
        case install(SnapshotManifest, isDiverged: Bool)
        /// Ask the follower for its position.
        case probe
        /// The answer is ``Event/retryTimerFired``.
        case waitToRetry(Duration)
        /// The answer is ``Event/touchTimerFired``.
        case waitToTouch(Duration)
        /// Tell the leader that the checkpoint is not needed any more.
        case release(id: String)
        /// Tell the follower to give up what it has received.
        case discard(id: String)
        case notice(Notice)
    }

    enum Notice: Sendable {
        /// The follower takes this snapshot and has so many bytes of it already.
        case started(SnapshotManifest, bytesThere: UInt64)
        /// Said once until it moves again.
        case interrupted(String)
        case resumed
        case installed(SnapshotManifest, bytesSent: UInt64, in: Duration)
    }

    /// How it ended.
    enum Ending: Sendable {
        case installed(LogPosition)
        /// The follower is elsewhere now than where the log could not feed it.
        case moved(LogPosition)
        /// This snapshot does not help; another one may.
        case failed(String)
    }

    private enum Phase: Equatable {
        case idle, queued, opening, offering, copying, installing, waiting, probing
    }

    private let limits: ReplicationLimits
    private var phase = Phase.idle
    /// Where the follower stands and cannot be fed from.
    private var stuckAt = LogPosition.start
    /// The leader has another history.
    private var isDiverged = false
    private var copy: SnapshotCopy?
    private var turn: Turn?
    /// Fetched, not yet sent, in order.
    private var ready: [SnapshotChunk] = []
    /// Its answer is wanted; what else is fetched is dropped.
    private var fetching: SnapshotRange?
    private var isFetching = false
    private var sending: SnapshotChunk?
    private var isSending = false
    private var isTouchTimerSet = false
    private var endingsOutstanding = 0
    private var lastFetch = Duration.zero
    private var lastProgress = Duration.zero
    private var startTime = Duration.zero
    private var queueTime = Duration.zero
    private var bytesSent: UInt64 = 0
    private var rate = TransferRate()
    /// The snapshot whose start was noticed.
    private var noticedID: String?
    private var isInterrupted = false
    /// Somebody else is bringing it, who had come this far.
    private var watchedBytes: UInt64?
    private var backoff: Backoff

    init(limits: ReplicationLimits) {
        self.limits = limits
        self.backoff = Backoff(min: limits.backoffMin, max: limits.backoffMax)
    }

    /// Whether another one can begin: the one before has ended and every answer to it is there.
    var canBegin: Bool { phase == .idle && !isFetching && !isSending && endingsOutstanding == 0 }

    /// Bytes held or asked for.
    var bytesInFlight: Int {
        ready.reduce(sending?.range.length ?? 0) { $0 + $1.range.length } + (fetching?.length ?? 0)
    }

    /// Nil until the follower has said what it has.
    func progress(now: Duration) -> SnapshotProgress? {
        guard let copy, noticedID == copy.manifest.id else { return nil }
        return rate.progress(
            done: copy.bytesReceived, total: copy.manifest.bytesTotal, now: UInt64(now.wholeMilliseconds))
    }

    /// Rebuilds a follower that stands at `position`, from which the log cannot feed it. Only while ``canBegin``.
    mutating func begin(at position: LogPosition, isDiverged: Bool = false, now: Duration) -> [Action] {
        precondition(canBegin, "one transfer at a time")
        self = SnapshotTransfer(limits: limits, isTouchTimerSet: isTouchTimerSet)
        stuckAt = position
        self.isDiverged = isDiverged
        lastProgress = now
        startTime = now
        return queue(now)
    }

    private mutating func queue(_ now: Duration) -> [Action] {
        phase = .queued
        queueTime = now
        return [.awaitTurn]
    }

    private init(limits: ReplicationLimits, isTouchTimerSet: Bool) {
        self.init(limits: limits)
        self.isTouchTimerSet = isTouchTimerSet
    }

    mutating func handle(_ event: Event, now: Duration, random: inout SplitMix64) -> (actions: [Action], Ending?) {
        switch event {
        case .turn(let turn):
            self.turn = turn
            // Nothing could move while others had their turn.
            lastProgress += now - queueTime
            guard let copy else {
                phase = .opening
                // One that has another history may have any position.
                return ([.open(atLeast: isDiverged ? 0 : stuckAt.lsn)], nil)
            }
            phase = .offering
            return ([.offer(copy.manifest)], nil)
        case .opened(let outcome): return opened(outcome, now, &random)
        case .offered(let outcome): return offered(outcome, now, &random)
        case .fetched(let range, let outcome): return fetched(range, outcome, now, &random)
        case .sent(let range, let outcome): return sent(range, outcome, now, &random)
        case .installed(let outcome): return installed(outcome, now, &random)
        case .probed(let outcome): return probed(outcome, now, &random)
        case .retryTimerFired:
            phase = .probing
            return ([.probe], nil)
        case .touchTimerFired:
            isTouchTimerSet = false
            return (touch(now), nil)
        case .released:
            endingsOutstanding -= 1
            return ([], nil)
        }
    }

    // MARK: opening and offering

    private mutating func opened(
        _ outcome: SnapshotOpening, _ now: Duration, _ random: inout SplitMix64
    ) -> ([Action], Ending?) {
        switch outcome {
        case .opened(let manifest):
            do {
                copy = try SnapshotCopy(manifest)
            } catch {
                return failed("the leader's snapshot cannot be understood: \(error)", now, &random)
            }
            lastFetch = now
            phase = .offering
            return ([.offer(manifest)] + touch(now), nil)
        case .damaged(let text): return end(.failed("the leader is damaged and gives no snapshot: \(text)"))
        case .failed(let text):
            return failed("opening a snapshot at the leader: \(text)", now, &random)
        }
    }

    private mutating func offered(
        _ outcome: SnapshotOffering, _ now: Duration, _ random: inout SplitMix64
    ) -> ([Action], Ending?) {
        switch outcome {
        case .receipt(let receipt):
            guard var copy, receipt.id == copy.manifest.id else {
                return failed("it answered with the receipt of another snapshot", now, &random)
            }
            copy.resume(from: receipt)
            self.copy = copy
            let watched = watchedBytes
            watchedBytes = nil
            var actions: [Action] = []
            if noticedID != receipt.id {
                noticedID = receipt.id
                actions.append(.notice(.started(copy.manifest, bytesThere: copy.bytesReceived)))
            }
            rate.note(bytes: copy.bytesReceived, now: UInt64(now.wholeMilliseconds))
            if let watched, copy.bytesReceived > watched {
                // The other one is still at it.
                lastProgress = now
                return (actions + watch(&random), nil)
            }
            phase = .copying
            return (actions + proceed(now), nil)
        case .busy: return (watch(&random), nil)
        case .useless(let text): return end(.failed(text))
        case .failed(let text): return failed(text, now, &random)
        }
    }

    // MARK: copying

    private mutating func proceed(_ now: Duration) -> [Action] {
        guard phase == .copying, var copy else { return [] }
        var actions: [Action] = []
        if !isSending, !ready.isEmpty {
            let chunk = ready.removeFirst()
            sending = chunk
            isSending = true
            actions.append(.send(chunk))
        }
        if !isFetching, ready.count < limits.snapshotRangesAhead,
            let range = copy.next(bytesMax: limits.snapshotRangeBytes)
        {
            fetching = range
            isFetching = true
            lastFetch = now
            actions.append(.fetch(range))
        }
        self.copy = copy
        // What an earlier attempt left on its way is waited for: it may still change what the follower has.
        if copy.isComplete, !isFetching, !isSending {
            phase = .installing
            actions.append(.install(copy.manifest, isDiverged: isDiverged))
        }
        return actions
    }

    private mutating func fetched(
        _ range: SnapshotRange, _ outcome: SnapshotFetching, _ now: Duration, _ random: inout SplitMix64
    ) -> ([Action], Ending?) {
        isFetching = false
        let isWanted = fetching == range && phase == .copying
        fetching = nil
        switch outcome {
        case .chunk(let chunk):
            if isWanted { ready.append(chunk) }
            return (proceed(now), nil)
        case .gone(let text):
            // Outside of copying it is not missed yet, and perhaps never: while it is installed for one.
            guard phase == .copying, copy?.manifest.id == range.id else { return (proceed(now), nil) }
            copy = nil
            return failed("the leader has given up the snapshot: \(text)", now, &random)
        case .failed(let text):
            guard isWanted else { return (proceed(now), nil) }
            return failed("reading \(range.file) from the leader: \(text)", now, &random)
        }
    }

    private mutating func sent(
        _ range: SnapshotRange, _ outcome: SnapshotSending, _ now: Duration, _ random: inout SplitMix64
    ) -> ([Action], Ending?) {
        isSending = false
        let isWanted = sending?.range == range && phase == .copying
        sending = nil
        guard isWanted else { return (proceed(now), nil) }
        switch outcome {
        case .taken(let received):
            copy?.took(range)
            bytesSent += UInt64(range.length)
            lastProgress = now
            backoff.reset()
            rate.note(bytes: copy?.bytesReceived ?? 0, now: UInt64(now.wholeMilliseconds))
            var actions: [Action] = []
            if isInterrupted {
                isInterrupted = false
                actions.append(.notice(.resumed))
            }
            // It has more than was sent: somebody else sends as well.
            guard received == range.end else { return (actions + watch(&random), nil) }
            return (actions + proceed(now), nil)
        case .overtaken: return (watch(&random), nil)
        case .failed(let text): return failed(text, now, &random)
        }
    }

    /// Shows the leader, where nothing was read for a while, that its checkpoint is still in use.
    private mutating func touch(_ now: Duration) -> [Action] {
        guard let copy, !isTouchTimerSet else { return [] }
        isTouchTimerSet = true
        let due = lastFetch + limits.snapshotTouchInterval
        guard now >= due, !isFetching, let range = copy.smallest else {
            return [.waitToTouch(max(due - now, limits.snapshotTouchInterval / 4))]
        }
        isFetching = true
        lastFetch = now
        return [.fetch(range), .waitToTouch(limits.snapshotTouchInterval)]
    }

    // MARK: installing and looking

    private mutating func installed(
        _ outcome: SnapshotInstalling, _ now: Duration, _ random: inout SplitMix64
    ) -> ([Action], Ending?) {
        switch outcome {
        case .installed(let position):
            let notice = copy.map { Action.notice(.installed($0.manifest, bytesSent: bytesSent, in: now - startTime)) }
            let (actions, ending) = end(.installed(position))
            return ((notice.map { [$0] } ?? []) + actions, ending)
        case .busy: return (watch(&random), nil)
        case .incomplete(let text), .failed(let text): return failed("installing: \(text)", now, &random)
        case .useless(let text): return end(.failed(text))
        case .broken(let text):
            guard let id = copy?.manifest.id else { return end(.failed(text)) }
            endingsOutstanding += 1
            let (actions, ending) = end(.failed(text))
            return ([.discard(id: id)] + actions, ending)
        }
    }

    private mutating func probed(
        _ outcome: PositionOutcome, _ now: Duration, _ random: inout SplitMix64
    ) -> ([Action], Ending?) {
        switch outcome {
        case .position(let position, .follower, _):
            let isShort = copy.map { position.lsn < $0.position.lsn } ?? false
            guard position == stuckAt || isShort else { return end(.moved(position)) }
            stuckAt = position
            return (queue(now), nil)
        case .position(_, .leader, _):
            return end(.failed("it says that it leads the shard: the topology is not the same everywhere"))
        case .failed(let text):
            return failed(text, now, &random)
        }
    }

    // MARK: going back

    /// Leaves the work to somebody else and looks again, as long as they get on with it.
    private mutating func watch(_ random: inout SplitMix64) -> [Action] {
        watchedBytes = copy?.bytesReceived ?? 0
        return pause(limits.snapshotWatchInterval * Double.random(in: 0.8...1.2, using: &random))
    }

    private mutating func failed(
        _ text: String, _ now: Duration, _ random: inout SplitMix64
    ) -> ([Action], Ending?) {
        guard now - lastProgress < limits.snapshotPatience else {
            return end(.failed("nothing has moved for \(limits.snapshotPatience): \(text)"))
        }
        var actions: [Action] = []
        if !isInterrupted {
            isInterrupted = true
            actions.append(.notice(.interrupted(text)))
        }
        return (actions + pause(backoff.wait(using: &random)), nil)
    }

    private mutating func pause(_ duration: Duration) -> [Action] {
        phase = .waiting
        drop()
        return [.waitToRetry(duration)]
    }

    private mutating func drop() {
        ready = []
        fetching = nil
        sending = nil
        turn = nil
    }

    private mutating func end(_ ending: Ending) -> ([Action], Ending?) {
        phase = .idle
        drop()
        guard let id = copy?.manifest.id else { return ([], ending) }
        copy = nil
        endingsOutstanding += 1
        return ([.release(id: id)], ending)
    }
}
