public import FoundationEssentials

/// What one run of `kv bench` came to: the document that `--json` writes and `kv bench compare` reads.
///
/// ``RunTable`` shows it in a terminal, ``RunPage`` in a browser. docs/bench.md describes the members.
public struct RunReport: Sendable, Hashable {
    /// Of documents that this version writes and reads.
    public static let currentFormat = 1

    public var format = currentFormat
    /// When the measured part began.
    public var started: Date
    public var program: String
    /// What was asked for, by the name of the option.
    public var settings: [String: String]
    public var machine: Machine
    /// Of the measured part, without load phase and warm-up.
    public var durationSeconds: Double
    /// All that ended, those with an error included.
    public var requests: UInt64
    /// Answered without an error, per second.
    public var throughput: Double
    /// Processor time of the load generator itself, per request.
    public var clientMicroseconds: Double
    /// By name: `read`, `update`, `insert`, `scan`, `read_modify_write`, `delete`.
    public var operations: [String: Operation]
    /// By rising time.
    public var timeline: [Interval]
    /// Only of a run with `--verify`.
    public var verification: Verification?

    /// Sums up the operations; nothing can differ from them then.
    /// - Parameter clientSeconds: processor time of the load generator in the measured part.
    public init(
        started: Date, program: String = "kv bench", settings: [String: String], machine: Machine,
        durationSeconds: Double, clientSeconds: Double, operations: [String: Operation], timeline: [Interval],
        verification: Verification? = nil
    ) {
        self.started = started
        self.program = program
        self.settings = settings
        self.machine = machine
        self.durationSeconds = Self.rounded(durationSeconds, 1_000)
        let requests = operations.values.reduce(0) { $0 + $1.count }
        let answered = operations.values.reduce(0) { $0 + $1.answered }
        self.requests = requests
        throughput = durationSeconds > 0 ? Self.rounded(Double(answered) / durationSeconds, 10) : 0
        clientMicroseconds = requests > 0 ? Self.rounded(clientSeconds * 1e6 / Double(requests), 1_000) : 0
        self.operations = operations
        self.timeline = timeline
        self.verification = verification
    }

    public var errors: UInt64 { operations.values.reduce(0) { $0 + $1.errors } }

    /// In the order in which people are shown them.
    public var operationNames: [String] { Self.ordered(operations.keys) }

    /// Answered without an error per second.
    public func throughput(of operation: Operation) -> Double {
        durationSeconds > 0 ? Double(operation.answered) / durationSeconds : 0
    }

    static func ordered(_ names: some Sequence<String>) -> [String] {
        let known = ["read", "update", "insert", "scan", "read_modify_write", "delete"]
        func place(_ name: String) -> (Int, String) { (known.firstIndex(of: name) ?? known.count, name) }
        return names.sorted { place($0) < place($1) }
    }

    private static func rounded(_ value: Double, _ parts: Double) -> Double { (value * parts).rounded() / parts }
}

// The members are named one by one: renaming a property does not change the format.
extension RunReport: Codable {
    private enum CodingKeys: String, CodingKey {
        case format
        case started
        case program
        case settings
        case machine
        case durationSeconds = "duration_s"
        case requests
        case throughput
        case clientMicroseconds = "client_cpu_us"
        case operations
        case timeline
        case verification
    }
}

extension RunReport {
    public struct Machine: Sendable, Hashable, Codable {
        /// The processor's name.
        public var cpu: String
        /// That the program may use.
        public var cores: Int
        public var kernel: String

        public init(cpu: String, cores: Int, kernel: String) {
            self.cpu = cpu
            self.cores = cores
            self.kernel = kernel
        }
    }

    /// All requests of one kind.
    public struct Operation: Sendable, Hashable {
        /// All that ended, those with an error included.
        public var count: UInt64
        public var errors: UInt64
        /// By HTTP status (`503`) or name (`timeout`); they add up to ``errors``.
        public var errorsByType: [String: UInt64]
        /// Of those that were answered without an error; nil where none was. From the intended start in open loop.
        public var latency: LatencySummary?

        public init(count: UInt64, errorsByType: [String: UInt64] = [:], latency: LatencySummary?) {
            self.count = count
            self.errorsByType = errorsByType.filter { $0.value > 0 }
            errors = errorsByType.values.reduce(0, +)
            self.latency = latency
        }

        public var answered: UInt64 { count - min(errors, count) }
    }

    /// A part of the run, about a second.
    public struct Interval: Sendable, Hashable, Codable {
        /// Its end, from the start of the measured part.
        public var endSeconds: Double
        /// How long it is.
        public var spanSeconds: Double
        public var operations: [String: IntervalOperation]

        public init(endSeconds: Double, spanSeconds: Double, operations: [String: IntervalOperation]) {
            self.endSeconds = rounded(endSeconds, 1_000)
            self.spanSeconds = rounded(spanSeconds, 1_000)
            self.operations = operations
        }

        private enum CodingKeys: String, CodingKey {
            case endSeconds = "t_s"
            case spanSeconds = "span_s"
            case operations
        }
    }

    /// The requests of one kind that ended in an ``Interval``.
    public struct IntervalOperation: Sendable, Hashable, Codable {
        public var count: UInt64
        public var errors: UInt64
        /// Microseconds, of those that were answered without an error; nil where none was.
        public var p50: Double?
        public var p99: Double?
        public var max: Double?

        /// - Parameter latency: in microseconds; nil where nothing was answered.
        public init(count: UInt64, errors: UInt64, latency: (p50: Double, p99: Double, max: Double)?) {
            self.count = count
            self.errors = errors
            p50 = latency.map { LatencySummary.tenths($0.p50) }
            p99 = latency.map { LatencySummary.tenths($0.p99) }
            max = latency.map { LatencySummary.tenths($0.max) }
        }

        public var answered: UInt64 { count - min(errors, count) }

        private enum CodingKeys: String, CodingKey {
            case count
            case errors
            case p50 = "p50_us"
            case p99 = "p99_us"
            case max = "max_us"
        }
    }

    /// What the checks of the values that were read found.
    public struct Verification: Sendable, Hashable, Codable {
        public var checked: UInt64
        /// An older version than one that had been acknowledged.
        public var stale: UInt64
        /// A value of another key, or damaged.
        public var wrong: UInt64
        /// Acknowledged, and not there.
        public var missing: UInt64

        public init(checked: UInt64, stale: UInt64 = 0, wrong: UInt64 = 0, missing: UInt64 = 0) {
            self.checked = checked
            self.stale = stale
            self.wrong = wrong
            self.missing = missing
        }

        public var isClean: Bool { stale + wrong + missing == 0 }
    }
}
