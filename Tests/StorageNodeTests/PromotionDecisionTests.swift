import Core
import Sharding
import Testing
import Wire

@testable import StorageNodeService

@Suite struct PromotionDecisionTests {
    private typealias Answer = PromotionDecision.Answer

    private func decision(
        force: Bool = false, own: LogPosition = position(1, 100), newest: UInt64 = 1, term: UInt64 = 1,
        as candidate: NodeAddress = n2
    ) throws -> PromotionDecision {
        let topology = try makeTopology(epoch: 4, [(term, [n1, n2, n3])])
        return PromotionDecision(
            epoch: 4, shard: topology.shards[0], candidate: candidate, force: force,
            own: .init(
                position: own, newestTerm: newest, leaderLastSeen: .init(lsn: 105, millisecondsAgo: 700)))
    }

    private func standing(
        _ lsn: UInt64, term: UInt64 = 1, newest: UInt64 = 1, leads: Bool = false, seen: UInt64? = nil
    ) -> Answer {
        .standing(
            .init(
                position: position(term, lsn), newestTerm: newest, isLeading: leads,
                leaderLastSeen: seen.map { .init(lsn: $0, millisecondsAgo: 50) }))
    }

    /// The candidate's next one.
    private func term(above seen: UInt64, of candidate: NodeAddress = n2) throws -> UInt64 {
        try decision().shard.nextTerm(of: candidate, above: seen)
    }

    @Test func theLeaderIsGone() throws {
        let decision = try decision()
        let answers = [n1: Answer.silent("refused"), n3: standing(90, newest: 7, seen: 110)]
        let plan = try decision.plan(answers)
        #expect(plan == .init(term: try term(above: 7), promisers: [n3], newestKnown: 7))
        #expect(
            try decision.conclude(plan, asked: answers, promised: [n3: standing(100, newest: 8, seen: 110)])
                == .init(
                    position: position(1, 100), keptVersion: position(1, 100).version, isComplete: false,
                    leaderLastSeen: .init(lsn: 110, millisecondsAgo: 50), unreachable: []))
    }

    /// Above the epoch and everything that anybody has seen; never that of another who is promoted elsewhere.
    @Test func terms() throws {
        let answers = [n1: Answer.silent("refused"), n3: standing(90)]
        #expect(try decision().plan(answers).term == term(above: 4))
        #expect(try decision(newest: 40).plan(answers).term == term(above: 40))
        let seen = [n1: Answer.silent("refused"), n3: standing(90, newest: 70)]
        #expect(try decision(newest: 40).plan(seen).term == term(above: 70))
        let halves = try [n2, n3].map { candidate in
            try decision(force: true, as: candidate).plan(
                [n1, n2, n3].reduce(into: [:]) { $0[$1] = .silent("cut off") }
            ).term
        }
        #expect(halves[0] != halves[1])
    }

    @Test func whoIsNoReplicaIsNotPromoted() throws {
        #expect(throws: Problem.self) {
            _ = try decision(force: true, as: NodeAddress(host: "127.0.0.1", port: 9)).plan([:])
        }
    }

    @Test func theLeaderAnswers() throws {
        let answers = [n1: standing(120, leads: true), n3: standing(90)]
        #expect(
            throws: Problem(
                .topologyConflict,
                "127.0.0.1:1 leads s0 and answers: move the leadership without loss with kv failover s0 --to "
                    + "127.0.0.1:2, or take it over with --force.")
        ) { _ = try decision().plan(answers) }
        // With force it is fenced like the others, and what it has more does not count.
        let forced = try decision(force: true)
        let plan = try forced.plan(answers)
        #expect(
            plan
                == .init(
                    term: try term(above: 1 + PromotionDecision.forcedTermLead), promisers: [n1, n3], newestKnown: 1))
        let conclusion = try forced.conclude(
            plan, asked: answers, promised: [n1: standing(123, newest: 5), n3: standing(90, newest: 5)])
        #expect(conclusion.leaderLastSeen == .init(lsn: 123, millisecondsAgo: 0))
        #expect(!conclusion.isComplete)
        // Nothing is lost where it turns out to have no more.
        let equal = try forced.conclude(
            plan, asked: answers, promised: [n1: standing(100, newest: 5), n3: standing(90, newest: 5)])
        #expect(equal.isComplete)
    }

    /// A leader that was fenced and left alone takes the shard again, or one that has all of it does.
    @Test func theLeaderFollowsNow() throws {
        let answers = [n1: standing(120, newest: 5), n3: standing(90)]
        #expect(
            throws: Problem(
                .followerBehind,
                "127.0.0.1:1 has more of s0 (term 1 lsn 120) than 127.0.0.1:2 (term 1 lsn 100): use kv failover s0 "
                    + "--to 127.0.0.1:1.", members: ["node": "127.0.0.1:1", "lsn": "120"])
        ) { _ = try decision().plan(answers) }
        let again = try decision(own: position(1, 120), newest: 5, as: n1)
        let plan = try again.plan([n2: standing(100), n3: standing(90)])
        #expect(plan == .init(term: try term(above: 5, of: n1), promisers: [n2, n3], newestKnown: 5))
        #expect(
            try again.conclude(
                plan, asked: [n2: standing(100), n3: standing(90)], promised: [n2: standing(100), n3: standing(90)]
            ).isComplete)
    }

    @Test func anotherHasMore() throws {
        let behind = Problem(
            .followerBehind,
            "127.0.0.1:3 has more of s0 (term 1 lsn 101) than 127.0.0.1:2 (term 1 lsn 100): use kv failover s0 --to "
                + "127.0.0.1:3.", members: ["node": "127.0.0.1:3", "lsn": "101"])
        let gone = [n1: Answer.silent("refused")]
        for force in [false, true] {
            let decision = try decision(force: force)
            #expect(throws: behind) { _ = try decision.plan(gone.merging([n3: standing(101)]) { $1 }) }
            // It took more between question and promise.
            let answers = gone.merging([n3: standing(100)]) { $1 }
            let plan = try decision.plan(answers)
            #expect(throws: behind) {
                _ = try decision.conclude(plan, asked: answers, promised: [n3: standing(101)])
            }
        }
        // The newer term counts before the higher lsn.
        let answers = gone.merging([n3: standing(60, term: 3)]) { $1 }
        #expect(throws: Problem.self) { _ = try decision().plan(answers) }
        #expect(throws: Never.self) {
            _ = try decision(own: position(3, 61)).plan(gone.merging([n3: standing(100, term: 1)]) { $1 })
        }
    }

    @Test func anotherIsNotReached() throws {
        let silent = [n1: Answer.silent("refused"), n3: .silent("no answer within 1 s")]
        #expect(
            throws: Problem(
                .replicaUnreachable,
                "127.0.0.1:3 may have more of s0 and does not answer (no answer within 1 s): start it, or accept to "
                    + "lose that with --force.", members: ["node": "127.0.0.1:3"])
        ) { _ = try decision().plan(silent) }
        let forced = try decision(force: true)
        let plan = try forced.plan(silent)
        #expect(plan.promisers == [])
        let conclusion = try forced.conclude(plan, asked: silent, promised: [:])
        #expect(conclusion.unreachable == [n3])
        #expect(conclusion.leaderLastSeen == .init(lsn: 105, millisecondsAgo: 700))
        // It was there for the question and gone for the promise.
        let answers = [n1: Answer.silent("refused"), n3: standing(90)]
        #expect(throws: Problem.self) {
            _ = try decision().conclude(
                try decision().plan(answers), asked: answers, promised: [n3: .silent("no answer")])
        }
    }

    /// What the leader acknowledged in its term may have any version: the candidate, of which nothing came over, cannot
    /// say that anything of it is kept.
    @Test func theCandidateHasNothingOfTheLeadersTerm() throws {
        let gone = [n1: Answer.silent("refused"), n3: standing(90)]
        let behind = Problem(
            .followerBehind,
            "127.0.0.1:2 has nothing of term 3 of s0, in which 127.0.0.1:1 was to lead: start that, or accept to lose "
                + "everything it acknowledged in that term with --force.",
            members: ["node": "127.0.0.1:1", "term": "3"])
        #expect(throws: behind) { _ = try decision(term: 3).plan(gone) }
        let forced = try decision(force: true, term: 3)
        let plan = try forced.plan(gone)
        let conclusion = try forced.conclude(plan, asked: gone, promised: [n3: standing(90)])
        #expect(conclusion.keptVersion == .zero && !conclusion.isComplete)
        #expect(conclusion.position == position(1, 100))
        // One batch of it is enough, the barrier that begins it.
        let has = try decision(own: position(3, 101), term: 3)
        let kept = try has.conclude(try has.plan(gone), asked: gone, promised: [n3: standing(90)])
        #expect(kept.keptVersion == position(3, 101).version && !kept.isComplete)
    }

    /// It answers, and has not begun its term: so it has acknowledged nothing in it.
    @Test func theLeaderNeverBeganItsTerm() throws {
        for lsn in [UInt64(99), 100] {
            let answers = [n1: standing(lsn, newest: 3), n3: standing(90)]
            let decision = try decision(term: 3)
            let conclusion = try decision.conclude(
                try decision.plan(answers), asked: answers, promised: [n1: standing(lsn), n3: standing(90)])
            #expect(conclusion.isComplete && conclusion.keptVersion == position(1, 100).version)
        }
        // With more than the candidate it is forced out: up to where the candidate is, all is kept.
        let answers = [n1: standing(120, newest: 3), n3: standing(90)]
        let forced = try decision(force: true, term: 3)
        let conclusion = try forced.conclude(
            try forced.plan(answers), asked: answers, promised: [n1: standing(120), n3: standing(90)])
        #expect(!conclusion.isComplete && conclusion.keptVersion == position(1, 100).version)
        // Nothing is, where that is of an older term still.
        let older = try decision(force: true, own: position(0, 0), term: 3)
        #expect(
            try older.conclude(
                try older.plan([n1: standing(120)]), asked: [n1: standing(120)], promised: [n1: standing(120)]
            ).keptVersion == .zero)
    }

    /// A leader that was replaced while it was away, and has promised the newer term but not heard who leads it: nothing
    /// is known of what that one acknowledged.
    @Test func aReplacedLeaderIsForcedToLeadAgain() throws {
        let silent = [n2: Answer.silent("no answer"), n3: standing(90, newest: 8)]
        let replaced = try decision(force: true, own: position(1, 120), newest: 8, as: n1)
        let conclusion = try replaced.conclude(try replaced.plan(silent), asked: silent, promised: [n3: standing(90)])
        #expect(!conclusion.isComplete && conclusion.keptVersion == .zero && conclusion.unreachable == [n2])
        // With a batch of that term, everything of it up to there is kept.
        let follower = try decision(force: true, own: position(8, 121), newest: 8, as: n1)
        let kept = try follower.conclude(try follower.plan(silent), asked: silent, promised: [n3: standing(90)])
        #expect(!kept.isComplete && kept.keptVersion == position(8, 121).version)
        // Where everybody answers, nobody else has more.
        let answers = [n2: standing(110, newest: 8), n3: standing(90, newest: 8)]
        #expect(try replaced.conclude(try replaced.plan(answers), asked: answers, promised: answers).isComplete)
    }

    @Test func anotherHasPromisedElsewhere() throws {
        let answers = [n1: Answer.silent("refused"), n3: standing(90)]
        for force in [false, true] {
            let decision = try decision(force: force)
            let plan = try decision.plan(answers)
            #expect(
                throws: Problem(
                    .topologyConflict,
                    "127.0.0.1:3 has promised s0 elsewhere meanwhile (term 6 belongs to another): look at kv status "
                        + "and try again.")
            ) {
                _ = try decision.conclude(
                    plan, asked: answers, promised: [n3: .refused("term 6 belongs to another")])
            }
        }
    }

    // MARK: The leader leads on

    private func renewal(leads: Bool = true, own: LogPosition = position(1, 100)) throws -> PromotionDecision {
        var renewal = PromotionDecision(
            epoch: 4, shard: try decision().shard, candidate: n1, force: false,
            own: .init(position: own, newestTerm: 1, isLeading: leads))
        renewal.isRenewal = true
        return renewal
    }

    @Test func aLeaderLeadsOnAboveWhatWasPromised() throws {
        let answers = [n2: standing(90, newest: 24), n3: Answer.silent("refused")]
        let renewal = try renewal()
        let plan = try renewal.plan(answers)
        #expect(plan == .init(term: try term(above: 24, of: n1), promisers: [n2], newestKnown: 24))
        let conclusion = try renewal.conclude(plan, asked: answers, promised: [n2: standing(90, newest: plan.term)])
        #expect(conclusion.isComplete && conclusion.unreachable == [n3])
        // Who promised it and died is no majority.
        #expect(throws: Problem.self) {
            _ = try renewal.conclude(plan, asked: answers, promised: [n2: .silent("refused")])
        }
        #expect(throws: Problem.self) {
            _ = try renewal.conclude(plan, asked: answers, promised: [n2: .refused("term 40 belongs to another")])
        }
    }

    /// Batches of a newer term have a leader that this node knows nothing of.
    @Test func aLeaderDoesNotLeadOnWhereAnotherLed() throws {
        let answers = [n2: standing(50, term: 9, newest: 9), n3: standing(90)]
        #expect(throws: Problem.self) { _ = try renewal().plan(answers) }
        // In its own term nobody has more than a leader, whatever the number says; one that never led may have less.
        let more = [n2: standing(120, newest: 9), n3: standing(90)]
        #expect(try renewal().plan(more).promisers == [n2, n3])
        #expect(throws: Problem.self) { _ = try renewal(own: position(0, 0)).plan(more) }
    }

    @Test func whoDoesNotLeadAnyMoreNeedsEverybody() throws {
        let some = [n2: standing(90, newest: 24), n3: Answer.silent("refused")]
        #expect(
            throws: Problem(
                .replicaUnreachable,
                "Without an answer of 127.0.0.1:3 it is not certain that nobody else leads s0: start what is down, or "
                    + "decide with kv failover s0.")
        ) { _ = try renewal(leads: false).plan(some) }
        let all = [n2: standing(90, newest: 24), n3: standing(90)]
        #expect(try renewal(leads: false).plan(all).promisers == [n2, n3])
        #expect(throws: Problem.self) { _ = try renewal().plan([n2: .silent("a"), n3: .silent("b")]) }
    }
}
