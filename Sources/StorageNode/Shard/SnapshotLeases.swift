import Core

/// Who uses which checkpoint of a leader, and when one goes: with its last user, or when nobody asked for it for a
/// while. Pure; the caller makes and removes the checkpoints.
struct SnapshotLeases: Sendable {
    struct Lease: Sendable, Hashable {
        let id: String
        /// What the checkpoint holds.
        let position: LogPosition
        fileprivate(set) var users: Int
        fileprivate(set) var lastUsedMilliseconds: UInt64
        /// Nobody else may have it: it stays for those who read it already.
        fileprivate(set) var isRetired = false
    }

    enum Opening: Sendable, Hashable {
        /// This one serves another user as well; it is counted.
        case share(id: String)
        /// None fits: make one, then call ``add(id:position:now:)`` or ``giveUp()``.
        case make
    }

    static let idleMillisecondsMax: UInt64 = 60_000
    /// One that is behind the log, still being read, and one that is new.
    static let snapshotsMax = 2

    private(set) var leases: [Lease] = []
    private var isMaking = false

    /// Shares nothing any more that was made before `term`, the one that is led now: a follower that has promised it
    /// refuses such a snapshot however often it is given one.
    mutating func retire(before term: UInt64) {
        for index in leases.indices where leases[index].position.term < term { leases[index].isRetired = true }
    }

    /// - Parameters:
    ///   - logFirstLsn: the oldest lsn in the log; nil where there is no log.
    ///   - atLeast: where the follower stands that is to be rebuilt: it takes nothing that ends before.
    ///
    /// Throws `KVError(.overloaded)` while another is being made, and where there are too many.
    mutating func open(
        logFirstLsn: UInt64?, atLeast: UInt64 = 0, committed: LogPosition, now: UInt64
    ) throws(KVError) -> Opening {
        // One that the log does not reach back to would lead to the next snapshot and never to the log. A reader has to
        // find its own batch there, as the proof that it has the same history; the newest one is known without a log.
        let first = logFirstLsn ?? .max
        if let index = leases.lastIndex(where: {
            !$0.isRetired && $0.position.lsn >= min(atLeast, committed.lsn)
                && (first <= max($0.position.lsn, 1) || $0.position == committed)
        }) {
            leases[index].users += 1
            leases[index].lastUsedMilliseconds = now
            return .share(id: leases[index].id)
        }
        guard !isMaking else {
            throw KVError(.overloaded, "a snapshot is being made; ask again in a moment")
        }
        guard leases.count < SnapshotLeases.snapshotsMax else {
            throw KVError(
                .overloaded,
                "\(leases.count) snapshots are in use that are too old for another reader; ask again in a minute")
        }
        isMaking = true
        return .make
    }

    mutating func add(id: String, position: LogPosition, now: UInt64) {
        isMaking = false
        leases.append(Lease(id: id, position: position, users: 1, lastUsedMilliseconds: now))
    }

    /// It could not be made.
    mutating func giveUp() { isMaking = false }

    /// Notes that it is read; false where there is no such checkpoint.
    mutating func touch(id: String, now: UInt64) -> Bool {
        guard let index = leases.firstIndex(where: { $0.id == id }) else { return false }
        leases[index].lastUsedMilliseconds = now
        return true
    }

    /// One user less; true where that was the last, so that the checkpoint goes. Nil where there is no such one.
    mutating func release(id: String) -> Bool? {
        guard let index = leases.firstIndex(where: { $0.id == id }) else { return nil }
        leases[index].users -= 1
        guard leases[index].users <= 0 else { return false }
        leases.remove(at: index)
        return true
    }

    /// Those nobody used for ``idleMillisecondsMax``: they go, whoever still counts on them.
    mutating func expire(now: UInt64) -> [String] {
        let idle = leases.filter { now >= $0.lastUsedMilliseconds + SnapshotLeases.idleMillisecondsMax }.map(\.id)
        leases.removeAll { idle.contains($0.id) }
        return idle
    }

    /// All of them, to be removed.
    mutating func removeAll() -> [String] {
        defer { leases = [] }
        return leases.map(\.id)
    }
}
