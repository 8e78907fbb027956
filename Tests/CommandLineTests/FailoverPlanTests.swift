import Core
import Sharding
import Testing
import Wire

@testable import kv

private let a = NodeAddress(host: "a", port: 1)
private let b = NodeAddress(host: "b", port: 1)
private let c = NodeAddress(host: "c", port: 1)

private func stands(
    _ term: UInt64, _ lsn: UInt64, _ role: PositionDocument.Role = .follower
) -> FailoverPlan.Answer {
    let position = LogPosition(term: term, lsn: lsn, version: Version(rawValue: lsn))
    return .success(
        HistoryDocument(
            position: PositionDocument(shard: "s", role: role, position: position),
            history: TermHistory(starts: [], end: position), newestTerm: term, leaderLastSeen: nil))
}

private let gone = FailoverPlan.Answer.failure(KVError(.unavailable, "connection refused"))

@Suite struct FailoverPlanTests {
    private struct Case {
        var leader: FailoverPlan.Answer
        var b: FailoverPlan.Answer
        var c: FailoverPlan.Answer
        var to: NodeAddress?
        var force = false
        /// What is decided, or a part of why it is refused.
        var expected: String
    }

    private func decide(_ plan: FailoverPlan, _ answers: [NodeAddress: FailoverPlan.Answer]) -> String {
        switch plan.decide(answers) {
        case .leadsAlready(let node): "\(node) leads already"
        case .handOver(let node): "hand over to \(node)"
        case .promote(let node): "promote \(node)"
        case .refuse(let failure): "\(failure.status.rawValue): \(failure.message ?? "")"
        }
    }

    @Test func decisions() {
        let leads = stands(2, 10, .leader)
        let cases = [
            // The leader leads: it hands over, to the most complete, whatever the force.
            Case(leader: leads, b: stands(2, 8), c: stands(2, 9), expected: "hand over to c:1"),
            Case(leader: leads, b: stands(2, 9), c: stands(2, 9), expected: "hand over to b:1"),
            Case(leader: leads, b: stands(2, 8), c: stands(1, 99), expected: "hand over to b:1"),
            Case(leader: leads, b: gone, c: stands(2, 3), force: true, expected: "hand over to c:1"),
            Case(leader: leads, b: stands(2, 8), c: stands(2, 9), to: b, expected: "hand over to b:1"),
            Case(leader: leads, b: stands(2, 8), c: stands(2, 9), to: a, expected: "a:1 leads already"),
            Case(leader: leads, b: gone, c: gone, expected: "3: no follower of s answers"),
            // Nobody to ask: the leader says it best.
            Case(leader: leads, b: gone, c: gone, to: b, expected: "hand over to b:1"),
            // The leader is gone.
            Case(leader: gone, b: stands(2, 8), c: stands(2, 9), expected: "promote c:1"),
            Case(leader: gone, b: stands(3, 1), c: stands(2, 9), expected: "promote b:1"),
            Case(leader: gone, b: stands(2, 9), c: stands(2, 9), to: c, expected: "promote c:1"),
            Case(
                leader: gone, b: stands(2, 8), c: stands(2, 9), to: b,
                expected: "3: c:1 has more of s (term 2, lsn 9) than b:1 (term 2, lsn 8)"),
            Case(leader: gone, b: stands(2, 8), c: stands(2, 9), to: b, force: true, expected: "3: c:1 has more of s"),
            Case(leader: gone, b: stands(2, 8), c: stands(2, 9), to: a, expected: "3: a:1: connection refused"),
            Case(leader: gone, b: gone, c: gone, force: true, expected: "3: no replica of s answers"),
            Case(
                leader: gone, b: stands(2, 8), c: gone,
                expected: "3: the leader of s is gone (a:1: connection refused), and who may have more of it than b:1 "
                    + "(term 2, lsn 8) does not answer: c:1: connection refused; start that, or accept to lose what only "
                    + "it has with kv failover s --force"),
            Case(leader: gone, b: stands(2, 8), c: gone, force: true, expected: "promote b:1"),
            Case(leader: gone, b: stands(2, 8), c: gone, to: c, force: true, expected: "3: c:1: connection refused"),
            // It answers and does not lead: another failover was begun and not finished. It may lead again.
            Case(leader: stands(2, 10), b: stands(2, 8), c: stands(2, 9), expected: "promote a:1"),
            Case(leader: stands(2, 9), b: stands(2, 8), c: stands(3, 1), expected: "promote c:1"),
            Case(
                leader: stands(2, 10), b: stands(2, 8), c: gone,
                expected: "3: the leader of s is gone (a:1 does not lead)"),
            // The command line is wrong.
            Case(
                leader: leads, b: stands(2, 8), c: stands(2, 9), to: NodeAddress(host: "d", port: 1),
                expected: "2: d:1 holds no replica of s: there are a:1, b:1, c:1"),
        ]
        for (number, row) in cases.enumerated() {
            let shard = ShardTopology(name: "s", index: 0, term: 2, leader: a, followers: [b, c], slots: [])
            let plan = FailoverPlan(shard: shard, target: row.to, force: row.force)
            let decision = decide(plan, [a: row.leader, b: row.b, c: row.c])
            #expect(decision.hasPrefix(row.expected), "row \(number): \(decision)")
        }
    }

    @Test func aShardWithoutFollowersSaysSo() {
        let plan = FailoverPlan(
            shard: ShardTopology(name: "s", index: 0, term: 1, leader: a, followers: [], slots: []), target: nil,
            force: false)
        #expect(decide(plan, [a: stands(1, 1, .leader)]).hasPrefix("3: s has no follower"))
        #expect(decide(plan, [a: gone]).hasPrefix("3: no replica of s answers: a:1: connection refused"))
    }
}

@Suite struct FailoverTextTests {
    /// 2026-11-24 11:13:05.023 UTC.
    private let version = Version(rawValue: 1_795_518_785_023 << 16 | 7)

    private func report(complete: Bool) -> FailoverReport {
        FailoverReport(
            shard: "shard-0", epoch: 5, term: 5, leader: b, previousLeader: a, lsn: 1_200, version: version.hexDigits,
            isComplete: complete, leaderLastSeen: nil, unreachable: [], writesHeldMilliseconds: nil)
    }

    @Test func aPlannedOneLosesNothing() {
        var planned = report(complete: true)
        planned.writesHeldMilliseconds = 12.34
        #expect(
            FailoverText.render(planned) == """
                b:1 leads shard-0 now (term 5, epoch 5).
                Nothing is lost: it has every write up to version \(version) (2026-11-24 11:13:05.023 UTC; lsn 1,200).
                Writes were held back for 12.3 ms.

                """)
    }

    @Test func aForcedOneSaysWhatMayBeLost() {
        var forced = report(complete: false)
        forced.leaderLastSeen = HistoryDocument.LeaderSighting(lsn: 1_210, millisecondsAgo: 3_210)
        forced.unreachable = [c]
        #expect(
            FailoverText.render(forced) == """
                b:1 leads shard-0 now (term 5, epoch 5).
                Everything up to version \(version) (2026-11-24 11:13:05.023 UTC; lsn 1,200) is kept.
                Acknowledged writes with a KV-Version above \(version) may be lost.
                a:1 was last seen at lsn 1,210, 10 batches ahead, 3.2 s ago; what it took after that is not known.
                When a:1 comes back it follows, and saves such writes in its data directory: see kv status.
                Not asked, as it did not answer: c:1. What only it had may be lost as well.

                """)
        forced.leaderLastSeen = nil
        #expect(FailoverText.render(forced).contains("\nNobody knows how far a:1 was"))
    }

    @Test func oneThatHasNothingOfTheLastTermPromisesNothing() {
        var forced = report(complete: false)
        forced.version = Version.zero.hexDigits
        forced.previousTerm = 4
        forced.leaderLastSeen = HistoryDocument.LeaderSighting(lsn: 1_210, millisecondsAgo: 3_210)
        #expect(
            FailoverText.render(forced) == """
                b:1 leads shard-0 now (term 5, epoch 5).
                It has nothing of term 4, in which a:1 led.
                Everything that was acknowledged in term 4 may be lost.
                a:1 was last seen at lsn 1,210, 10 batches ahead, 3.2 s ago; what it took after that is not known.
                When a:1 comes back it follows, and saves such writes in its data directory: see kv status.

                """)
        forced.previousTerm = nil
        #expect(FailoverText.render(forced).contains("acknowledged in the term before may be lost"))
    }

    @Test func timesOfVersions() {
        #expect(TimeText.utc(.zero) == "1970-01-01 00:00:00.000 UTC")
        #expect(TimeText.utc(Version(rawValue: 999 << 16)) == "1970-01-01 00:00:00.999 UTC")
    }
}
