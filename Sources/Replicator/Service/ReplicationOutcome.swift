import Core
import Wire

/// What a leader says of itself with every answer about its log: at that time of its own clock, the last batch it
/// had committed was this one.
///
/// Passed on to followers as it is: a clock that is newer than the lsn it stands with would make a follower take
/// itself for fresher than it is.
struct LeaderClock: Sendable, Hashable {
    var term: UInt64
    var lsn: UInt64
    /// Milliseconds since the Unix epoch; nil from a leader that does not say.
    var milliseconds: UInt64?
}

/// What goes to a follower in one request: frames or, as a heartbeat, none.
struct LogPush: Sendable {
    /// Nil in a heartbeat.
    let segment: LogSegment?
    /// The leader's.
    let term: UInt64
    /// Nil where the leader's clock at that term is not known.
    let clock: LeaderClock?

    init(_ segment: LogSegment, _ clock: LeaderClock?) {
        self.segment = segment
        self.term = segment.leaderTerm
        self.clock = clock?.term == segment.leaderTerm ? clock : nil
    }

    init(heartbeat clock: LeaderClock) {
        self.segment = nil
        self.term = clock.term
        self.clock = clock
    }

    var byteCount: Int { segment?.byteCount ?? 0 }
}

/// What came of asking a node for its position.
enum PositionOutcome: Sendable {
    /// Damaged: what is, in a replica that is to be rebuilt.
    case position(LogPosition, PositionDocument.Role, damaged: String? = nil)
    case failed(String)
}

/// What came of reading a leader's log.
enum ReadOutcome: Sendable {
    case segment(LogSegment, LeaderClock)
    case nothingNew(LeaderClock)
    /// The leader cannot go on from the position: its log no longer reaches back or, where it is diverged, has another
    /// history.
    case cannotContinue(String, isDiverged: Bool = false)
    case failed(String)
}

/// What came of sending batches, or a heartbeat, to a follower.
enum PushOutcome: Sendable {
    /// Stored; the position is the follower's now.
    case accepted(LogPosition, damaged: String? = nil)
    /// They do not continue what it has; the position says what would.
    case rejected(LogPosition)
    case failed(String)
    /// Not sent: others to the same node come first.
    case postponed
}

/// What came of telling a leader where its followers are.
enum ReportOutcome: Sendable {
    case taken
    case failed(String)
}
