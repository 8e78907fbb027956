public import Core

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
    /// The last lsn the leader has committed, decimal: on log answers, and on pushes to followers together with
    /// ``clock``.
    public static let lsn = "kv-lsn"
    /// The leader's wall clock when its last committed lsn was ``lsn``: milliseconds since the Unix epoch, decimal.
    public static let clock = "kv-clock"
    /// Milliseconds that a follower's answer may be behind the leader, decimal. Absent where it does not know.
    public static let lag = "kv-lag"
    /// What is left of the life of a value that expires, in milliseconds, with their unit: `29993ms`.
    public static let expiresIn = "kv-expires-in"
    /// On a read: the version the answer has to include at least, 16 hex digits.
    public static let minVersion = "kv-min-version"
    /// CRC-32C of the body, eight hex digits: on parts of snapshot files.
    public static let checksum = "kv-crc32c"
    /// Of a page of a scan: the `start` of the next one, percent-encoded; absent where there is no more.
    public static let next = "kv-next"
    /// Of a page of a scan with `partial=true`: the names of the shards that are not in it, joined by commas; absent
    /// where none is missing.
    public static let missingShards = "kv-missing-shards"
}

/// Media types of the wire.
public enum MediaType {
    public static let json = "application/json"
    public static let problem = "application/problem+json"
    public static let ndjson = "application/x-ndjson"
    public static let bytes = "application/octet-stream"
    public static let logFrames = "application/vnd.distribkv.log-frames"
    /// ``ScanFrame``s.
    public static let scanFrames = "application/vnd.distribkv.scan-frames"
}

/// Paths and query parameters that processes of the cluster use among themselves and clients use.
public enum APIPath {
    public static let topology = "/topology"
    public static let status = "/status"
    public static let healthz = "/healthz"
    public static let readyz = "/readyz"
    public static let metrics = "/metrics"
    public static let openAPI = "/openapi.json"

    /// GET answers a page of records; see ``ScanQuery``.
    public static let scan = "/kv"

    /// `/kv/{key}`, percent-encoded.
    public static func key(_ key: some Sequence<UInt8>) -> String { "/kv/" + PercentCoding.encode(key) }

    /// Takes ``BatchOperation``s as NDJSON, answers a ``BatchResult`` for each.
    public static let batch = "/batch"

    /// A batch for the node that leads its shards: operations on others are answered `not-leader`, not sent on.
    public static func batch(isAtomic: Bool, ack: AckLevel?, timeoutMilliseconds: UInt64?) -> String {
        var target = "\(batch)?forward=false"
        if isAtomic { target += "&atomic=true" }
        if let ack { target += "&ack=\(ack)" }
        if let timeoutMilliseconds { target += "&timeout=\(timeoutMilliseconds)ms" }
        return target
    }

    /// Answers ``PositionDocument``.
    public static func position(shard: String) -> String { "/replication/\(shard)/position" }

    /// Answers ``LogFrame``s after the position in the query: `term`, `lsn`, `version` (hex digits) of the last
    /// batch the reader has, `wait` (milliseconds to wait for a new batch), `max_bytes` (of the answer; one frame
    /// is sent even when larger).
    public static func wal(shard: String) -> String { "/replication/\(shard)/wal" }

    /// Takes ``LogFrame``s, answers ``PositionDocument``. With no frames it is a heartbeat.
    public static func batches(shard: String) -> String { "/replication/\(shard)/batches" }

    /// Takes an ``AckReport`` on the leader, answers 204.
    public static func acks(shard: String) -> String { "/replication/\(shard)/acks" }

    /// Answers ``HistoryDocument``.
    public static func history(shard: String) -> String { "/replication/\(shard)/history" }

    /// Takes a ``FenceRequest``, answers ``HistoryDocument``.
    public static func fence(shard: String) -> String { "/replication/\(shard)/fence" }

    /// On the leader: POST takes a checkpoint, or shares one, and answers its ``SnapshotManifest``.
    public static func snapshots(shard: String) -> String { "/replication/\(shard)/snapshots" }

    /// On the leader: DELETE gives the checkpoint up.
    public static func snapshot(shard: String, id: String) -> String { "/replication/\(shard)/snapshots/\(id)" }

    /// On the leader: GET with `offset` and `length` answers that part of the file with its ``KVHeader/checksum``.
    public static func snapshotFile(shard: String, id: String, file: String) -> String {
        "/replication/\(shard)/snapshots/\(id)/\(file)"
    }

    /// On the follower: POST a ``SnapshotManifest`` begins or resumes, GET looks, DELETE gives up; all answer
    /// ``SnapshotReceipt``.
    public static func receivedSnapshot(shard: String) -> String { "/replication/\(shard)/received-snapshot" }

    /// On the follower: PUT with `id` and `offset` appends the body, whose ``KVHeader/checksum`` is checked; answers
    /// ``SnapshotReceipt``.
    public static func receivedFile(shard: String, file: String) -> String {
        "/replication/\(shard)/received-snapshot/\(file)"
    }

    /// On the follower: POST with `id` verifies what was received and puts it in place; answers ``PositionDocument``.
    /// With `diverged=true` where the leader does not have the batch at which the follower ends.
    public static func installSnapshot(shard: String) -> String { "/replication/\(shard)/install-snapshot" }

    /// On the leader: POST a ``MembershipRequest`` adds a follower; answers the topology.
    public static func replicas(shard: String) -> String { "/shards/\(shard)/replicas" }

    /// On the leader: DELETE removes the follower; answers the topology.
    public static func replica(shard: String, node: NodeAddress) -> String { "/shards/\(shard)/replicas/\(node)" }

    /// On the leader: POST a ``HandoverRequest`` moves the leadership without loss; answers ``FailoverReport``.
    public static func handover(shard: String) -> String { "/shards/\(shard)/handover" }

    /// On a follower: POST a ``PromoteRequest`` makes it the leader; answers ``FailoverReport``.
    public static func promote(shard: String) -> String { "/shards/\(shard)/promote" }

    /// On the leader: POST with `milliseconds` holds its writes back and answers ``PositionDocument``; DELETE lets
    /// them go.
    public static func hold(shard: String) -> String { "/shards/\(shard)/hold" }

    /// POST begins to compact the replica of the node that is asked, GET looks; both answer ``CompactionDocument``.
    public static func compaction(shard: String) -> String { "/shards/\(shard)/compact" }

    /// POST begins to scrub the replica of the node that is asked, GET looks; both answer ``ScrubDocument``.
    public static func scrub(shard: String) -> String { "/shards/\(shard)/scrub" }

    /// POST a ``DigestRequest``, answers ``DigestDocument``.
    public static func digest(shard: String) -> String { "/shards/\(shard)/digest" }
}

/// The query parameter in a redirect's `Location` that counts how often this request was redirected.
///
/// Two nodes that disagree about the topology would send a client in circles; the count ends that.
public let redirectHopsParameter = "hops"
