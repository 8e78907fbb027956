import Core
import Wire

/// The one reader of a leader's log for all followers near its end: decides when to read, keeps what came.
///
/// Pure: events in, at most one action out. It reads only while somebody wants what it reads; the first
/// follower that reaches the end of the log on its own gives it a place to start from (``adopt(_:isWanted:)``).
struct ShardFeed {
    enum Timer: Hashable, Sendable { case pace, retry, idle }

    enum Event: Sendable {
        case read(after: LogPosition, ReadOutcome)
        case position(PositionOutcome)
        case timerFired(Timer)
    }

    enum Action: Sendable {
        /// A long poll.
        case read(after: LogPosition)
        case askPosition
        case wait(Duration, Timer)
    }

    enum Notice: Sendable {
        case leaderLost(String)
        case leaderBack
    }

    private let limits: ReplicationLimits
    /// Nil until a position is known that the leader can continue.
    private(set) var window: LogWindow?
    /// The last lsn the leader reported.
    private(set) var leaderLSN: UInt64 = 0
    /// What came with the last answer to a read; nil until one came.
    private(set) var clock: LeaderClock?
    /// Why the leader cannot be read; nil while it can.
    private(set) var error: String?
    /// For tests: reads begun.
    private(set) var readCount: UInt64 = 0

    private var isAsking = false
    /// Whether a read is on its way.
    private(set) var isReading = false
    private var timers: Set<Timer> = []
    private var backoff: Backoff
    private var lastRead: Duration?
    private var lastAnswer: Duration?

    init(limits: ReplicationLimits) {
        self.limits = limits
        self.backoff = Backoff(min: limits.backoffMin, max: limits.backoffMax)
    }

    mutating func handle(_ event: Event, now: Duration, random: inout SplitMix64) -> (Action?, Notice?) {
        switch event {
        case .timerFired(let timer):
            timers.remove(timer)
            return (nil, nil)
        case .position(let outcome):
            isAsking = false
            switch outcome {
            case .position(let position, .leader, _):
                leaderLSN = position.lsn
                return (nil, answered(now))
            case .position(_, .follower, _):
                return failed("it says that it follows: the topology is not the same everywhere", &random)
            case .failed(let text):
                return failed(text, &random)
            }
        case .read(let position, let outcome):
            isAsking = false
            isReading = false
            switch outcome {
            case .segment(let segment, let clock):
                observe(leaderLSN: max(clock.lsn, segment.last.lsn))
                self.clock = clock
                // What does not continue the window was asked for before the window began anew.
                if window?.append(segment) == true { window?.trim(to: limits.windowBytesMax, keepsNewest: true) }
                return (nil, answered(now))
            case .nothingNew(let clock):
                observe(leaderLSN: clock.lsn)
                self.clock = clock
                return (nil, answered(now))
            case .cannotContinue:
                // The leader has another history than the one read so far; the followers find their own way.
                if window?.tail == position { window = nil }
                leaderLSN = 0
                clock = nil
                return (nil, answered(now))
            case .failed(let text):
                return failed(text, &random)
            }
        }
    }

    /// What to do next.
    /// - Parameter demand: the position of the fastest follower in the window; nil where there is none.
    mutating func next(demand: LogPosition?, now: Duration) -> Action? {
        guard !isAsking, !timers.contains(.retry), !timers.contains(.pace) else { return nil }
        guard let demand, let window, let ahead = window.bytes(after: demand) else { return nextWithoutDemand(now) }
        guard ahead < limits.readAheadBytesMax else { return nil }
        if let lastRead, now - lastRead < limits.readInterval {
            timers.insert(.pace)
            return .wait(limits.readInterval - (now - lastRead), .pace)
        }
        isAsking = true
        isReading = true
        lastRead = now
        readCount += 1
        return .read(after: window.tail)
    }

    private mutating func nextWithoutDemand(_ now: Duration) -> Action? {
        guard let lastAnswer, now - lastAnswer < limits.idleInterval else {
            isAsking = true
            return .askPosition
        }
        guard timers.insert(.idle).inserted else { return nil }
        return .wait(limits.idleInterval - (now - lastAnswer), .idle)
    }

    /// Begins anew at a position that the leader has just confirmed to be the end of its log, unless the window
    /// already reaches as far and is wanted.
    mutating func adopt(_ position: LogPosition, isWanted: Bool) {
        if isWanted, let window, window.tail.lsn >= position.lsn { return }
        if let window, window.bytes(after: position) != nil { return }
        window = LogWindow(base: position)
    }

    /// Takes note of an lsn the leader reported elsewhere.
    mutating func observe(leaderLSN: UInt64) { self.leaderLSN = max(self.leaderLSN, leaderLSN) }

    func supply(after position: LogPosition) -> LogWindow.Supply {
        window?.supply(after: position, bytesMax: limits.batchBytesMax) ?? .outside
    }

    /// Drops even the newest frames where they are too large to keep.
    mutating func releaseUnwanted() { window?.trim(to: limits.windowBytesMax, keepsNewest: false) }

    private mutating func answered(_ now: Duration) -> Notice? {
        lastAnswer = now
        backoff.reset()
        guard error != nil else { return nil }
        error = nil
        return .leaderBack
    }

    private mutating func failed(_ text: String, _ random: inout SplitMix64) -> (Action?, Notice?) {
        let notice: Notice? = error == nil ? .leaderLost(text) : nil
        error = text
        guard timers.insert(.retry).inserted else { return (nil, notice) }
        return (.wait(backoff.wait(using: &random), .retry), notice)
    }
}
