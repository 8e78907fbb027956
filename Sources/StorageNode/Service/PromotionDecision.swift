import Core
import Sharding
import Wire

/// Whether a follower may lead because the leader is gone, and what is lost then; or whether the leader may lead on in a
/// new term, which loses nothing. Decides, does nothing.
///
/// Two rounds: first every other replica is asked where it stands, and the follower refuses before it disturbs anybody;
/// then those that may count are asked to promise the new term, after which none of them takes anything of an older
/// one, and what they have then decides.
struct PromotionDecision {
    /// Where a replica stands.
    struct Standing: Equatable {
        var position: LogPosition
        var newestTerm: UInt64
        var isLeading = false
        /// What it last heard from its leader.
        var leaderLastSeen: HistoryDocument.LeaderSighting?
    }

    enum Answer: Equatable {
        case standing(Standing)
        case silent(String)
        /// It answered, but promises nothing.
        case refused(String)

        var standing: Standing? {
            if case .standing(let standing) = self { standing } else { nil }
        }
    }

    let epoch: UInt64
    let shard: ShardTopology
    let candidate: NodeAddress
    let force: Bool
    /// Where the candidate stands itself.
    let own: Standing
    /// The candidate is the leader so far: see ``TermDoubt``.
    var isRenewal = false

    struct Plan: Equatable {
        var term: UInt64
        /// Whom to ask for the promise.
        var promisers: [NodeAddress]
        /// The highest term that anybody knew of before this.
        var newestKnown: UInt64
    }

    struct Conclusion: Equatable {
        var position: LogPosition
        /// Everything that leaders of the terms known so far acknowledged with a version up to this is kept. Zero where
        /// the candidate may have no batch of the newest of them: what that leader acknowledged may then have any version.
        var keptVersion: Version
        /// Nothing was written that is not kept.
        var isComplete: Bool
        var leaderLastSeen: HistoryDocument.LeaderSighting?
        var unreachable: [NodeAddress]
    }

    /// How far above every term it knows of a forced promotion begins its own. The leader so far may live on behind a
    /// partition and hand its shard over there; with the next few terms that would outrank, once all meet again, what
    /// the operator has decided, and take writes back that nobody said could be lost.
    static let forcedTermLead: UInt64 = 1_024

    /// The other replicas, the leader so far first.
    var others: [NodeAddress] { shard.replicas.filter { $0 != candidate } }

    // MARK: First round

    /// - Parameter answers: of ``others`` to the question where they stand.
    ///
    /// Throws the problem that speaks against it.
    func plan(_ answers: [NodeAddress: Answer]) throws(Problem) -> Plan {
        if !force, shard.leader != candidate, answers[shard.leader]?.standing?.isLeading ?? false {
            throw Problem(
                .topologyConflict,
                "\(shard.leader) leads \(shard.name) and answers: move the leadership without loss with kv failover "
                    + "\(shard.name) --to \(candidate), or take it over with --force.")
        }
        guard shard.replicas.contains(candidate) else {
            throw Problem(
                .topologyConflict, "\(candidate) is no replica of \(shard.name) any more: look at kv status.")
        }
        try checkReached(answers)
        try checkNobodyHasMore(answers)
        try checkHasTerm(answers)
        let standings = answers.values.compactMap(\.standing)
        let newestKnown = standings.reduce(max(own.newestTerm, shard.term)) { max($0, $1.newestTerm) }
        let lead = force ? PromotionDecision.forcedTermLead : 0
        return Plan(
            term: shard.nextTerm(of: candidate, above: max(epoch, min(newestKnown, .max - lead) + lead)),
            promisers: others.filter { answers[$0]?.standing != nil }, newestKnown: newestKnown)
    }

    // MARK: Second round

    /// - Parameter promises: of those that were asked for one, where they stood then.
    ///
    /// Throws the problem that speaks against it.
    func conclude(_ plan: Plan, asked answers: [NodeAddress: Answer], promised promises: [NodeAddress: Answer])
        throws(Problem) -> Conclusion
    {
        var known = answers
        for (address, promise) in promises {
            if case .refused(let reason) = promise {
                throw Problem(
                    .topologyConflict,
                    "\(address) has promised \(shard.name) elsewhere meanwhile (\(reason)): look at kv status and "
                        + "try again.")
            }
            known[address] = promise
        }
        try checkReached(known)
        try checkNobodyHasMore(known)
        try checkHasTerm(known)
        let unreachable = others.filter { known[$0]?.standing == nil }
        // Whoever does not answer may have led, by a topology that this node has not heard of.
        let isComplete = (isRenewal && own.isLeading) || (unreachable.isEmpty && isLeaderKept(known))
        let hasNewest = hasTerm(known) && (isAskedBesides(shard.leader, known) || own.position.term >= plan.newestKnown)
        return Conclusion(
            position: own.position, keptVersion: isComplete || hasNewest ? own.position.version : .zero,
            isComplete: isComplete, leaderLastSeen: lastSeen(known, known[shard.leader]?.standing),
            unreachable: unreachable.filter { $0 != shard.leader })
    }

    // MARK: Judging

    private func isAhead(_ other: Standing) -> Bool {
        // Every batch of a term comes from its leader. Whoever has more of it has other batches, and is found out.
        if isRenewal, own.position.term == shard.term { return own.position.term < other.position.term }
        return own.position < other.position
    }

    /// Whether the candidate is known to have everything that the leader so far has.
    private func isLeaderKept(_ answers: [NodeAddress: Answer]) -> Bool {
        shard.leader == candidate || answers[shard.leader]?.standing.map { !isAhead($0) } ?? false
    }

    /// Whether every replica but `leader` has answered, so that nobody else has more.
    private func isAskedBesides(_ leader: NodeAddress, _ answers: [NodeAddress: Answer]) -> Bool {
        others.allSatisfy { $0 == leader || answers[$0]?.standing != nil }
    }

    /// Whether the candidate has a batch of the term that the leader so far wrote its last in. That makes its history a
    /// part of the leader's; without one it may end anywhere before or beside it.
    private func hasTerm(_ answers: [NodeAddress: Answer]) -> Bool {
        let last = answers[shard.leader]?.standing?.position.term ?? shard.term
        return own.position.term >= min(last, shard.term)
    }

    private func checkHasTerm(_ answers: [NodeAddress: Answer]) throws(Problem) {
        guard !force, !isLeaderKept(answers), !hasTerm(answers) else { return }
        throw Problem(
            .followerBehind,
            "\(candidate) has nothing of term \(shard.term) of \(shard.name), in which \(shard.leader) was to lead: start "
                + "that, or accept to lose everything it acknowledged in that term with --force.",
            members: ["node": "\(shard.leader)", "term": "\(shard.term)"])
    }

    /// The leader may be gone: that is what this is for. Others may have more.
    private func checkReached(_ answers: [NodeAddress: Answer]) throws(Problem) {
        guard !isRenewal else { return try checkEnoughAnswer(answers) }
        guard !force else { return }
        for address in others where address != shard.leader {
            switch answers[address] {
            case .standing: continue
            case .silent(let reason), .refused(let reason):
                throw unreached(address, reason)
            case nil:
                throw unreached(address, "it was not asked")
            }
        }
    }

    /// A leader needs a majority with itself, so that nobody else can have what one has acknowledged; one that does not
    /// lead, as it has promised too, needs all, as somebody else could.
    private func checkEnoughAnswer(_ answers: [NodeAddress: Answer]) throws(Problem) {
        let silent = others.filter { answers[$0]?.standing == nil }
        let isEnough = own.isLeading ? 2 * silent.count < shard.replicas.count : silent.isEmpty
        guard !isEnough else { return }
        throw Problem(
            .replicaUnreachable,
            "Without an answer of \(silent.map(\.description).joined(separator: ", ")) it is not certain that nobody else "
                + "leads \(shard.name): start what is down, or decide with kv failover \(shard.name).")
    }

    private func unreached(_ address: NodeAddress, _ reason: String) -> Problem {
        Problem(
            .replicaUnreachable,
            "\(address) may have more of \(shard.name) and does not answer (\(reason)): start it, or accept to lose "
                + "that with --force.",
            members: ["node": "\(address)"])
    }

    private func checkNobodyHasMore(_ answers: [NodeAddress: Answer]) throws(Problem) {
        let ahead = others.compactMap { address -> (address: NodeAddress, position: LogPosition)? in
            // Whoever forces a leader out accepts to lose what only that has.
            if force, address == shard.leader { return nil }
            guard let standing = answers[address]?.standing, isAhead(standing) else { return nil }
            return (address, standing.position)
        }
        guard let best = ahead.max(by: { $0.position < $1.position }) else { return }
        throw Problem(
            .followerBehind,
            "\(best.address) has more of \(shard.name) (\(best.position)) than \(candidate) (\(own.position)): use "
                + "kv failover \(shard.name) --to \(best.address).",
            members: ["node": "\(best.address)", "lsn": "\(best.position.lsn)"])
    }

    /// The most that anybody heard of the leader so far.
    private func lastSeen(
        _ answers: [NodeAddress: Answer], _ leader: Standing?
    ) -> HistoryDocument.LeaderSighting? {
        if let leader { return HistoryDocument.LeaderSighting(lsn: leader.position.lsn, millisecondsAgo: 0) }
        let sightings =
            answers.values.compactMap { $0.standing?.leaderLastSeen } + [own.leaderLastSeen].compactMap { $0 }
        return sightings.max { ($0.lsn, $1.millisecondsAgo) < ($1.lsn, $0.millisecondsAgo) }
    }
}
