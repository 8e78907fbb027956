import Core
import Wire

/// When the leader is told where its followers are.
///
/// Pure. A report goes out at once where none is on its way and the last is `reportInterval` old; what changes
/// meanwhile goes with the next one, so that under load one report tells of many batches. A failed report is never
/// repeated as it was: the next one says what holds then.
///
/// Invariant: at most one report and one timer are outstanding.
struct AckReporting {
    enum Step {
        /// To be answered by ``AckReporting/begin(_:now:)`` with what there is to say.
        case report
        case wait(Duration)
    }

    private let interval: Duration
    private var backoff: Backoff
    private var isDue = false
    private var isInFlight = false
    private var isWaiting = false
    private var lastReport: Duration?

    init(limits: ReplicationLimits) {
        interval = limits.reportInterval
        backoff = Backoff(min: limits.backoffMin, max: limits.backoffMax)
    }

    /// A position has changed, or it is time to say them again for a leader that may have forgotten.
    mutating func request() { isDue = true }

    mutating func timerFired() { isWaiting = false }

    /// - Returns: how long to wait before the next one, after a failure.
    mutating func reported(_ outcome: ReportOutcome, random: inout SplitMix64) -> Duration? {
        isInFlight = false
        switch outcome {
        case .taken:
            backoff.reset()
            return nil
        case .failed:
            isDue = true
            guard !isWaiting else { return nil }
            isWaiting = true
            return backoff.wait(using: &random)
        }
    }

    mutating func next(now: Duration) -> Step? {
        guard isDue, !isInFlight, !isWaiting else { return nil }
        if let lastReport, now - lastReport < interval {
            isWaiting = true
            return .wait(interval - (now - lastReport))
        }
        isDue = false
        return .report
    }

    /// The report to send; nil where there is nothing to say.
    mutating func begin(_ acks: [AckReport.Ack], now: Duration) -> AckReport? {
        guard !acks.isEmpty else { return nil }
        isInFlight = true
        lastReport = now
        return AckReport(acks: Array(acks.prefix(AckReport.linesMax)))
    }
}
