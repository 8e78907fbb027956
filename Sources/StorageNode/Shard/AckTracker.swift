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
        case waiting(Token)
    }

    struct Follower: Equatable {
        var address: NodeAddress
        /// The highest lsn reported in this term: what it had once it has acknowledged. Reports of two replicators
        /// may overtake each other.
        var acked: UInt64?
        /// What the newest report says, and when it came.
        var reported: (lsn: UInt64, milliseconds: UInt64)?
        /// It is about to be taken out of the shard: what it has counts no more.
        var isLeaving = false

        static func == (left: Follower, right: Follower) -> Bool {
            left.address == right.address && left.acked == right.acked
                && left.reported?.lsn == right.reported?.lsn
                && left.reported?.milliseconds == right.reported?.milliseconds && left.isLeaving == right.isLeaving
        }
    }

    /// Names a wait.
    struct Token: Hashable {
        var id: UInt64
        var target: AckTarget
        var lsn: UInt64
    }

    struct Waiter {
        var id: UInt64
        var lsn: UInt64
        var writes: Int
        var payload: Payload
    }

    /// The waits for one target.
    private struct Queue {
        var target: AckTarget
        var waiters = WaiterQueue<Payload>()
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
        let index = queues.firstIndex { $0.target == target }
        if index == nil { queues.append(Queue(target: target)) }
        queues[index ?? queues.count - 1].waiters.insert(waiter)
        return .waiting(Token(id: lastId, target: target, lsn: lsn))
    }

    /// Gives a wait up, because its time is over.
    /// - Returns: how far its batch has come; nil where the wait has ended already.
    mutating func cancel(_ token: Token) -> AckProgress? {
        guard let index = queues.firstIndex(where: { $0.target == token.target }),
            let waiter = queues[index].waiters.remove(id: token.id, lsn: token.lsn)
        else { return nil }
        if queues[index].waiters.isEmpty { queues.remove(at: index) }
        release(waiter.writes)
        return progress(lsn: waiter.lsn)
    }

    /// On how many replicas the batch at `lsn` is.
    func progress(lsn: UInt64) -> AckProgress {
        let having = followers.count { !$0.isLeaving && $0.acked.map { $0 >= lsn } ?? false }
        return AckProgress(replicas: 1 + having, of: 1 + followers.count)
    }

    // MARK: Events

    /// This node leads in `term`, with these followers. Called again when they change.
    mutating func lead(term: UInt64, followers addresses: [NodeAddress]) -> [Ended] {
        let known = term == self.term ? followers : []
        self.term = term
        followers = addresses.map { address in
            var follower = known.first { $0.address == address } ?? Follower(address: address)
            follower.isLeaving = false
            return follower
        }
        return settle()
    }

    /// A follower is about to be taken out of the shard, or stays after all.
    mutating func mark(_ address: NodeAddress, isLeaving: Bool) -> [Ended] {
        guard let index = followers.firstIndex(where: { $0.address == address }) else { return [] }
        followers[index].isLeaving = isLeaving
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
            let acked = followers.lazy.filter { !$0.isLeaving }.compactMap(\.acked).sorted(by: >)
            return required - 1 <= acked.count ? .lsn(acked[required - 2]) : .nothingYet
        }
    }

    private mutating func settle() -> [Ended] {
        var ended: [Ended] = []
        for index in queues.indices {
            // In the order of their batches: the first that is not reached is followed by none that is.
            while let first = queues[index].waiters.first,
                let outcome = outcome(of: queues[index].target, lsn: first.lsn)
            {
                queues[index].waiters.removeFirst()
                release(first.writes)
                ended.append(Ended(payload: first.payload, outcome: outcome))
            }
        }
        queues.removeAll { $0.waiters.isEmpty }
        return ended
    }
}

/// Waits by rising lsn. Where there are many, the first ends first: at the front nothing is moved.
private struct WaiterQueue<Payload> {
    typealias Waiter = AckTracker<Payload>.Waiter

    /// nil before `head` and nowhere else.
    private var slots: [Waiter?] = []
    private var head = 0

    var count: Int { slots.count - head }
    var isEmpty: Bool { count == 0 }
    var first: Waiter? { head < slots.count ? slots[head] : nil }

    mutating func insert(_ waiter: Waiter) {
        // Batches are committed in order, so the place is nearly always the end.
        var place = slots.count
        while place > head, let before = slots[place - 1], before.lsn > waiter.lsn { place -= 1 }
        slots.insert(waiter, at: place)
    }

    mutating func removeFirst() {
        slots[head] = nil
        head += 1
        guard head >= 64, head * 2 >= slots.count else { return }
        slots.removeFirst(head)
        head = 0
    }

    mutating func remove(id: UInt64, lsn: UInt64) -> Waiter? {
        var place = lowerBound(lsn)
        while place < slots.count, let waiter = slots[place], waiter.lsn == lsn {
            if waiter.id == id {
                if place == head { removeFirst() } else { slots.remove(at: place) }
                return waiter
            }
            place += 1
        }
        return nil
    }

    /// The first place whose wait is for `lsn` or later.
    private func lowerBound(_ lsn: UInt64) -> Int {
        var (low, high) = (head, slots.count)
        while low < high {
            let middle = (low + high) / 2
            if let waiter = slots[middle], waiter.lsn < lsn { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
