import NIOCore

/// What is known about one node, from looks at its `/readyz` and from requests that could not reach it.
///
/// Pure: fed with what happened, asked what follows. A node nothing is known about counts as alive, so that a
/// router serves from its first moment; it takes ``failuresUntilDead`` failures in a row to lose that, and one
/// answer to get it back.
struct NodeHealth: Sendable, Equatable {
    enum Condition: Sendable, Equatable {
        /// Neither answered nor failed often enough yet.
        case unknown
        case ready
        /// Alive, but says that it cannot serve its shards now.
        case notReady
        case dead
    }

    static let failuresUntilDead = 2

    private(set) var condition = Condition.unknown
    private(set) var failuresInARow = 0
    private(set) var lastAnswer: NIODeadline?
    /// The topology epoch of its last answer.
    private(set) var epoch: UInt64?
    /// Why it last failed; nil once it has answered.
    private(set) var lastError: String?

    var isAlive: Bool { condition != .dead }
    /// Alive, and not only taken to be.
    var hasAnswered: Bool { condition == .ready || condition == .notReady }
    var isPreferredForReads: Bool { condition == .ready || condition == .unknown }

    /// The node answered a look at `/readyz`.
    /// - Returns: whether ``condition`` changed.
    mutating func answered(ready: Bool, epoch: UInt64?, at now: NIODeadline) -> Bool {
        let before = condition
        condition = ready ? .ready : .notReady
        failuresInARow = 0
        lastAnswer = now
        if let epoch { self.epoch = epoch }
        lastError = nil
        return condition != before
    }

    /// The node could not be reached, did not answer in time, or answered something a node does not.
    /// - Returns: whether ``condition`` changed.
    mutating func failed(_ reason: String) -> Bool {
        let before = condition
        failuresInARow += 1
        lastError = reason
        if failuresInARow >= NodeHealth.failuresUntilDead { condition = .dead }
        return condition != before
    }
}
