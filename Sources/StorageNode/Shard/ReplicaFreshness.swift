import Core

/// How old a follower's state is.
///
/// Pure. What a leader says with its clock reading C and its last lsn holds for a follower that has that lsn: it is as
/// of C. One that is behind is as of its newest version, which is a reading of the leader's clock as well. Readings
/// are turned into the follower's monotonic clock as they arrive, so no later step of either clock changes what is
/// known; clocks that differ between machines shift the result by the difference.
///
/// A replica that knows a newer term than its newest batch is of may have another history than the leader of that term
/// goes on with: how old it is, is not known before it has a batch of that term.
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
    /// The highest term this replica knows of.
    private var newestTerm: UInt64 = 0

    /// The replica, which stands at `position`, knows of `term`.
    mutating func knows(of term: UInt64, position: LogPosition) {
        newestTerm = max(newestTerm, term)
        if position.term < newestTerm { asOf = nil }
    }

    /// A leader of a term that is not stale has spoken.
    mutating func heartbeat(_ heartbeat: Heartbeat, position: LogPosition, now: Now) {
        if let known = heard, known.term > heartbeat.term { return }
        knows(of: heartbeat.term, position: position)
        let lsn = heard.map { $0.term == heartbeat.term ? max($0.lsn, heartbeat.lsn) : heartbeat.lsn }
        heard = (term: heartbeat.term, lsn: lsn ?? heartbeat.lsn, monotonic: now.monotonic)
        pending = heartbeat
        applied(position, now: now)
    }

    /// The replica stands at `position`.
    mutating func applied(_ position: LogPosition, now: Now) {
        guard position.term >= newestTerm else { return }
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
