/// Names of the project's own header fields, lower case as they are written.
public enum KVHeader {
    /// The version of the value or of the write: 16 hex digits.
    public static let version = "kv-version"
    /// The topology epoch of the answering process, decimal. On every answer.
    public static let epoch = "kv-epoch"
    /// `kv-epoch: …` with its CRLF, as every answer carries it; made once for each topology.
    public static func epochField(_ epoch: UInt64) -> [UInt8] { Array("\(self.epoch): \(epoch)\r\n".utf8) }
    /// The leader's term, on replication requests and answers, decimal.
    public static let term = "kv-term"
    /// The last lsn the answering leader has committed, on log answers, decimal.
    public static let lsn = "kv-lsn"
}

/// Media types of the wire.
public enum MediaType {
    public static let json = "application/json"
    public static let problem = "application/problem+json"
    public static let bytes = "application/octet-stream"
    public static let logFrames = "application/vnd.distribkv.log-frames"
}

/// Paths and query parameters that processes of the cluster use among themselves and clients use.
public enum APIPath {
    public static let topology = "/topology"
    public static let status = "/status"
    public static let healthz = "/healthz"
    public static let readyz = "/readyz"
    public static let metrics = "/metrics"

    /// `/kv/{key}`, percent-encoded.
    public static func key(_ key: some Sequence<UInt8>) -> String { "/kv/" + PercentCoding.encode(key) }

    /// Answers ``PositionDocument``.
    public static func position(shard: String) -> String { "/replication/\(shard)/position" }

    /// Answers ``LogFrame``s after the position in the query: `term`, `lsn`, `version` (hex digits) of the last
    /// batch the reader has, `wait` (milliseconds to wait for a new batch), `max_bytes` (of the answer; one frame
    /// is sent even when larger).
    public static func wal(shard: String) -> String { "/replication/\(shard)/wal" }

    /// Takes ``LogFrame``s, answers ``PositionDocument``.
    public static func batches(shard: String) -> String { "/replication/\(shard)/batches" }
}

/// The query parameter in a redirect's `Location` that counts how often this request was redirected.
///
/// Two nodes that disagree about the topology would send a client in circles; the count ends that.
public let redirectHopsParameter = "hops"
