public import Core
import LSM
import Synchronization
public import Wire

/// Checksums of what a replica holds at one position.
public struct ReplicaDigest: Sendable, Hashable {
    public var position: LogPosition
    /// In key order, from the start of the key space to its end.
    public var ranges: [DigestDocument.Range]
}

extension ShardReplica {
    /// Checksums of every record at one position, range by range of keys. Reads the whole shard, on a thread of its
    /// own, from a snapshot that the writer takes between two batches: nothing waits for it.
    /// - Parameters:
    ///   - boundaries: first keys of the ranges after the first, rising; nil lets the replica choose up to
    ///     ``RangeDigests/chosenRangesMax`` ranges of about as many keys each.
    ///   - lsn: where the replica has to stand exactly; it waits for that up to
    ///     ``ShardConfiguration/digestWaitMilliseconds``. Nil for wherever it stands.
    ///
    /// Throws `KVError`: `.invalidArgument` for boundaries that do not rise or are too many, `.logMismatch` where the
    /// replica has gone past `lsn`, `.timedOut` where it does not get there, `.overloaded` where a digest is being
    /// computed already, `.unavailable` once closed or when that happens meanwhile, `.corrupted`, `.storageFailed`.
    public func digest(
        boundaries: [[UInt8]]? = nil, at lsn: UInt64? = nil
    ) async throws(KVError) -> ReplicaDigest {
        if let boundaries { try RangeDigests.check(boundaries) }
        guard !isComputingDigest.exchange(true, ordering: .sequentiallyConsistent) else {
            throw KVError(
                .overloaded, "checksums of \(configuration.name) are being computed; try again when they are done")
        }
        defer { isComputingDigest.store(false, ordering: .sequentiallyConsistent) }
        let (position, snapshot) = try await writer.snapshot(of: database, at: lsn)
        let database = self.database
        let result: Result<[DigestDocument.Range], KVError> = await withCheckedContinuation { continuation in
            DedicatedThread.start {
                let ranges = Result { () throws(KVError) in
                    try ShardReplica.digests(of: snapshot, in: database, boundaries: boundaries)
                }
                snapshot.release()
                continuation.resume(returning: ranges)
            }
        }
        return ReplicaDigest(position: position, ranges: try result.get())
    }

    /// Blocks. Ends early where the database is to be closed.
    private static func digests(
        of snapshot: DatabaseSnapshot, in database: Database, boundaries: [[UInt8]]?
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
            digests.add(key: UnsafeRawBufferPointer(rebasing: key[1...]), value)
            return true
        }
        if let failure { throw failure }
        return digests.finish()
    }
}
