public import FoundationEssentials

/// What `kv bench failover` measured: the document that its `--json` writes. docs/bench.md describes the members.
public struct FailoverRunReport: Sendable, Hashable {
    public static let currentFormat = 1

    public var format = currentFormat
    public var program = "kv bench failover"
    public var started: Date
    /// What was asked for, by the name of the option.
    public var settings: [String: String]
    public var machine: RunReport.Machine
    public var durationSeconds: Double
    /// By shard, then `write` and `read`.
    public var shards: [String: [String: Operation]]
    public var lostWrites: LostWrites
    /// What the command changed itself; nil where it only watched.
    public var change: Change?

    public init(
        started: Date, settings: [String: String], machine: RunReport.Machine, durationSeconds: Double,
        shards: [String: [String: Operation]], lostWrites: LostWrites, change: Change?
    ) {
        self.started = started
        self.settings = settings
        self.machine = machine
        self.durationSeconds = durationSeconds
        self.shards = shards
        self.lostWrites = lostWrites
        self.change = change
    }

    /// One line, with its newline.
    public func json() throws -> [UInt8] { try ReportCoding.encode(self) }
}

extension FailoverRunReport: Codable {
    private enum CodingKeys: String, CodingKey {
        case format
        case program
        case started
        case settings
        case machine
        case durationSeconds = "duration_s"
        case shards
        case lostWrites = "lost_writes"
        case change = "failover"
    }
}

extension FailoverRunReport {
    /// The requests of one kind to one shard.
    public struct Operation: Sendable, Hashable {
        public var requests: RunReport.Operation
        /// The longest time without a success, in milliseconds.
        public var gapMilliseconds: Double
        /// When that began, in seconds from the start.
        public var gapStartSeconds: Double

        public init(requests: RunReport.Operation, gap: GapFinder.Gap) {
            self.requests = requests
            gapMilliseconds = (Double(gap.length) / 1e4).rounded() / 1e2
            gapStartSeconds = (Double(gap.start) / 1e6).rounded() / 1e3
        }
    }

    /// What became of the acknowledged writes.
    public struct LostWrites: Sendable, Hashable, Codable {
        public var acknowledged: UInt64
        /// Read back in the end.
        public var checked: UInt64
        /// Not there any more.
        public var lost: UInt64
        /// Of ``lost``: those that the failover said may be lost; nil where it did not say that of any.
        public var announced: UInt64?
        /// Another value is there than was written.
        public var wrong: UInt64
        /// Could not be read.
        public var unreadable: UInt64
        /// Some that are lost or wrong.
        public var examples: [Example]

        public struct Example: Sendable, Hashable, Codable {
            public var key: String
            public var version: String

            public init(key: String, version: String) {
                self.key = key
                self.version = version
            }
        }

        /// Every acknowledged write was found.
        public var isClean: Bool { lost + wrong + unreadable == 0 && checked == acknowledged }
    }

    /// The change of leader that the command made.
    public struct Change: Sendable, Hashable, Codable {
        public var shard: String
        /// Seconds from the start.
        public var startSeconds: Double
        public var milliseconds: Double
        public var previousLeader: String?
        public var leader: String?
        /// It was said that nothing is lost.
        public var isComplete: Bool?
        /// All that was acknowledged up to this version is kept.
        public var version: String?
        public var writesHeldMilliseconds: Double?
        /// Why the leader was not changed.
        public var error: String?

        public init(shard: String, startSeconds: Double, milliseconds: Double) {
            self.shard = shard
            self.startSeconds = startSeconds
            self.milliseconds = milliseconds
        }

        private enum CodingKeys: String, CodingKey {
            case shard
            case startSeconds = "start_s"
            case milliseconds = "took_ms"
            case previousLeader = "previous_leader"
            case leader
            case isComplete = "is_complete"
            case version
            case writesHeldMilliseconds = "writes_held_ms"
            case error
        }
    }
}

extension FailoverRunReport.Operation: Codable {
    private enum CodingKeys: String, CodingKey {
        case gapMilliseconds = "gap_ms"
        case gapStartSeconds = "gap_start_s"
    }

    /// The counts and latencies stand beside the gap.
    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        gapMilliseconds = try values.decode(Double.self, forKey: .gapMilliseconds)
        gapStartSeconds = try values.decode(Double.self, forKey: .gapStartSeconds)
        requests = try RunReport.Operation(from: decoder)
    }

    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(gapMilliseconds, forKey: .gapMilliseconds)
        try values.encode(gapStartSeconds, forKey: .gapStartSeconds)
        try requests.encode(to: encoder)
    }
}
