public import FoundationEssentials

/// What `kv bench replication` measured: the document that its `--json` writes. docs/bench.md describes the members.
public struct ReplicationRunReport: Sendable, Hashable {
    public static let currentFormat = 1

    public var format = currentFormat
    public var program = "kv bench replication"
    public var started: Date
    /// What was asked for, by the name of the option.
    public var settings: [String: String]
    public var machine: RunReport.Machine
    public var durationSeconds: Double
    /// Writes that were acknowledged, per second.
    public var writesPerSecond: Double
    /// Those that were not, by HTTP status or name.
    public var writeErrors: [String: UInt64]
    /// Of the writes that were followed to the followers; nil where lag was not measured.
    public var write: RunReport.Operation?
    /// By address.
    public var followers: [String: Follower]

    public init(
        started: Date, settings: [String: String], machine: RunReport.Machine, durationSeconds: Double,
        writesPerSecond: Double, writeErrors: [String: UInt64], write: RunReport.Operation?,
        followers: [String: Follower]
    ) {
        self.started = started
        self.settings = settings
        self.machine = machine
        self.durationSeconds = (durationSeconds * 1e3).rounded() / 1e3
        self.writesPerSecond = (writesPerSecond * 10).rounded() / 10
        self.writeErrors = writeErrors
        self.write = write
        self.followers = followers
    }

    /// One line, with its newline.
    public func json() throws -> [UInt8] { try ReportCoding.encode(self) }

    /// Every write was made, and every follower got what it had to get.
    public var isComplete: Bool {
        writeErrors.isEmpty && (write?.errors ?? 0) == 0
            && followers.values.allSatisfy { ($0.lag?.errors ?? 0) == 0 && $0.catchUp?.isDone ?? true }
    }
}

extension ReplicationRunReport: Codable {
    private enum CodingKeys: String, CodingKey {
        case format
        case program
        case started
        case settings
        case machine
        case durationSeconds = "duration_s"
        case writesPerSecond = "writes_per_second"
        case writeErrors = "write_errors"
        case write
        case followers
    }
}

extension ReplicationRunReport {
    public struct Follower: Sendable, Hashable, Codable {
        /// From the leader's answer to a write until the follower has it. An error is one that it did not get in time.
        public var lag: RunReport.Operation?
        /// From when the write was due until the follower has it.
        public var visible: RunReport.Operation?
        /// Of a read that need not wait: so much of ``lag`` is the question itself.
        public var read: RunReport.Operation?
        public var catchUp: CatchUp?

        public init(
            lag: RunReport.Operation? = nil, visible: RunReport.Operation? = nil, read: RunReport.Operation? = nil,
            catchUp: CatchUp? = nil
        ) {
            self.lag = lag
            self.visible = visible
            self.read = read
            self.catchUp = catchUp
        }

        private enum CodingKeys: String, CodingKey {
            case lag
            case visible
            case read
            case catchUp = "catch_up"
        }
    }

    /// How a follower got what it lacked when the writes were over.
    public struct CatchUp: Sendable, Hashable, Codable {
        public var keysBehind: UInt64
        /// It has everything.
        public var isDone: Bool
        /// From its first movement on; nil where it lacked nothing, or has not caught up.
        public var seconds: Double?
        public var keysPerSecond: Double?

        public init(keysBehind: UInt64, isDone: Bool, seconds: Double?, keysPerSecond: Double?) {
            self.keysBehind = keysBehind
            self.isDone = isDone
            self.seconds = seconds.map { ($0 * 1e4).rounded() / 1e4 }
            self.keysPerSecond = keysPerSecond.map { ($0 * 10).rounded() / 10 }
        }

        /// Of two shards that one node follows at the same time: the longer time counts for both.
        public static func + (one: CatchUp, other: CatchUp) -> CatchUp {
            let keys = one.keysBehind + other.keysBehind
            let isDone = one.isDone && other.isDone
            let seconds = isDone ? [one.seconds, other.seconds].compactMap { $0 }.max() : nil
            return CatchUp(
                keysBehind: keys, isDone: isDone, seconds: seconds, keysPerSecond: seconds.map { Double(keys) / $0 })
        }

        private enum CodingKeys: String, CodingKey {
            case keysBehind = "keys_behind"
            case isDone = "is_done"
            case seconds = "took_s"
            case keysPerSecond = "keys_per_second"
        }
    }
}
