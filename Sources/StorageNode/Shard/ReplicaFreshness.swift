public import Core
import Synchronization
public import Wire

/// How old a follower's state is.
///
/// Pure. What a leader says with its clock reading C and its last lsn holds for a follower that has that lsn: it is as
/// of C. One that is behind is as of its newest version, which is a reading of the leader's clock as well. Readings
/// are turned into the follower's monotonic clock as they arrive, so no later step of either clock changes what is
/// known; clocks that differ between machines shift the result by the difference.
struct ReplicaFreshness: Sendable {
    struct Heartbeat: Sendable, Equatable {
        /// The last lsn the leader had committed.
        var lsn: UInt64
        /// When: milliseconds since the Unix epoch, on the leader's clock.
        var clockMilliseconds: UInt64
        var term: UInt64
    }

    /// Both clocks of this machine at one moment, in milliseconds.
    struct Now: Sendable {
        var wall: UInt64
        var monotonic: UInt64
    }

    /// This replica has everything its leader had at this moment of the monotonic clock, or before the clock began
    /// where that is negative; nil where nothing is known.
    private(set) var asOf: Int64?
    /// Whether it has ever had all that a leader had.
    private(set) var hasCaughtUp = false
    /// The newest term heard from, and the highest lsn in it.
    private(set) var heard: (term: UInt64, lsn: UInt64, monotonic: UInt64)?
    /// The newest heartbeat that is not reached yet.
    private var pending: Heartbeat?

    /// A leader of a term that is not stale has spoken.
    mutating func heartbeat(_ heartbeat: Heartbeat, position: LogPosition, now: Now) {
        if let known = heard, known.term > heartbeat.term { return }
        let lsn = heard.map { $0.term == heartbeat.term ? max($0.lsn, heartbeat.lsn) : heartbeat.lsn }
        heard = (term: heartbeat.term, lsn: lsn ?? heartbeat.lsn, monotonic: now.monotonic)
        pending = heartbeat
        applied(position, now: now)
    }

    /// The replica stands at `position`.
    mutating func applied(_ position: LogPosition, now: Now) {
        if position.version > .zero { learn(position.version.milliseconds, now) }
        // A leader begins its term with a batch of its own: who has what it has, has a batch of that term.
        guard let pending, position.term == pending.term, position.lsn >= pending.lsn else { return }
        self.pending = nil
        hasCaughtUp = true
        learn(pending.clockMilliseconds, now)
    }

    /// Everything up to `milliseconds` of the leader's clock is here. A reading that makes it older is late.
    private mutating func learn(_ milliseconds: UInt64, _ now: Now) {
        let age = Int64(clamping: now.wall > milliseconds ? now.wall - milliseconds : 0)
        let moment = Int64(clamping: now.monotonic) - age
        asOf = max(asOf ?? moment, moment)
    }
}

/// How old a replica's state is and what it last heard from its leader. Safe from any thread; looking takes no lock.
public final class ShardFreshness: Sendable {
    private let state = Mutex(ReplicaFreshness())
    /// Of the state, for the path of a read; ``unknown`` where there is none.
    private let asOf = Atomic<Int64>(ShardFreshness.unknown)
    private let caughtUp = Atomic<Bool>(false)
    private let clock: ShardClock

    private static let unknown = Int64.min

    init(clock: ShardClock) { self.clock = clock }

    /// A leader whose term is not stale said that at its clock reading it had committed up to `leaderLsn`.
    /// - Parameters:
    ///   - leaderClockMilliseconds: since the Unix epoch, on the leader's clock.
    ///   - position: where this replica stands, what came with the heartbeat applied.
    public func heartbeat(
        leaderLsn: UInt64, leaderClockMilliseconds: UInt64, term: UInt64, position: LogPosition
    ) {
        let heartbeat = ReplicaFreshness.Heartbeat(
            lsn: leaderLsn, clockMilliseconds: leaderClockMilliseconds, term: term)
        update { $0.heartbeat(heartbeat, position: position, now: $1) }
    }

    /// This replica stands at `position`.
    public func applied(_ position: LogPosition) { update { $0.applied(position, now: $1) } }

    private func update(_ change: (inout ReplicaFreshness, ReplicaFreshness.Now) -> Void) {
        let now = ReplicaFreshness.Now(wall: clock.wallMilliseconds(), monotonic: clock.monotonicMilliseconds())
        state.withLock { state in
            change(&state, now)
            asOf.store(state.asOf ?? ShardFreshness.unknown, ordering: .relaxed)
            caughtUp.store(state.hasCaughtUp, ordering: .relaxed)
        }
    }

    /// By how many milliseconds this replica may be behind its leader; nil where it does not know.
    public var lagMilliseconds: UInt64? {
        let moment = asOf.load(ordering: .relaxed)
        guard moment != ShardFreshness.unknown else { return nil }
        return UInt64(clamping: Int64(clamping: clock.monotonicMilliseconds()) - moment)
    }

    /// Whether this replica, since it was opened, has once had everything its leader had.
    public var hasCaughtUp: Bool { caughtUp.load(ordering: .relaxed) }

    /// The highest lsn heard from the leader of the newest term, and how long ago it last spoke; nil where none has.
    public var leaderLastSeen: HistoryDocument.LeaderSighting? {
        guard let heard = state.withLock({ $0.heard }) else { return nil }
        let now = clock.monotonicMilliseconds()
        return HistoryDocument.LeaderSighting(lsn: heard.lsn, millisecondsAgo: now - min(now, heard.monotonic))
    }
}
