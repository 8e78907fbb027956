import Histogram

/// Why an operation failed.
public enum Failure: Hashable, Sendable, CustomStringConvertible {
    /// Answered, with a status that is no success.
    case status(Int)
    /// Not answered in time.
    case timeout
    /// Its node could not be connected to.
    case refused
    /// Its connection was closed or broke before the answer.
    case reset
    /// Redirected more often than allowed.
    case redirectLoop
    /// Answered with what is no HTTP of the servers' kind.
    case badAnswer
    /// Due, and not begun in time, because all connections were busy: of an open loop.
    case unsent

    public var description: String {
        switch self {
        case .status(let status): String(status)
        case .timeout: "timeout"
        case .refused: "refused"
        case .reset: "reset"
        case .redirectLoop: "redirect_loop"
        case .badAnswer: "bad_answer"
        case .unsent: "unsent"
        }
    }
}

/// What became of the operations of one kind.
public struct OperationResult: Sendable {
    /// Of those that were answered without error, in nanoseconds, three significant digits.
    private(set) var latencies: Histogram<UInt64>
    public private(set) var failures: [Failure: Int] = [:]
    private var latencySum: Double = 0

    /// Longer ones count as this long: an hour.
    static let latencyMax: UInt64 = 3_600_000_000_000

    public init() {
        // Below 256 ns nothing is told apart: a quarter of the memory.
        latencies = Histogram(
            lowestDiscernibleValue: 256, highestTrackableValue: Self.latencyMax, numberOfSignificantValueDigits: .three)
    }

    public var answered: Int { Int(latencies.totalCount) }
    public var errors: Int { failures.values.reduce(0, +) }
    /// Of ``latencies``, by rising upper bound, those that are not empty.
    public var buckets: [(upper: UInt64, count: UInt64)] {
        latencies.recordedValues().map { (latencies.highestEquivalentForValue($0.value), $0.count) }
    }
    /// Of the latencies; nil where there is none.
    public var mean: Double? { answered > 0 ? latencySum / Double(answered) : nil }
    public var longest: UInt64 { latencies.maxRecorded }
    /// All that ended.
    public var count: Int { answered + errors }
    public var isEmpty: Bool { latencies.totalCount == 0 && failures.isEmpty }

    mutating func record(_ nanoseconds: UInt64) {
        let latency = min(nanoseconds, Self.latencyMax)
        latencies.record(latency)
        latencySum += Double(latency)
    }

    mutating func record(_ failure: Failure) { failures[failure, default: 0] += 1 }

    mutating func add(_ other: OperationResult) {
        latencies.add(other.latencies)
        failures.merge(other.failures) { $0 + $1 }
        latencySum += other.latencySum
    }

    mutating func reset() {
        guard !isEmpty else { return }
        latencies.reset()
        failures = [:]
        latencySum = 0
    }
}

/// One piece of a run's time, a second long but for the last.
public struct IntervalResult: Sendable {
    /// Seconds from the end of the warm-up to the end of the piece.
    public var end: Double
    public var span: Double
    public var operations: [OperationKind: Summary]

    public struct Summary: Sendable, Equatable {
        public var count: Int
        public var errors: Int
        /// Nanoseconds.
        public var p50, p99, max: UInt64

        init(_ result: OperationResult) {
            count = result.count
            errors = result.errors
            p50 = result.latencies.valueAtPercentile(50)
            p99 = result.latencies.valueAtPercentile(99)
            max = result.latencies.maxRecorded
        }
    }
}

/// What one run measured, all threads together.
public struct LoadResult: Sendable {
    public var operations: [OperationKind: OperationResult] = [:]
    public var timeline: [IntervalResult] = []
    /// Seconds that were measured, without the warm-up.
    public var seconds = 0.0
    /// Requests answered while measuring: two for a read-modify-write, one more for each redirect.
    public var requests = 0
    /// Of them redirects.
    public var redirects = 0
    /// Processor time of the threads that sent them, in seconds.
    public var cpuSeconds = 0.0
    /// nil where nothing was verified.
    public var verification: Verification?
    /// It was ended before its time.
    public var wasInterrupted = false

    public var answered: Int { operations.values.reduce(0) { $0 + $1.answered } }
    public var throughput: Double { seconds > 0 ? Double(answered) / seconds : 0 }
    public var errors: Int { operations.values.reduce(0) { $0 + $1.errors } }
}
