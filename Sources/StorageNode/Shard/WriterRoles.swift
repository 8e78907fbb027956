public import Core
import Logging

/// Writes that are being held back.
public struct WriteHold: Sendable, Hashable {
    /// Where the log ends as long as they are.
    public let position: LogPosition
    let id: UInt64
}

/// A hold in force.
struct ActiveHold {
    var id: UInt64
    /// On the monotonic clock; nothing holds longer.
    var untilMilliseconds: UInt64
}

/// Changes of role, promises and holds. Run between two batches, like everything the writer does.
extension WriterCore {
    // MARK: Roles

    /// At the start: begins the term that this replica leads, or goes on with the one the log is in.
    mutating func startLeading() throws(KVError) {
        guard case .leader(let term) = role, position.term < term else { return }
        try writeBarrier(term: term)
    }

    /// - Parameter during: a hold that must still be in force.
    mutating func become(_ wanted: ShardRole, during held: WriteHold?) throws(KVError) {
        endHoldIfDue()
        if let held, hold?.id != held.id {
            throw KVError(.timedOut, "the hold on \(configuration.name) is over and its writes go on: try again")
        }
        let before = role
        switch wanted {
        case .leader(let term):
            if let failure { throw failure }
            guard try terms.mustBegin(term, logTerm: position.term) else { return }
            try writeBarrier(term: term)
            terms.lead(term)
        case .follower(let term):
            try terms.follow(term)
        }
        publishRole(before: before)
    }

    /// Promises a term to a candidate.
    mutating func fence(term: UInt64, candidate: NodeAddress) throws(KVError) {
        if let promise = try terms.promise(of: term, to: candidate) { try keep(promise) }
    }

    /// Makes a promise durable, then acts by it.
    mutating func keep(_ promise: TermPromise) throws(KVError) {
        try promises.save(promise)
        let before = role
        terms.keep(promise)
        publishRole(before: before)
    }

    /// Event loops go on seeing a leader as long as its writes are held: what they hand in meanwhile waits for the
    /// end of the hold and is answered then by the role that is in force.
    private func publishRole(before: ShardRole) {
        published.newestTerm = newestTerm
        if role.isLeader { joining?.end() }
        if hold == nil || role.isLeader || !published.role.isLeader { showRole() }
        guard before.isLeader != role.isLeader else { return }
        logger.notice(
            role.isLeader ? "leads the shard" : "leads the shard no longer",
            metadata: ["shard": "\(configuration.name)", "term": "\(newestTerm)", "lsn": "\(position.lsn)"])
    }

    /// Who waits for the log of a leader is told at once that this is none any more, to read on at the next one.
    private func showRole() {
        let led = published.role.isLeader
        published.role = role
        guard led, !role.isLeader else { return }
        log.endWaits(KVError(.notLeader, "this node does not lead \(configuration.name) any more"))
    }

    // MARK: Holding

    mutating func beginHold(milliseconds: UInt64) throws(KVError) -> WriteHold {
        endHoldIfDue()
        // With damage found there is nothing to mend and start again: others lead, and have what was acknowledged.
        if let failure, damage?.error == nil { throw failure }
        guard hold == nil else {
            throw KVError(.unavailable, "the writes of \(configuration.name) are held already; try again in a moment")
        }
        holdsBegun += 1
        let bounded = min(milliseconds, configuration.holdMillisecondsMax)
        hold = ActiveHold(id: holdsBegun, untilMilliseconds: clock.monotonicMilliseconds() + bounded)
        return WriteHold(position: position, id: holdsBegun)
    }

    /// Ends a hold, unless it is over already.
    mutating func end(_ held: WriteHold) {
        if hold?.id == held.id { endHold() }
    }

    mutating func endHold() {
        hold = nil
        showRole()
    }

    // MARK: Stops

    /// Calls back on this thread when the replica stands exactly at `lsn`, or when that takes too long.
    mutating func stop(at lsn: UInt64?, _ callback: @escaping PositionStops.Callback) {
        let until = clock.monotonicMilliseconds() + configuration.digestWaitMilliseconds
        stops.add(lsn, at: position, untilMilliseconds: until, callback)
    }

    mutating func endHoldIfDue() {
        if let hold, clock.monotonicMilliseconds() >= hold.untilMilliseconds { endHold() }
    }
}
