public import Core
import Synchronization
public import Wire

/// How old a replica's state is and what it last heard from its leader. Safe from any thread; looking takes no lock.
public final class ShardFreshness: Sendable {
    private let state = Mutex(ReplicaFreshness())
    /// Of the state, for the path of a read; ``unknown`` where there is none.
    private let asOf = Atomic<Int64>(ShardFreshness.unknown)
    private let caughtUp = Atomic<Bool>(false)
    private let joining = Atomic<Bool>(false)
    /// What is done when a joining replica has caught up.
    private let onCaughtUp = Mutex<(@Sendable () -> Void)?>(nil)
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

    /// This replica, which stands at `position`, knows of `term`.
    func knows(of term: UInt64, position: LogPosition) {
        update { freshness, _ in freshness.knows(of: term, position: position) }
    }

    // MARK: Joining

    /// This replica is new: it serves no reads until it has once had everything its leader had.
    /// - Parameter onCaughtUp: called once then, on an event loop or the writer's thread: hand on and return.
    public func beginJoining(onCaughtUp: @escaping @Sendable () -> Void) {
        self.onCaughtUp.withLock { $0 = onCaughtUp }
        joining.store(true, ordering: .sequentiallyConsistent)
        if hasCaughtUp { endJoining() }
    }

    /// Whether this replica is new and has not caught up yet. Lock-free.
    public var isJoining: Bool { joining.load(ordering: .relaxed) }

    private func endJoining() {
        joining.store(false, ordering: .sequentiallyConsistent)
        let callback = onCaughtUp.withLock { callback in
            defer { callback = nil }
            return callback
        }
        callback?()
    }

    private func update(_ change: (inout ReplicaFreshness, ReplicaFreshness.Now) -> Void) {
        let now = ReplicaFreshness.Now(wall: clock.wallMilliseconds(), monotonic: clock.monotonicMilliseconds())
        state.withLock { state in
            change(&state, now)
            asOf.store(state.asOf ?? ShardFreshness.unknown, ordering: .relaxed)
            caughtUp.store(state.hasCaughtUp, ordering: .sequentiallyConsistent)
        }
        if joining.load(ordering: .sequentiallyConsistent), hasCaughtUp { endJoining() }
    }

    /// By how many milliseconds this replica may be behind its leader; nil where it does not know.
    public var lagMilliseconds: UInt64? {
        let moment = asOf.load(ordering: .relaxed)
        guard moment != ShardFreshness.unknown else { return nil }
        return UInt64(clamping: Int64(clamping: clock.monotonicMilliseconds()) - moment)
    }

    /// Whether this replica, since it was opened, has once had everything its leader had.
    public var hasCaughtUp: Bool { caughtUp.load(ordering: .sequentiallyConsistent) }

    /// The highest lsn heard from the leader of the newest term, and how long ago it last spoke; nil where none has.
    public var leaderLastSeen: HistoryDocument.LeaderSighting? {
        guard let heard = state.withLock({ $0.heard }) else { return nil }
        let now = clock.monotonicMilliseconds()
        return HistoryDocument.LeaderSighting(lsn: heard.lsn, millisecondsAgo: now - min(now, heard.monotonic))
    }
}
