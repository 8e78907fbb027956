import Core
import Wire

/// What came of asking a node for its position.
enum PositionOutcome: Sendable {
    case position(LogPosition, PositionDocument.Role)
    case failed(String)
}

/// What came of reading a leader's log.
enum ReadOutcome: Sendable {
    /// - leaderLSN: the last lsn the leader has committed.
    case segment(LogSegment, leaderLSN: UInt64)
    case nothingNew(leaderLSN: UInt64)
    /// The leader cannot go on from the position: its log no longer reaches back, or has another history.
    case cannotContinue(String)
    case failed(String)
}

/// What came of sending batches to a follower.
enum PushOutcome: Sendable {
    /// Stored; the position is the follower's now.
    case accepted(LogPosition)
    /// They do not continue what it has; the position says what would.
    case rejected(LogPosition)
    case failed(String)
}
