import Core
import TestSupport
import Testing
import Wire

@testable import Shard

private func position(_ lsn: UInt64, term: UInt64 = 1, milliseconds: UInt64) -> LogPosition {
    LogPosition(term: term, lsn: lsn, version: Version(rawValue: milliseconds << 16))
}

@Suite struct ReplicaFreshnessTests {
    private let clock = ManualClock()
    private let freshness: ShardFreshness

    init() {
        freshness = ShardFreshness(clock: clock.clock)
        clock.setWall(1_000_000)
        clock.advance(500)
    }

    private func advance(_ milliseconds: UInt64) {
        clock.setWall(clock.clock.wallMilliseconds() + milliseconds)
        clock.advance(milliseconds)
    }

    @Test func knowsNothingOfAnEmptyReplica() {
        freshness.applied(.start)
        #expect(freshness.lagMilliseconds == nil)
        #expect(!freshness.hasCaughtUp)
        #expect(freshness.leaderLastSeen == nil)
    }

    @Test func isAsOldAsItsNewestVersionUntilItHasCaughtUp() {
        freshness.applied(position(5, milliseconds: 999_000))
        #expect(freshness.lagMilliseconds == 1_000)
        freshness.heartbeat(
            leaderLsn: 9, leaderClockMilliseconds: 999_990, term: 1, position: position(7, milliseconds: 999_700))
        #expect(freshness.lagMilliseconds == 300)
        #expect(!freshness.hasCaughtUp)
        freshness.applied(position(9, milliseconds: 999_800))
        #expect(freshness.lagMilliseconds == 10)
        #expect(freshness.hasCaughtUp)
    }

    /// A leader that was replaced has writes of its own which nobody else will ever have: they say nothing of its age.
    @Test func knowsNothingBeforeItHasABatchOfTheNewestTerm() {
        freshness.applied(position(9, milliseconds: 999_990))
        #expect(freshness.lagMilliseconds == 10)
        freshness.knows(of: 2, position: position(9, milliseconds: 999_990))
        #expect(freshness.lagMilliseconds == nil)
        freshness.applied(position(9, milliseconds: 999_990))
        #expect(freshness.lagMilliseconds == nil)
        freshness.applied(position(8, term: 2, milliseconds: 999_980))
        #expect(freshness.lagMilliseconds == 20)
        // Also where the newer term comes with a heartbeat.
        freshness.heartbeat(
            leaderLsn: 9, leaderClockMilliseconds: 999_999, term: 3,
            position: position(8, term: 2, milliseconds: 999_980))
        #expect(freshness.lagMilliseconds == nil)
    }

    @Test func agesWithTheMonotonicClockAndIsRenewedByHeartbeats() {
        let here = position(9, milliseconds: 900_000)
        freshness.heartbeat(leaderLsn: 9, leaderClockMilliseconds: 1_000_000, term: 1, position: here)
        #expect(freshness.lagMilliseconds == 0)
        advance(250)
        #expect(freshness.lagMilliseconds == 250)
        clock.setWall(5_000_000)
        #expect(freshness.lagMilliseconds == 250)
        clock.setWall(1_000_250)
        freshness.heartbeat(leaderLsn: 9, leaderClockMilliseconds: 1_000_240, term: 1, position: here)
        #expect(freshness.lagMilliseconds == 10)
        #expect(freshness.leaderLastSeen?.lsn == 9)
        #expect(freshness.leaderLastSeen?.millisecondsAgo == 0)
    }

    /// A heartbeat that was on its way while the replicator stood still says how things were then.
    @Test func isNotDeceivedByALateHeartbeat() {
        let here = position(9, milliseconds: 900_000)
        freshness.heartbeat(leaderLsn: 9, leaderClockMilliseconds: 1_000_000, term: 1, position: here)
        advance(60_000)
        freshness.heartbeat(leaderLsn: 9, leaderClockMilliseconds: 1_000_100, term: 1, position: here)
        #expect(freshness.lagMilliseconds == 59_900)
        freshness.heartbeat(leaderLsn: 8, leaderClockMilliseconds: 990_000, term: 1, position: here)
        #expect(freshness.lagMilliseconds == 59_900)
    }

    /// An old leader with writes of its own has the lsn and not the history.
    @Test func isNotFreshWithTheHistoryOfAnotherTerm() {
        freshness.heartbeat(
            leaderLsn: 9, leaderClockMilliseconds: 1_000_000, term: 2,
            position: position(12, term: 1, milliseconds: 400_000))
        #expect(!freshness.hasCaughtUp)
        #expect(freshness.lagMilliseconds == nil)
    }

    @Test func forgetsTheOldLeaderForTheNewOne() {
        let here = position(3, term: 2, milliseconds: 900_000)
        freshness.heartbeat(leaderLsn: 90, leaderClockMilliseconds: 1_000_000, term: 1, position: here)
        freshness.heartbeat(leaderLsn: 40, leaderClockMilliseconds: 1_000_000, term: 2, position: here)
        advance(20)
        freshness.heartbeat(leaderLsn: 95, leaderClockMilliseconds: 1_000_000, term: 1, position: here)
        #expect(freshness.leaderLastSeen?.lsn == 40)
        #expect(freshness.leaderLastSeen?.millisecondsAgo == 20)
        #expect(!freshness.hasCaughtUp)
    }

    /// The leader's clock is ahead of this machine's: never younger than what came in, never less than nothing.
    @Test func countsFromTheArrivalWhereTheLeadersClockIsAhead() {
        let here = position(9, milliseconds: 900_000)
        freshness.heartbeat(leaderLsn: 9, leaderClockMilliseconds: 9_000_000, term: 1, position: here)
        #expect(freshness.lagMilliseconds == 0)
        advance(70)
        #expect(freshness.lagMilliseconds == 70)
    }
}
