public import Core
package import LSM

/// Changes of role while the replica is open.
///
/// All of these run on the writer's thread between two batches: what was begun before is done, what comes after
/// finds the change in force.
extension ShardReplica {
    /// The highest term this replica has seen, promised or led in; across restarts. Lock-free.
    public var newestTerm: UInt64 { published.newestTerm }

    /// Leads or follows from the next batch on. Persist the topology that says so first.
    ///
    /// A new leader writes the barrier batch of its term; asked for the term it leads, it does nothing. A leader that
    /// becomes a follower fails everything queued and later with `.notLeader`, and takes batches. A follower that is
    /// told a higher term remembers it; told a lower one it does nothing.
    /// - Parameter hold: with it, only as long as that hold is in force. Then nothing was written after
    ///   ``WriteHold/position``, and ``role`` changes to follower when the hold ends.
    ///
    /// Throws `KVError`: `.staleTerm` where log, promise or role know a newer term, or this term with another leader;
    /// `.timedOut` where the hold is over; `.unavailable` once closed; the failure that stopped the writer.
    public func become(_ role: ShardRole, during hold: WriteHold? = nil) async throws(KVError) {
        try await writer.become(role, during: hold)
        freshness.knows(of: newestTerm, position: position)
    }

    /// Holds everything that is not begun yet back: writes and pushed batches stay in the bounded inbox, and more are
    /// taken into it. It ends with ``release(_:)`` or when the time is over, at most
    /// ``ShardConfiguration/holdMillisecondsMax``.
    ///
    /// Throws `KVError`: `.unavailable` where another hold is in force (one ends in seconds) or once closed, or the
    /// failure that stopped the writer.
    public func hold(milliseconds: UInt64) async throws(KVError) -> WriteHold {
        try await writer.hold(milliseconds: milliseconds)
    }

    /// Lets go what that hold holds; nothing where it is over already.
    public func release(_ hold: WriteHold) async { await writer.release(hold) }

    /// Promises, durably on return, to take nothing from terms below `term` and no other candidate in it. A leader
    /// follows from then on. The same promise again is no change.
    ///
    /// Throws `KVError`: `.staleTerm` where this replica knows a newer term, or this one with another leader or
    /// candidate; `.storageFailed` or `.storageFull` where the promise cannot be kept; `.unavailable` once closed.
    public func fence(term: UInt64, candidate: NodeAddress) async throws(KVError) {
        try await writer.fence(term: term, candidate: candidate)
        freshness.knows(of: newestTerm, position: position)
    }

    /// ``newestTerm`` and to whom it is promised; nil where to nobody, or to a leader whose address this replica never
    /// learned. Blocks: reads a file.
    ///
    /// Throws `KVError`: `.corrupted`, `.storageFailed`.
    public func newestPromise() throws(KVError) -> (term: UInt64, candidate: NodeAddress?) {
        let term = newestTerm
        let promise = try PromiseFile(directory: configuration.directory).load()
        return (term, promise.flatMap { $0.term == term ? $0.candidate : nil })
    }

    /// Every term in the log and where it ends, of one moment. Blocks.
    ///
    /// Throws `KVError`: `.corrupted`, `.storageFailed`, `.unavailable` once closed.
    public func history() throws(KVError) -> TermHistory {
        try damaged.noting(.read) { () throws(KVError) in try TermHistory(of: database, shard: configuration.name) }
    }
}

extension TermHistory {
    /// Reads the history in a database that holds a shard: of one moment, since it is one iteration. Blocks.
    ///
    /// Throws `KVError(.corrupted)` for damaged records, `.storageFailed`.
    package init(of database: Database, shard: String) throws(KVError) {
        var history = TermHistory(starts: [], end: .start)
        var isDamaged = false
        try database.forEachRecord(from: SystemRecords.positionKey) { key, value in
            if SystemRecords.isPositionKey(key) {
                guard let position = SystemRecords.decodePosition(value) else {
                    isDamaged = true
                    return false
                }
                history.end = position
            } else if let term = SystemRecords.termOfTermStart(key) {
                guard let start = SystemRecords.decodeTermStart(value) else {
                    isDamaged = true
                    return false
                }
                history.starts.append(
                    TermStart(
                        term: term, firstLsn: start.firstLsn, previousVersion: start.previousVersion ?? .zero))
            }
            return key.first == KeySpace.reserved
        }
        guard !isDamaged, history.starts.last?.term ?? 0 == history.end.term else {
            throw KVError(.corrupted, "the list of terms of \(shard) is damaged")
        }
        self = history
    }
}
