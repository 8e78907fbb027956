public import Core
import LSM
import Synchronization
public import Wire

/// Checksums of what a replica holds at one position.
public struct ReplicaDigest: Sendable, Hashable {
    public var position: LogPosition
    /// Values that expire at this moment or before are left out: milliseconds since the Unix epoch.
    public var expiringAfter: UInt64
    /// In key order, from the start of the key space to its end.
    public var ranges: [DigestDocument.Range]
}

extension ShardReplica {
    /// Checksums of every record at one position, range by range of keys. Reads the whole shard, on a thread of its
    /// own, from a snapshot that the writer takes between two batches: nothing waits for it.
    /// - Parameters:
    ///   - boundaries: first keys of the ranges after the first, rising; nil lets the replica choose up to
    ///     ``RangeDigests/chosenRangesMax`` ranges of about as many keys each.
    ///   - expiringAfter: leaves out what expires at this moment or before, which one replica may have dropped and another
    ///     not yet; nil for ``digestLifeMilliseconds`` from now.
    ///   - lsn: where the replica has to stand exactly; it waits for that up to
    ///     ``ShardConfiguration/digestWaitMilliseconds``. Nil for wherever it stands.
    ///
    /// Throws `KVError`: `.invalidArgument` for boundaries that do not rise or are too many, `.logMismatch` where the
    /// replica has gone past `lsn`, `.timedOut` where it does not get there, `.overloaded` where a digest is being
    /// computed already, `.unavailable` once closed or when that happens meanwhile, `.corrupted`, `.storageFailed`.
    public func digest(
        boundaries: [[UInt8]]? = nil, expiringAfter: UInt64? = nil, at lsn: UInt64? = nil
    ) async throws(KVError) -> ReplicaDigest {
        if let boundaries { try RangeDigests.check(boundaries) }
        guard !isComputingDigest.exchange(true, ordering: .sequentiallyConsistent) else {
            throw KVError(
                .overloaded, "checksums of \(configuration.name) are being computed; try again when they are done")
        }
        defer { isComputingDigest.store(false, ordering: .sequentiallyConsistent) }
        let moment = expiringAfter ?? expiries.moment(after: ShardReplica.digestLifeMilliseconds)
        let (position, snapshot) = try await writer.snapshot(of: database, at: lsn)
        let database = self.database
        let result: Result<[DigestDocument.Range], KVError> = await withCheckedContinuation { continuation in
            DedicatedThread.start {
                let ranges = Result { () throws(KVError) in
                    try ShardReplica.digests(of: snapshot, in: database, boundaries: boundaries, expiringAfter: moment)
                }
                snapshot.release()
                continuation.resume(returning: ranges)
            }
        }
        let ranges = try damaged.noting(.digest) { () throws(KVError) in try result.get() }
        return ReplicaDigest(position: position, expiringAfter: moment, ranges: ranges)
    }

    /// What has less than that to live is left out of checksums: enough to compare replicas one after the other, also
    /// where their clocks differ.
    public static let digestLifeMilliseconds: UInt64 = 300_000

    /// Blocks. Ends early where the database is to be closed.
    private static func digests(
        of snapshot: DatabaseSnapshot, in database: Database, boundaries: [[UInt8]]?, expiringAfter: UInt64
    ) throws(KVError) -> [DigestDocument.Range] {
        var digests = RangeDigests(boundaries: boundaries)
        var failure: KVError?
        try snapshot.forEachRecord(from: [KeySpace.user]) { key, record in
            guard key.first == KeySpace.user else { return false }
            guard !database.isClosing else {
                failure = KVError(.unavailable, "the database \(database.path) is closed")
                return false
            }
            guard let value = StoredValue(decoding: record) else {
                failure = KVError(.corrupted, "a record in \(database.path) is no stored value of this version")
                return false
            }
            if !value.isExpired(at: expiringAfter) {
                digests.add(key: UnsafeRawBufferPointer(rebasing: key[1...]), value)
            }
            return true
        }
        if let failure { throw failure }
        return digests.finish()
    }
}
