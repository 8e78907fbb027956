import Core

/// An error answer: a problem document of RFC 9457, media type `application/problem+json`.
public struct Problem: Error, Sendable, Hashable {
    /// A stable name that scripts can match; each has one HTTP status.
    public struct Kind: Sendable, Hashable {
        public let name: String
        public let status: Int
        public let title: String

        init(_ name: String, _ status: Int, _ title: String) {
            self.name = name
            self.status = status
            self.title = title
        }
    }

    public var kind: Kind
    /// One sentence about this occurrence that says what to do.
    public var detail: String
    /// Further members, each a JSON string.
    public var members: [Member]

    public struct Member: Sendable, Hashable {
        public let name: String
        public let value: String
    }

    /// Details quote requests, which may be long and hold anything.
    private static let detailCharactersMax = 1_000

    public init(_ kind: Kind, _ detail: String, members: KeyValuePairs<String, String> = [:]) {
        self.kind = kind
        self.detail = ShownText.of(detail, charactersMax: Problem.detailCharactersMax)
        self.members = members.map { Member(name: $0.key, value: $0.value) }
    }

    /// The document, without a trailing newline.
    public var json: String {
        var text = "{\"type\":\(JSONText.quote(kind.name)),\"title\":\(JSONText.quote(kind.title))"
        text += ",\"status\":\(kind.status),\"detail\":\(JSONText.quote(detail))"
        for member in members { text += ",\(JSONText.quote(member.name)):\(JSONText.quote(member.value))" }
        return text + "}"
    }
}

extension Problem.Kind {
    public static let badRequest = Self("bad-request", 400, "The request is not valid")
    public static let notFound = Self("not-found", 404, "There is no such key")
    public static let unknownPath = Self("unknown-path", 404, "There is no such resource")
    public static let unknownShard = Self("unknown-shard", 404, "This node does not host that shard")
    public static let methodNotAllowed = Self("method-not-allowed", 405, "The method is not allowed here")
    public static let requestTimeout = Self("request-timeout", 408, "The request took too long to arrive")
    public static let notLeader = Self("not-leader", 409, "This node does not lead the shard")
    public static let staleTerm = Self("stale-term", 409, "The term is older than one already seen")
    public static let logMismatch = Self("log-mismatch", 409, "The batches do not continue this replica's log")
    public static let diverged = Self("diverged", 409, "The two histories differ")
    public static let logTruncated = Self("log-truncated", 410, "The log no longer reaches back that far")
    public static let versionUnknown = Self("version-unknown", 409, "The leader has no such version")
    public static let topologyConflict = Self("topology-conflict", 409, "The topology has changed meanwhile")
    public static let followerBehind = Self("follower-behind", 409, "The follower is behind")
    public static let replicaUnreachable = Self(
        "replica-unreachable", 409, "A replica that may have more is not reached")
    public static let unknownSnapshot = Self("unknown-snapshot", 404, "There is no such snapshot")
    public static let snapshotBusy = Self("snapshot-busy", 409, "Another snapshot is being received")
    public static let snapshotMismatch = Self("snapshot-mismatch", 409, "This does not continue the snapshot")
    public static let preconditionFailed = Self("precondition-failed", 412, "The condition does not hold")
    public static let notAnInteger = Self("not-an-integer", 409, "The value is not a 64-bit integer")
    public static let counterOverflow = Self("counter-overflow", 409, "The counter would overflow")
    public static let valueTooLarge = Self("value-too-large", 413, "The value is too large")
    public static let batchTooLarge = Self("batch-too-large", 413, "The batch is too large")
    public static let answerTooLarge = Self("answer-too-large", 413, "The values of the batch are too large together")
    public static let failedDependency = Self(
        "failed-dependency", 424, "Another operation of the atomic batch was refused")
    public static let targetTooLong = Self("target-too-long", 414, "The request target is too long")
    public static let expectationFailed = Self("expectation-failed", 417, "The expectation cannot be met")
    public static let headersTooLarge = Self("headers-too-large", 431, "The header fields are too large")
    public static let internalError = Self("internal-error", 500, "The server failed")
    public static let unsupported = Self("unsupported", 501, "This is not supported")
    public static let badGateway = Self("bad-gateway", 502, "The node behind the router answered wrongly")
    public static let overloaded = Self("overloaded", 503, "Too much is in flight")
    public static let unavailable = Self("unavailable", 503, "No node can serve this now")
    public static let corrupted = Self("corrupted", 503, "What is stored is damaged")
    public static let storageFailed = Self("storage-failed", 503, "The storage failed")
    public static let upstreamTimeout = Self(
        "upstream-timeout", 504, "The node behind the router did not answer in time")
    public static let ackTimeout = Self("ack-timeout", 504, "The write is not on enough replicas yet")
    public static let storageFull = Self("storage-full", 507, "The disk is full")
    public static let redirectLoop = Self("redirect-loop", 508, "The request was redirected too often")
}

/// The one piece of JSON written by hand: a string, RFC 8259 section 7.
public enum JSONText {
    public static func quote(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }) else {
            return "\"" + text + "\""
        }
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\n": quoted += "\\n"
            case "\r": quoted += "\\r"
            case "\t": quoted += "\\t"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
