public import Core
public import NIOCore
import Wire

/// What a write expects to find, and what it waits for.
public struct WriteOptions: Sendable, Hashable {
    /// What a write expects to find under its key. The leader checks it at the write's place in the log, so of many
    /// writes that expect the same version one is made; the others fail with `preconditionFailed`.
    public enum Condition: Sendable, Hashable {
        /// There is no such key.
        case absent
        /// There is such a key.
        case exists
        /// The key has this version, as a write or a read returned it.
        case version(Version)

        var field: (name: String, value: String) {
            switch self {
            case .absent: ("if-none-match", "*")
            case .exists: ("if-match", "*")
            case .version(let version): ("if-match", "\"\(version.hexDigits)\"")
            }
        }
    }

    /// nil for a write that is made whatever it finds.
    public var condition: Condition?
    /// After how long a put value is gone, 1 ms to 36,500 days, in whole milliseconds; nil for never.
    ///
    /// Only of a put: an increment leaves the end of what it finds as it is. A put that is tried again begins its time
    /// anew.
    public var ttl: TimeAmount?
    /// On how many replicas the write has to be before it is acknowledged; nil for the cluster's `default_ack`.
    ///
    /// Not reached in time, the write fails with `ackTimeout`: it stays on the leader and goes on spreading.
    public var ack: AckLevel?
    /// How long that may take, at least 1 ms, on top of the client's `requestTimeout`; nil for the node's own limit.
    public var ackTimeout: TimeAmount?

    /// From the call to its end; nil for the client's `requestTimeout`, to which acknowledgements asked for are added.
    public var timeout: TimeAmount?

    public init(
        condition: Condition? = nil, ttl: TimeAmount? = nil, ack: AckLevel? = nil, ackTimeout: TimeAmount? = nil,
        timeout: TimeAmount? = nil
    ) {
        self.condition = condition
        self.ttl = ttl
        self.ack = ack
        self.ackTimeout = ackTimeout
        self.timeout = timeout
    }

    /// What is allowed for an acknowledgement where only the node knows its limit.
    private static let ackTimeoutAssumed = TimeAmount.seconds(5)

    /// By how much the acknowledgements may lengthen a write.
    var patience: TimeAmount {
        if let ackTimeout { return ackTimeout }
        return ack == nil || ack == .leader ? .nanoseconds(0) : Self.ackTimeoutAssumed
    }

    var query: [String] {
        var query: [String] = []
        if let ttl { query.append("ttl=\(RequestOptions.text(ttl))") }
        if let ack { query.append("ack=\(ack)") }
        if let ackTimeout { query.append("timeout=\(RequestOptions.text(ackTimeout))") }
        return query
    }
}

/// How new the answer to a read has to be.
public struct ReadOptions: Sendable, Hashable {
    public enum Consistency: String, Sendable, Hashable, CaseIterable {
        /// Any replica answers.
        case eventual
        /// Only the leader answers.
        case leader
    }

    public var consistency: Consistency
    /// A version of the key's shard that the answer has to include, as a write or an earlier read returned it; it
    /// counts in addition to what the client's session has seen.
    public var minVersion: Version?
    /// By how much a follower's answer may be behind, at least 1 ms; nil for any.
    public var maxStaleness: TimeAmount?
    /// From the call to its end; nil for the client's `requestTimeout`.
    public var timeout: TimeAmount?

    public init(
        consistency: Consistency = .eventual, minVersion: Version? = nil, maxStaleness: TimeAmount? = nil,
        timeout: TimeAmount? = nil
    ) {
        self.consistency = consistency
        self.minVersion = minVersion
        self.maxStaleness = maxStaleness
        self.timeout = timeout
    }

    var query: [String] {
        var query: [String] = []
        if consistency == .leader { query.append("consistency=leader") }
        if let maxStaleness { query.append("max_staleness=\(RequestOptions.text(maxStaleness))") }
        return query
    }
}

extension WriteOptions {
    /// Throws `KVError(.invalidArgument)` where there is a ``ttl`` that cannot be.
    func checkTTL(isPut: Bool) throws(KVError) {
        guard let ttl else { return }
        guard isPut else {
            throw KVError(.invalidArgument, "a ttl is for a put: a removal has none, an increment keeps what there is")
        }
        guard ttl > .nanoseconds(0), ttl.nanoseconds / 1_000_000 <= Int64(Limits.ttlMillisecondsMax) else {
            throw KVError(.invalidArgument, "a ttl is from 1ms to \(Limits.ttlMillisecondsMax / 86_400_000)d")
        }
    }
}

enum RequestOptions {
    /// As ``DurationText`` reads it: whole milliseconds, rounded up.
    static func text(_ time: TimeAmount) -> String { "\(max(1, (time.nanoseconds + 999_999) / 1_000_000))ms" }

    /// Path and query of a request for `key`.
    static func target(key: [UInt8], query: [String]) -> String {
        let path = APIPath.key(key)
        return query.isEmpty ? path : "\(path)?\(query.joined(separator: "&"))"
    }
}
