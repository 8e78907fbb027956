public import Core
public import Wire

/// Which replicas may answer a read.
public enum ReadConsistency: String, Sendable, Hashable, CaseIterable {
    /// Any.
    case eventual
    /// Only the leader.
    case leader
}

/// What the query of a request about a key demands beyond the ordinary: of a write, on how many replicas it has to be
/// and how long to wait for that; of a read, who may answer it and how old the answer may be.
public struct Guarantees: Sendable, Hashable {
    /// The parameters of writes: how they are named and what they take.
    public static let writeParameterNames = ["ack", "timeout"]
    public static let readParameterNames = ["consistency", "max_staleness"]
    private static let parameterNames = writeParameterNames + readParameterNames

    public static let timeoutMillisecondsDefault: UInt64 = 5_000
    public static let timeoutMillisecondsMax: UInt64 = 60_000

    public private(set) var ack: AckLevel?
    public private(set) var timeoutMilliseconds: UInt64?
    public private(set) var consistency: ReadConsistency?
    public private(set) var maxStalenessMilliseconds: UInt64?

    public init() {}

    /// Reads them from the query of a request.
    /// - Throws: `bad-request` with what is allowed, where a value is not.
    public init(_ parameters: QueryParameters) throws(Problem) {
        for name in Guarantees.parameterNames {
            if let value = try parameters.text(name) { try take(name, value) }
        }
    }

    /// Whether `name` is one of the parameters read here.
    static func names(_ name: some Sequence<UInt8>) -> String? {
        parameterNames.first { $0.utf8.elementsEqual(name) }
    }

    /// - Parameter name: one of the parameters read here; others are no concern.
    /// - Throws: `bad-request` with what is allowed, where `value` is not.
    mutating func take(_ name: String, _ value: String) throws(Problem) {
        switch name {
        case "ack":
            guard let level = AckLevel(value) else {
                throw refused(name, value, "leader, quorum, all or a number of replicas from 1")
            }
            ack = level
        case "timeout":
            guard let milliseconds = DurationText.milliseconds(value),
                (1...Guarantees.timeoutMillisecondsMax).contains(milliseconds)
            else { throw refused(name, value, "1ms to 60s, as in 500ms or 5s") }
            timeoutMilliseconds = milliseconds
        case "consistency":
            guard let consistency = ReadConsistency(rawValue: value) else {
                throw refused(name, value, "eventual or leader")
            }
            self.consistency = consistency
        case "max_staleness":
            guard let milliseconds = DurationText.milliseconds(value) else {
                throw refused(name, value, "a whole number and a unit (ms, s, m, h, d), as in 500ms")
            }
            maxStalenessMilliseconds = milliseconds
        default: break
        }
    }

    private func refused(_ name: String, _ value: String, _ allowed: String) -> Problem {
        Problem(.badRequest, "\(name)=\(value.prefix(64)) is not allowed: give \(allowed).")
    }

    /// - Throws: `bad-request` where a read demands what only writes can have, or the other way round.
    public func check(isRead: Bool) throws(Problem) {
        if isRead, ack != nil || timeoutMilliseconds != nil {
            throw Problem(.badRequest, "ack and timeout are for writes: a read takes consistency and max_staleness.")
        }
        if !isRead, consistency != nil || maxStalenessMilliseconds != nil {
            throw Problem(.badRequest, "consistency and max_staleness are for reads: a write takes ack and timeout.")
        }
    }
}
