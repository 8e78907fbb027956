public import Core

/// What a replica is doing.
public enum ReplicaState: String, Codable, Sendable, Hashable {
    case leading
    case following
    /// New, and not yet caught up: it serves no reads.
    case joining
    /// Being replaced by a snapshot that is installed at this moment.
    case installing
    /// A failed write has stopped it.
    case failed
}

/// How far a snapshot has come.
public struct SnapshotProgress: Codable, Sendable, Hashable {
    public var bytesDone: UInt64
    public var bytesTotal: UInt64
    /// Over the last seconds.
    public var bytesPerSecond: UInt64
    /// At that rate; nil where it does not move.
    public var secondsLeft: Double?

    public init(bytesDone: UInt64, bytesTotal: UInt64, bytesPerSecond: UInt64, secondsLeft: Double?) {
        self.bytesDone = bytesDone
        self.bytesTotal = bytesTotal
        self.bytesPerSecond = bytesPerSecond
        self.secondsLeft = secondsLeft
    }
}

/// What a leader knows of one follower.
public struct FollowerAck: Codable, Sendable, Hashable {
    public var address: NodeAddress
    public var lsn: UInt64
    /// Since it was reported last.
    public var millisecondsAgo: UInt64

    public init(address: NodeAddress, lsn: UInt64, millisecondsAgo: UInt64) {
        self.address = address
        self.lsn = lsn
        self.millisecondsAgo = millisecondsAgo
    }
}

/// A file of writes that a replica had and its shard's history has not.
public struct DivergedWrites: Codable, Sendable, Hashable {
    /// The file's path.
    public var file: String
    public var shard: String
    public var firstLsn: UInt64
    public var lastLsn: UInt64
    /// Lines in the file: puts and removals.
    public var writes: Int
    /// Whether the log still held all of them; otherwise the file holds the newest value of every key written.
    public var isComplete: Bool

    public init(file: String, shard: String, firstLsn: UInt64, lastLsn: UInt64, writes: Int, isComplete: Bool) {
        self.file = file
        self.shard = shard
        self.firstLsn = firstLsn
        self.lastLsn = lastLsn
        self.writes = writes
        self.isComplete = isComplete
    }
}

/// One term of a ``HistoryDocument``.
public struct TermDocument: Codable, Sendable, Hashable {
    public var term: UInt64
    public var firstLsn: UInt64
    /// 16 hex digits.
    public var previousVersion: String

    public init(_ start: TermStart) {
        term = start.term
        firstLsn = start.firstLsn
        previousVersion = start.previousVersion.hexDigits
    }

    /// Throws `KVError(.invalidData)` where `previousVersion` is not 16 hex digits, or `firstLsn` is 0, which no batch has.
    public var start: TermStart {
        get throws {
            guard let version = Version(hexDigits: previousVersion) else {
                throw KVError(.invalidData, "\"\(previousVersion)\" is not a version: 16 hex digits")
            }
            guard firstLsn > 0 else { throw KVError(.invalidData, "term \(term) begins at lsn 0, which no batch has") }
            return TermStart(term: term, firstLsn: firstLsn, previousVersion: version)
        }
    }
}

/// `GET /replication/{shard}/history`: all that is needed to compare one replica with another.
public struct HistoryDocument: Codable, Sendable, Hashable {
    public var position: PositionDocument
    /// By rising term.
    public var terms: [TermDocument]
    /// The highest term this replica has seen, promised or led in.
    public var newestTerm: UInt64
    /// To whom it has promised that term; nil where to nobody, or to a leader whose address it never learned.
    public var promisedTo: NodeAddress?
    /// What it last heard from its leader; nil where it leads or never heard.
    public var leaderLastSeen: LeaderSighting?

    public struct LeaderSighting: Codable, Sendable, Hashable {
        public var lsn: UInt64
        public var millisecondsAgo: UInt64

        public init(lsn: UInt64, millisecondsAgo: UInt64) {
            self.lsn = lsn
            self.millisecondsAgo = millisecondsAgo
        }
    }

    public init(
        position: PositionDocument, history: TermHistory, newestTerm: UInt64, promisedTo: NodeAddress? = nil,
        leaderLastSeen: LeaderSighting?
    ) {
        self.position = position
        self.terms = history.starts.map(TermDocument.init)
        self.newestTerm = newestTerm
        self.promisedTo = promisedTo
        self.leaderLastSeen = leaderLastSeen
    }

    /// Throws `KVError(.invalidData)` where a version is not 16 hex digits, or a term begins at lsn 0.
    public var history: TermHistory {
        get throws { TermHistory(starts: try terms.map { try $0.start }, end: try position.position) }
    }
}

/// A promise asked of a replica: to take nothing from terms below `term`, and no other candidate in it.
public struct FenceRequest: Codable, Sendable, Hashable {
    public var term: UInt64
    public var candidate: NodeAddress

    public init(term: UInt64, candidate: NodeAddress) {
        self.term = term
        self.candidate = candidate
    }
}

/// A checkpoint of a leader, file by file.
public struct SnapshotManifest: Codable, Sendable, Hashable {
    public struct File: Codable, Sendable, Hashable {
        /// A plain name: the checkpoint has no folders.
        public var name: String
        public var bytes: UInt64
        /// CRC-32C, eight hex digits.
        public var crc32c: String

        public init(name: String, bytes: UInt64, crc32c: String) {
            self.name = name
            self.bytes = bytes
            self.crc32c = crc32c
        }
    }

    public var shard: String
    public var id: String
    /// The leader's term; the replica that takes it promises it.
    public var leaderTerm: UInt64
    /// What the checkpoint holds.
    public var position: PositionDocument
    public var terms: [TermDocument]
    public var files: [File]

    public init(
        shard: String, id: String, leaderTerm: UInt64, position: PositionDocument, terms: [TermDocument], files: [File]
    ) {
        self.shard = shard
        self.id = id
        self.leaderTerm = leaderTerm
        self.position = position
        self.terms = terms
        self.files = files
    }

    /// Of all files; as much as can be where they claim more.
    public var bytesTotal: UInt64 {
        files.reduce(0) { total, file in
            let (sum, overflow) = total.addingReportingOverflow(file.bytes)
            return overflow ? .max : sum
        }
    }

    /// Throws `KVError(.invalidData)` where a version is not 16 hex digits.
    public var history: TermHistory {
        get throws { TermHistory(starts: try terms.map { try $0.start }, end: try position.position) }
    }
}

/// What a follower has of a snapshot.
public struct SnapshotReceipt: Codable, Sendable, Hashable {
    public struct File: Codable, Sendable, Hashable {
        public var name: String
        /// Bytes from the file's start that are there.
        public var received: UInt64

        public init(name: String, received: UInt64) {
            self.name = name
            self.received = received
        }
    }

    public var id: String
    /// In the order of the manifest; after a part of a file, only that file.
    public var files: [File]

    public init(id: String, files: [File]) {
        self.id = id
        self.files = files
    }
}

/// Asks a shard's leader to take a follower in.
public struct MembershipRequest: Codable, Sendable, Hashable {
    public var node: NodeAddress

    public init(node: NodeAddress) { self.node = node }
}

/// Asks a shard's leader to hand the leadership over.
public struct HandoverRequest: Codable, Sendable, Hashable {
    public var to: NodeAddress

    public init(to: NodeAddress) { self.to = to }
}

/// Asks a follower to lead, because the leader is gone.
public struct PromoteRequest: Codable, Sendable, Hashable {
    /// The epoch that whoever asks has seen: with another one the follower refuses.
    public var epoch: UInt64
    /// Also where a replica that may have more cannot be reached.
    public var force: Bool

    public init(epoch: UInt64, force: Bool) {
        self.epoch = epoch
        self.force = force
    }
}

/// What a change of leader came to.
public struct FailoverReport: Codable, Sendable, Hashable {
    public var shard: String
    public var epoch: UInt64
    public var term: UInt64
    public var leader: NodeAddress
    public var previousLeader: NodeAddress
    /// The term that the previous leader led, or was to lead; nil where that is not said.
    public var previousTerm: UInt64?
    /// Where the new leader's history goes on from.
    public var lsn: UInt64
    /// Everything that the previous leader acknowledged up to this is kept, 16 hex digits. Zero where the new leader has
    /// no batch of ``previousTerm``: anything that was acknowledged in that may be lost.
    public var version: String
    /// True after a planned switchover: nothing is lost.
    public var isComplete: Bool
    /// Of a forced failover: the highest lsn of the old leader that anybody heard of.
    public var leaderLastSeen: HistoryDocument.LeaderSighting?
    /// Replicas that could not be asked, the old leader aside.
    public var unreachable: [NodeAddress]
    /// Of a planned switchover: how long writes were held back.
    public var writesHeldMilliseconds: Double?

    public init(
        shard: String, epoch: UInt64, term: UInt64, leader: NodeAddress, previousLeader: NodeAddress,
        previousTerm: UInt64? = nil, lsn: UInt64, version: String, isComplete: Bool,
        leaderLastSeen: HistoryDocument.LeaderSighting?,
        unreachable: [NodeAddress], writesHeldMilliseconds: Double?
    ) {
        self.shard = shard
        self.epoch = epoch
        self.term = term
        self.leader = leader
        self.previousLeader = previousLeader
        self.previousTerm = previousTerm
        self.lsn = lsn
        self.version = version
        self.isComplete = isComplete
        self.leaderLastSeen = leaderLastSeen
        self.unreachable = unreachable
        self.writesHeldMilliseconds = writesHeldMilliseconds
    }
}

/// Asks a replica for checksums of what it holds at one position.
public struct DigestRequest: Codable, Sendable, Hashable {
    /// The replica waits shortly to stand exactly here; nil for wherever it stands.
    public var lsn: UInt64?
    /// First keys of the ranges after the first, percent-encoded, rising; nil lets the replica choose.
    public var boundaries: [String]?
    /// Values that expire at this moment or before are left out, milliseconds since the Unix epoch; nil lets the replica
    /// choose one in a few minutes.
    public var expiringAfter: UInt64?

    public init(lsn: UInt64?, boundaries: [String]?, expiringAfter: UInt64? = nil) {
        self.lsn = lsn
        self.boundaries = boundaries
        self.expiringAfter = expiringAfter
    }
}

/// Checksums of a replica's content at one position, range by range of keys.
public struct DigestDocument: Codable, Sendable, Hashable {
    public struct Range: Codable, Sendable, Hashable {
        /// The first key, percent-encoded; empty for the start of the key space.
        public var start: String
        public var keys: UInt64
        /// CRC-32C over keys, versions, values and expiries in key order; eight hex digits.
        public var crc32c: String

        public init(start: String, keys: UInt64, crc32c: String) {
            self.start = start
            self.keys = keys
            self.crc32c = crc32c
        }
    }

    public var position: PositionDocument
    /// As in the request; nil where the replica knows no values that expire.
    public var expiringAfter: UInt64?
    public var ranges: [Range]

    public init(position: PositionDocument, expiringAfter: UInt64? = nil, ranges: [Range]) {
        self.position = position
        self.expiringAfter = expiringAfter
        self.ranges = ranges
    }
}

/// How far a compaction is that an operator asked a replica for.
public struct CompactionDocument: Codable, Sendable, Hashable {
    public var shard: String
    /// Counted from 1 since the replica was opened; 0 where none was asked for.
    public var number: UInt64
    public var isRunning: Bool
    /// Of the tables; nil before it is known.
    public var tableBytesBefore: UInt64?
    /// nil while it runs, and where it failed.
    public var tableBytesAfter: UInt64?
    /// It has run for that long.
    public var milliseconds: UInt64
    /// Why it ended early; nil where it did not.
    public var failure: String?

    public init(shard: String, number: UInt64 = 0, isRunning: Bool = false) {
        self.shard = shard
        self.number = number
        self.isRunning = isRunning
        milliseconds = 0
    }
}
