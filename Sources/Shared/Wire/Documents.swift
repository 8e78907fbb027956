public import Core
import FoundationEssentials

/// What `GET /replication/{shard}/position` and `POST /replication/{shard}/batches` answer.
public struct PositionDocument: Codable, Sendable, Hashable {
    public enum Role: String, Codable, Sendable { case leader, follower }

    public var shard: String
    public var role: Role
    public var term: UInt64
    public var lsn: UInt64
    /// 16 hex digits.
    public var version: String
    /// What is damaged in the replica, so that it is to be rebuilt; nil if it knows of no damage.
    public var damaged: String?

    public init(shard: String, role: Role, position: LogPosition, damaged: String? = nil) {
        self.shard = shard
        self.role = role
        self.damaged = damaged
        self.term = position.term
        self.lsn = position.lsn
        self.version = position.version.hexDigits
    }

    /// Throws `KVError(.invalidData)` where `version` is not 16 hex digits.
    public var position: LogPosition {
        get throws {
            guard let version = Version(hexDigits: version) else {
                throw KVError(.invalidData, "\"\(version)\" is not a version: 16 hex digits")
            }
            return LogPosition(term: term, lsn: lsn, version: version)
        }
    }
}

/// `GET /status` of a storage node.
public struct StorageNodeStatus: Codable, Sendable, Hashable {
    public struct Shard: Codable, Sendable, Hashable {
        public var name: String
        public var role: PositionDocument.Role
        public var term: UInt64
        public var lsn: UInt64
        public var version: String
        /// RocksDB's estimate; overwritten and deleted keys count until compaction.
        public var keysEstimate: UInt64
        /// SST files and live write-ahead logs.
        public var diskBytes: UInt64
        public var memtableBytes: UInt64
        /// The oldest lsn a follower can still be fed from memory or the write-ahead log; nil where not known yet.
        public var logFirstLsn: UInt64?
        /// Why writes are refused, or will be soon; nil while all is well.
        public var failure: String?
        /// What is damaged in it; nil if it knows of no damage.
        public var damage: String?
        /// The path of a damaged database that was kept when the replica was rebuilt, and may be the only place of some
        /// writes.
        public var setAside: String?
        /// What the replica is doing; nil from a node that does not say.
        public var state: ReplicaState?
        /// The highest term seen, promised or led in; at least `term`.
        public var newestTerm: UInt64?
        /// Of a follower: by how many milliseconds it may be behind its leader.
        public var lagMilliseconds: UInt64?
        /// Of a leader: what it knows of its followers.
        public var followers: [FollowerAck]?
        /// Of a replica that is being rebuilt.
        public var snapshot: SnapshotProgress?
        /// Writes that this replica had and the shard's history has not, saved before it was rebuilt.
        public var diverged: [DivergedWrites]?
        /// The scrub that runs, or the last one; nil before the first.
        public var scrub: ScrubDocument?

        public init(
            name: String, role: PositionDocument.Role, position: LogPosition, keysEstimate: UInt64, diskBytes: UInt64,
            memtableBytes: UInt64, logFirstLsn: UInt64?, failure: String?
        ) {
            self.name = name
            self.role = role
            self.term = position.term
            self.lsn = position.lsn
            self.version = position.version.hexDigits
            self.keysEstimate = keysEstimate
            self.diskBytes = diskBytes
            self.memtableBytes = memtableBytes
            self.logFirstLsn = logFirstLsn
            self.failure = failure
        }
    }

    public var role = "storage-node"
    public var version: String
    public var node: NodeAddress
    public var epoch: UInt64
    public var uptimeSeconds: Double
    public var durability: String
    public var shards: [Shard]
    /// How far the machine's clock is ahead of the time that the node follows; nil while it follows that clock.
    public var clockAheadMilliseconds: UInt64?

    public init(
        version: String, node: NodeAddress, epoch: UInt64, uptimeSeconds: Double, durability: String, shards: [Shard]
    ) {
        self.version = version
        self.node = node
        self.epoch = epoch
        self.uptimeSeconds = uptimeSeconds
        self.durability = durability
        self.shards = shards
    }
}

/// `GET /status` of a router.
public struct RouterStatus: Codable, Sendable, Hashable {
    public struct Node: Codable, Sendable, Hashable {
        public var address: NodeAddress
        public var healthy: Bool
        /// The epoch of its last answer.
        public var epoch: UInt64?
        public var lastAnswerSecondsAgo: Double?
        public var lastError: String?

        public init(
            address: NodeAddress, healthy: Bool, epoch: UInt64?, lastAnswerSecondsAgo: Double?, lastError: String?
        ) {
            self.address = address
            self.healthy = healthy
            self.epoch = epoch
            self.lastAnswerSecondsAgo = lastAnswerSecondsAgo
            self.lastError = lastError
        }
    }

    public var role = "router"
    public var version: String
    public var mode: String
    public var epoch: UInt64
    public var uptimeSeconds: Double
    public var nodes: [Node]

    public init(version: String, mode: String, epoch: UInt64, uptimeSeconds: Double, nodes: [Node]) {
        self.version = version
        self.mode = mode
        self.epoch = epoch
        self.uptimeSeconds = uptimeSeconds
        self.nodes = nodes
    }
}

/// `GET /status` of a replicator.
public struct ReplicatorStatus: Codable, Sendable, Hashable {
    /// Where the replicator stands with one follower.
    public enum State: String, Codable, Sendable {
        /// Asking for its position.
        case probe
        /// Sending it batches.
        case replicate
        /// It cannot be fed from the log and waits for a snapshot.
        case needsSnapshot = "needs-snapshot"
        /// It is being rebuilt from a snapshot.
        case snapshot
    }

    public struct Follower: Codable, Sendable, Hashable {
        public var address: NodeAddress
        public var state: State
        public var term: UInt64
        public var lsn: UInt64
        /// Batches the leader has committed and this follower has not applied, as last seen.
        public var lagBatches: UInt64
        public var bytesInFlight: Int
        public var lastError: String?
        /// While it is being rebuilt.
        public var snapshot: SnapshotProgress?

        public init(
            address: NodeAddress, state: State, term: UInt64, lsn: UInt64, lagBatches: UInt64, bytesInFlight: Int,
            lastError: String?
        ) {
            self.address = address
            self.state = state
            self.term = term
            self.lsn = lsn
            self.lagBatches = lagBatches
            self.bytesInFlight = bytesInFlight
            self.lastError = lastError
        }
    }

    public struct Shard: Codable, Sendable, Hashable {
        public var name: String
        public var leader: NodeAddress
        /// The last lsn the leader reported.
        public var leaderLsn: UInt64
        /// Why the leader cannot be read; nil while it can.
        public var leaderError: String?
        public var followers: [Follower]

        public init(
            name: String, leader: NodeAddress, leaderLsn: UInt64, leaderError: String?, followers: [Follower]
        ) {
            self.name = name
            self.leader = leader
            self.leaderLsn = leaderLsn
            self.leaderError = leaderError
            self.followers = followers
        }
    }

    public var role = "replicator"
    public var version: String
    public var epoch: UInt64
    public var uptimeSeconds: Double
    public var shards: [Shard]

    public init(version: String, epoch: UInt64, uptimeSeconds: Double, shards: [Shard]) {
        self.version = version
        self.epoch = epoch
        self.uptimeSeconds = uptimeSeconds
        self.shards = shards
    }
}

/// JSON of the documents above: `snake_case` members in alphabetical order.
public enum DocumentCoding {
    public static func encode(_ document: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(document))
    }

    /// Throws `KVError(.invalidData)` where the bytes are not such a document.
    public static func decode<Document: Decodable>(
        _ type: Document.Type, from bytes: some Sequence<UInt8>
    ) throws -> Document {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        do {
            return try decoder.decode(type, from: Data(bytes))
        } catch {
            throw KVError(.invalidData, "not a \(type) document", cause: error)
        }
    }
}
