import Core

/// What the leader of a shard makes of replicas that have promised its followers' obedience to somebody else: a
/// promotion that was begun and never came to its end. They refuse its batches for ever, as those of an older term, so
/// it has to begin a newer one. Decides, does nothing.
///
/// Invariants: nothing is done before the newest promise has been known for a while, and nothing as long as somebody
/// could lead by it whom nobody could ask.
struct TermDoubt {
    /// A promise that stands in the way.
    struct Promise: Hashable {
        var term: UInt64
        /// Nil where a leader of that term was seen at work whose address was not learned.
        var candidate: NodeAddress?
    }

    /// What came of comparing topologies with a node.
    enum Contact: Equatable {
        /// It has ours, or has it now.
        case answered
        /// No process takes connections there.
        case refused
        case silent
        /// It has a newer one that this node could not take.
        case isNewer
    }

    struct Patience: Sendable {
        /// From the newest promise on. Longer than a promotion takes, whose questions have a second each.
        var promotionMilliseconds: UInt64 = 5_000
        /// For a candidate that does not answer, and so may be at work where this node does not reach it.
        var silenceMilliseconds: UInt64 = 20_000
    }

    /// The node that leads by the topology.
    let leader: NodeAddress
    let patience: Patience
    /// The newest that stands in the way; nil where none does.
    private(set) var promise: Promise?
    private var sinceMilliseconds: UInt64 = 0

    init(leader: NodeAddress, patience: Patience) {
        self.leader = leader
        self.patience = patience
    }

    // MARK: Events

    /// A replica, this one or a follower, has promised `seen`.
    /// - Parameter term: that the topology says is led here.
    mutating func saw(_ seen: Promise, leading term: UInt64, at now: UInt64) {
        guard stands(seen, inTheWayOf: term), seen != promise else { return }
        if let promise, promise.term > seen.term || (promise.term == seen.term && seen.candidate == nil) { return }
        promise = seen
        sinceMilliseconds = now
    }

    /// `term` is led here now.
    mutating func leads(_ term: UInt64) {
        if let promise, !stands(promise, inTheWayOf: term) { self.promise = nil }
    }

    /// A new term could not be begun: the next attempt is as far away as the first was.
    mutating func failed(at now: UInt64) { sinceMilliseconds = now }

    /// A term has one leader; who has given the current one to somebody else takes nothing from this one either.
    private func stands(_ promise: Promise, inTheWayOf term: UInt64) -> Bool {
        guard promise.term == term else { return promise.term > term }
        return promise.candidate != nil && promise.candidate != leader
    }

    // MARK: Deciding

    /// Whether it is time to compare topologies with everybody: the other replicas and the candidate.
    func isRipe(at now: UInt64) -> Bool { promise != nil && age(now) >= patience.promotionMilliseconds }

    private func age(_ now: UInt64) -> UInt64 { now - min(now, sinceMilliseconds) }

    /// Whether to begin a new term.
    /// - Parameters:
    ///   - replicas: of the shard, this one among them.
    ///   - isFenced: this replica has promised too, and takes no writes.
    ///   - contacts: of everybody, just now. None of them knows of another leader, or the topology would say so.
    func mayRenew(
        replicas: [NodeAddress], isFenced: Bool, contacts: [NodeAddress: Contact], at now: UInt64
    ) -> Bool {
        guard let promise, isRipe(at: now), !contacts.values.contains(.isNewer) else { return false }
        let others = replicas.filter { $0 != leader }
        let answered = others.count { contacts[$0] == .answered }
        // Whoever took no writes goes on taking none until it is certain that nobody else does; and of a leader that
        // was seen at work everybody has to say that there is none.
        if isFenced || promise.candidate == nil { return answered == others.count }
        if let candidate = promise.candidate, candidate != leader {
            switch contacts[candidate] {
            case .answered, .refused: break
            case .silent, .isNewer, nil:
                guard age(now) >= patience.silenceMilliseconds else { return false }
            }
        }
        // Then no other leader can have what a majority has acknowledged.
        return 2 * (1 + answered) > replicas.count
    }
}
