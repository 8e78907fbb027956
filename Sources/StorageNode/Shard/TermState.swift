import Core

/// The part a replica plays and the terms it has seen: who may lead, whom it follows. Decides, does nothing.
///
/// Invariants: the role's term is the highest this replica has seen, promised or led in, and never falls; within one
/// term the role goes from leader to follower and not back, except that a replica may lead the term it promised to
/// itself; so a term that another leader was seen in is never led here.
struct TermState {
    let shard: String
    let node: NodeAddress?
    private(set) var role: ShardRole
    private(set) var promise: TermPromise?

    /// - Parameters:
    ///   - role: as the topology says. Where log or promise know better, the replica follows.
    ///   - logTerm: of the newest batch.
    init(shard: String, node: NodeAddress?, role: ShardRole, logTerm: UInt64, promise: TermPromise?) {
        self.shard = shard
        self.node = node
        self.promise = promise
        self.role = role
        let newest = max(role.term, logTerm, promise?.term ?? 0)
        let isTaken = promise?.term == role.term && !isPromisedToItself(role.term)
        if !role.isLeader || role.term < newest || isTaken { self.role = .follower(term: newest) }
    }

    var newestTerm: UInt64 { role.term }

    private func isPromisedToItself(_ term: UInt64) -> Bool {
        guard let promise, promise.term == term, let candidate = promise.candidate else { return false }
        return node == nil || candidate == node
    }

    private func checkSize(_ term: UInt64) throws(KVError) {
        guard term <= ShardRole.termMax else { throw KVError(.invalidArgument, "there is no term \(term)") }
    }

    private func stale(_ what: String) -> KVError {
        KVError(.staleTerm, "\(what), this replica of \(shard) knows term \(newestTerm)")
    }

    // MARK: Leading and following

    /// Whether a barrier has to be written before this replica leads `term`; false where it leads it already.
    ///
    /// Throws `KVError(.staleTerm)` where it must not lead it.
    func mustBegin(_ term: UInt64, logTerm: UInt64) throws(KVError) -> Bool {
        try checkSize(term)
        if role == .leader(term: term) { return false }
        guard term > newestTerm || (isPromisedToItself(term) && term == newestTerm && logTerm < term) else {
            throw stale("it cannot lead term \(term)")
        }
        return true
    }

    /// After ``mustBegin(_:logTerm:)`` and the barrier.
    mutating func lead(_ term: UInt64) { role = .leader(term: term) }

    /// Throws `KVError(.staleTerm)` where it leads a newer term; a follower that knows a newer one stays as it is.
    mutating func follow(_ term: UInt64) throws(KVError) {
        try checkSize(term)
        if role.isLeader, term < newestTerm { throw stale("it does not follow term \(term)") }
        role = .follower(term: max(term, newestTerm))
    }

    /// There is such a term; for a follower.
    mutating func hear(of term: UInt64) { role = .follower(term: max(term, newestTerm)) }

    // MARK: Promising

    /// The promise to keep before a candidate is told that it has it; nil where it has it already.
    ///
    /// Throws `KVError(.staleTerm)` where the term is over or another's.
    func promise(of term: UInt64, to candidate: NodeAddress) throws(KVError) -> TermPromise? {
        try checkSize(term)
        let asked = TermPromise(term: term, candidate: candidate)
        if term == newestTerm, promise == asked { return nil }
        guard term > newestTerm else {
            guard term == newestTerm else { throw stale("a promise of term \(term) is too late") }
            let holder = promise.flatMap { $0.term == term ? $0.candidate : nil }
            throw KVError(
                .staleTerm,
                "term \(term) of \(shard) belongs to \(holder.map(\.description) ?? "a leader already"), "
                    + "not to \(candidate)")
        }
        return asked
    }

    /// The promise to keep before batches of a leader of `term` are applied; nil where it is kept already.
    ///
    /// Throws `KVError(.staleTerm)` where they must not be.
    func promiseToTake(batchesOf term: UInt64) throws(KVError) -> TermPromise? {
        try checkSize(term)
        guard term >= newestTerm else { throw stale("the batches come from term \(term)") }
        guard term > newestTerm || !role.isLeader else {
            throw KVError(.staleTerm, "this node leads \(shard) in term \(newestTerm) and takes no batches")
        }
        if let promise, promise.term == term {
            guard node == nil || !isPromisedToItself(term) else {
                throw KVError(.staleTerm, "this node has claimed term \(term) of \(shard) and takes no batches in it")
            }
            return nil
        }
        return TermPromise(term: term, candidate: nil)
    }

    /// A promise that is durable now. Who led an older term follows.
    mutating func keep(_ promise: TermPromise) {
        self.promise = promise
        if promise.term > newestTerm { role = .follower(term: promise.term) }
    }
}
