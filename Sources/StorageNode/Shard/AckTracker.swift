public import Core

/// On how many replicas a write is, of how many; the leader counts.
public struct AckProgress: Sendable, Hashable {
    public var replicas: Int
    public var of: Int

    public init(replicas: Int, of: Int) {
        self.replicas = replicas
        self.of = of
    }
}

/// How a wait for acknowledgements ended.
public enum AckOutcome: Sendable, Hashable {
    case reached
    /// It cannot be reached any more: this node no longer leads, or the follower waited for was removed.
    case ended(AckProgress)
}

/// Who has to have a batch.
public enum AckTarget: Sendable, Hashable {
    /// As many replicas of the shard as that is now, also where replicas come and go meanwhile.
    case level(AckLevel)
    case follower(NodeAddress)
}

/// What a leader knows of its followers' positions, and who waits for them to rise.
///
/// Pure: events in, ended waits out. Invariants: no wait is kept that is reached; a wait ends once; what is held
/// never exceeds ``waitersMax``; only positions of the leader's own term count, because an lsn of an older one may
/// belong to a batch that the leader does not have.
struct AckTracker<Payload> {
    struct Ended {
        var payload: Payload
        var outcome: AckOutcome
    }

    enum Admission: Equatable {
        case ended(AckOutcome)
        case waiting(id: UInt64)
    }

    struct Follower: Equatable {
        var address: NodeAddress
        /// The highest lsn reported in this term: what it had once it has acknowledged. Reports of two replicators
        /// may overtake each other.
        var acked: UInt64?
        /// What the newest report says, and when it came.
        var reported: (lsn: UInt64, milliseconds: UInt64)?

        static func == (left: Follower, right: Follower) -> Bool {
            left.address == right.address && left.acked == right.acked
                && left.reported?.lsn == right.reported?.lsn
                && left.reported?.milliseconds == right.reported?.milliseconds
        }
    }

    private struct Waiter {
        var id: UInt64
        var lsn: UInt64
        var writes: Int
        var payload: Payload
    }

    /// The waits for one target, by rising lsn.
    private struct Queue {
        var target: AckTarget
        var waiters: [Waiter] = []
    }

    /// Writes that may wait at once, and those that are admitted to wait.
    let waitersMax: Int
    /// The term this node leads in; nil where it follows.
    private(set) var term: UInt64?
    private(set) var followers: [Follower] = []
    /// Writes that wait or are admitted to.
    private(set) var held = 0
    /// One for each target waited for: as many as there are levels and followers at the most.
    private var queues: [Queue] = []
    private var lastId: UInt64 = 0

    init(waitersMax: Int) { self.waitersMax = waitersMax }

    /// Waits that have not ended.
    var waiting: Int { queues.reduce(0) { $0 + $1.waiters.count } }

    // MARK: Waiting

    /// Makes room for writes that are going to wait; false where too many do.
    mutating func reserve(_ writes: Int) -> Bool {
        guard held + writes <= waitersMax else { return false }
        held += writes
        return true
    }

    /// Gives room back that no wait was added for.
    mutating func release(_ writes: Int) {
        held -= writes
        assert(held >= 0)
    }

    /// Waits until `target` has the batch at `lsn`.
    /// - Parameter writes: how many of those that room was made for wait in this; given back when the wait ends.
    mutating func add(_ target: AckTarget, lsn: UInt64, writes: Int, _ payload: Payload) -> Admission {
        if let outcome = outcome(of: target, lsn: lsn) {
            release(writes)
            return .ended(outcome)
        }
        lastId += 1
        let waiter = Waiter(id: lastId, lsn: lsn, writes: writes, payload: payload)
        guard let index = queues.firstIndex(where: { $0.target == target }) else {
            queues.append(Queue(target: target, waiters: [waiter]))
            return .waiting(id: lastId)
        }
        // Batches are committed in order, so the place is nearly always the end.
        var place = queues[index].waiters.count
        while place > 0, queues[index].waiters[place - 1].lsn > lsn { place -= 1 }
        queues[index].waiters.insert(waiter, at: place)
        return .waiting(id: lastId)
    }

    /// Gives a wait up, because its time is over.
    /// - Returns: how far its batch has come; nil where the wait has ended already.
    mutating func cancel(id: UInt64) -> AckProgress? {
        for index in queues.indices {
            guard let place = queues[index].waiters.firstIndex(where: { $0.id == id }) else { continue }
            let waiter = queues[index].waiters.remove(at: place)
            if queues[index].waiters.isEmpty { queues.remove(at: index) }
            release(waiter.writes)
            return progress(lsn: waiter.lsn)
        }
        return nil
    }

    /// On how many replicas the batch at `lsn` is.
    func progress(lsn: UInt64) -> AckProgress {
        let having = followers.count { $0.acked.map { $0 >= lsn } ?? false }
        return AckProgress(replicas: 1 + having, of: 1 + followers.count)
    }

    // MARK: Events

    /// This node leads in `term`, with these followers. Called again when they change.
    mutating func lead(term: UInt64, followers addresses: [NodeAddress]) -> [Ended] {
        let known = term == self.term ? followers : []
        self.term = term
        followers = addresses.map { address in
            known.first { $0.address == address } ?? Follower(address: address)
        }
        return settle()
    }

    /// This node no longer leads.
    mutating func stopLeading() -> [Ended] {
        guard term != nil else { return [] }
        term = nil
        let ended = settle()
        followers = []
        return ended
    }

    /// A follower stands at `position`.
    mutating func acked(_ address: NodeAddress, _ position: LogPosition, atMilliseconds now: UInt64) -> [Ended] {
        guard position.term == term, let index = followers.firstIndex(where: { $0.address == address }) else {
            return []
        }
        let before = followers[index]
        followers[index].reported = (lsn: position.lsn, milliseconds: now)
        followers[index].acked = max(before.acked ?? 0, position.lsn)
        let isHigher = before.acked.map { position.lsn > $0 } ?? true
        return isHigher || before.reported?.lsn != position.lsn ? settle() : []
    }

    // MARK: Deciding

    private func outcome(of target: AckTarget, lsn: UInt64) -> AckOutcome? {
        guard term != nil else { return .ended(progress(lsn: lsn)) }
        switch reach(of: target) {
        case .lsn(let reached): return lsn <= reached ? .reached : nil
        case .everything: return .reached
        case .nothingYet: return nil
        case .never: return .ended(progress(lsn: lsn))
        }
    }

    private enum Reach {
        case lsn(UInt64)
        case everything
        case nothingYet
        case never
    }

    /// Up to where the log has reached `target`.
    private func reach(of target: AckTarget) -> Reach {
        switch target {
        case .follower(let address):
            guard let follower = followers.first(where: { $0.address == address }) else { return .never }
            return follower.reported.map { .lsn($0.lsn) } ?? .nothingYet
        case .level(let level):
            // Fewer replicas than asked for: more may come before the time is over.
            guard let required = level.required(of: followers.count + 1) else { return .nothingYet }
            guard required > 1 else { return .everything }
            let acked = followers.compactMap(\.acked).sorted(by: >)
            return required - 1 <= acked.count ? .lsn(acked[required - 2]) : .nothingYet
        }
    }

    private mutating func settle() -> [Ended] {
        var ended: [Ended] = []
        for index in queues.indices {
            let target = queues[index].target
            var count = 0
            // In the order of their batches: the first that is not reached is followed by none that is.
            for waiter in queues[index].waiters {
                guard let outcome = outcome(of: target, lsn: waiter.lsn) else { break }
                release(waiter.writes)
                ended.append(Ended(payload: waiter.payload, outcome: outcome))
                count += 1
            }
            queues[index].waiters.removeFirst(count)
        }
        queues.removeAll { $0.waiters.isEmpty }
        return ended
    }
}
