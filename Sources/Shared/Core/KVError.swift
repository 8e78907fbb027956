/// The error of every library in this package: a code to act on, a message that says what to do, and
/// what is known about the cause. Made once, where everything is known; logged once, at the boundary.
public struct KVError: Error, Sendable {
    /// What kind of failure it is. Extensible: match the ones you know and treat the rest as fatal.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        public let description: String
        private init(_ description: String) { self.description = description }

        public static let invalidConfiguration = Code("invalid-configuration")
        public static let invalidArgument = Code("invalid-argument")
        public static let invalidData = Code("invalid-data")
        public static let notFound = Code("not-found")
        public static let unavailable = Code("unavailable")
        public static let timedOut = Code("timed-out")
        public static let overloaded = Code("overloaded")
        public static let corrupted = Code("corrupted")
        public static let storageFull = Code("storage-full")
        public static let storageFailed = Code("storage-failed")
        public static let locked = Code("locked")
        public static let notLeader = Code("not-leader")
        public static let staleTerm = Code("stale-term")
        public static let logMismatch = Code("log-mismatch")
        public static let logTruncated = Code("log-truncated")
        public static let diverged = Code("diverged")
        /// The leader has never had the version that a read asked for: a change of leader lost it.
        public static let versionUnknown = Code("version-unknown")
        /// The write is on the leader, and not in time on as many replicas as asked for.
        public static let ackTimeout = Code("ack-timeout")
        public static let unknownSnapshot = Code("unknown-snapshot")
        public static let snapshotBusy = Code("snapshot-busy")
        public static let snapshotMismatch = Code("snapshot-mismatch")
        /// What was asked for does not fit what the cluster is now.
        public static let conflict = Code("conflict")
        /// The condition of a write does not hold: it was not made.
        public static let preconditionFailed = Code("precondition-failed")
        /// What is to be counted up is no 64-bit integer: nothing was changed.
        public static let notAnInteger = Code("not-an-integer")
        /// The sum would be no 64-bit integer: nothing was changed.
        public static let counterOverflow = Code("counter-overflow")
        /// A write that must not be made twice was sent, and its answer did not come: it may have been made.
        public static let outcomeUnknown = Code("outcome-unknown")
        /// Another operation of the same atomic batch was refused, so that this one was not done.
        public static let batchRefused = Code("batch-refused")
        public static let cancelled = Code("cancelled")
        public static let internalError = Code("internal-error")
    }

    public struct SourceLocation: Sendable {
        public let file: String
        public let line: Int
    }

    public var code: Code
    /// One line, without a trailing full stop needed; says how to remedy where that is known.
    public var message: String
    public var cause: (any Error)?
    /// The version it is about: of ``Code/ackTimeout`` the one of the write, of ``Code/versionUnknown`` the one that is
    /// missing; nil for every other code.
    public var version: Version?
    public var location: SourceLocation

    public init(
        _ code: Code, _ message: String, version: Version? = nil, cause: (any Error)? = nil, file: String = #fileID,
        line: Int = #line
    ) {
        self.code = code
        self.message = message
        self.version = version
        self.cause = cause
        self.location = SourceLocation(file: file, line: line)
    }
}

extension KVError: CustomStringConvertible {
    public var description: String {
        guard let cause else { return message }
        return "\(message) (\(cause))"
    }
}
