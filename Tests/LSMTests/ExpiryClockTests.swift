import Core
import LSM
import Synchronization
import Testing

/// A wall clock that can be set, and a steady one.
final class Clocks: Sendable {
    private let times = Mutex<(wall: UInt64, steady: UInt64)>((1_800_000_000_000, 500))
    var wall: UInt64 { times.withLock { $0.wall } }

    func pass(_ milliseconds: UInt64) {
        times.withLock { $0 = ($0.wall + milliseconds, $0.steady + milliseconds) }
    }

    func set(_ wall: UInt64) { times.withLock { $0.wall = wall } }

    /// Forward or back.
    func jump(_ milliseconds: Int64) { times.withLock { $0.wall = UInt64(Int64($0.wall) + milliseconds) } }

    /// So much time passes, with a look at the clock every ten seconds.
    func pass(_ milliseconds: UInt64, _ clock: ExpiryClock?) {
        var left = milliseconds
        while left > 0 {
            let step = min(left, 10_000)
            pass(step)
            _ = clock?.now()
            left -= step
        }
    }

    func settle(_ clock: ExpiryClock?) {
        _ = clock?.now()
        pass(UInt64(ClockBound.settleMilliseconds), clock)
    }

    func bounded() -> BoundedClock {
        BoundedClock(wallMilliseconds: { self.wall }, steadyMilliseconds: { self.times.withLock { $0.steady } })
    }

    func expiryClock() -> ExpiryClock { ExpiryClock(bounded()) }
}

private let hour: Int64 = 3_600_000

@Suite struct ExpiryClockTests {
    private let clocks = Clocks()
    private let start: UInt64 = 1_800_000_000_000

    @Test func timeGoesWithTheWallClock() {
        let clock = clocks.expiryClock()
        #expect(clock.now() == start)
        clocks.pass(25)
        #expect(clock.now() == start + 25)
        clocks.jump(ClockBound.aheadMillisecondsMax)
        #expect(clock.now() == clocks.wall, "a small step ahead is followed at once")
        clocks.jump(1)
        #expect(clock.now() == clocks.wall - 1, "no farther")
    }

    @Test func aJumpAheadIsNotFollowedBeforeItHasStood() {
        let bounded = clocks.bounded()
        let clock = ExpiryClock(bounded)
        #expect(clock.now() == start)
        clocks.jump(2 * hour)
        #expect(clock.now() == start)
        #expect(bounded.unfollowed == (UInt64(2 * hour), 1))
        #expect(clock.moment(after: 1_000) == clocks.wall + 1_000, "what begins to live now may not end early")
        clocks.jump(-2 * hour)
        #expect(clock.now() == start)
        #expect(bounded.unfollowed == (0, 1))
        #expect(clock.moment(after: 1_000) == start + 1_000)

        clocks.jump(2 * hour)
        _ = clock.now()
        clocks.pass(UInt64(ClockBound.settleMilliseconds) - 1, clock)
        #expect(clock.now() == clocks.wall - UInt64(2 * hour))
        clocks.pass(1)
        #expect(clock.now() == clocks.wall, "it has stood there long enough to be right")
        #expect(bounded.unfollowed == (0, 2))
    }

    /// Many small steps, or slewing, are no way around the bound.
    @Test func smallStepsDoNotAddUp() {
        let clock = clocks.expiryClock()
        _ = clock.now()
        for _ in 0..<50 {
            clocks.jump(50_000)
            clocks.pass(10_000)
            #expect(clock.now() <= clocks.wall)
        }
        #expect(clock.now() <= start + 50 * 10_000 + UInt64(ClockBound.aheadMillisecondsMax))
    }

    @Test func timeNeitherGoesBackNorStandsStillWhenTheWallClockGoesBack() {
        let clock = clocks.expiryClock()
        #expect(clock.now() == start)
        clocks.jump(-hour)
        #expect(clock.now() == start)
        clocks.pass(30)
        #expect(clock.now() == start + 30)
        #expect(clock.moment(after: 50) == start + 80)
    }

    /// A node that was started with a wrong clock, which is then set right.
    @Test func anEarlierTimeIsTakenWhenTheWallClockHasStoodThere() {
        clocks.jump(2 * hour)
        let clock = clocks.expiryClock()
        let wrong = clock.now()
        clocks.jump(-2 * hour)
        clocks.settle(clock)
        #expect(clock.now() == clocks.wall)
        #expect(clock.now() < wrong)
    }

    @Test func timeIsNotBehindTheNewestVersion() {
        let clock = clocks.expiryClock()
        clock.observe(Version(rawValue: (start + 700) << 16 + 3))
        #expect(clock.now() == start + 700)
        clocks.pass(5)
        #expect(clock.now() == start + 705)
        clock.observe(Version(rawValue: (start + 701) << 16))
        #expect(clock.now() == start + 705)
    }

    @Test func aVersionOfAWrongClockDoesNotTellTheTime() {
        let clock = clocks.expiryClock()
        clock.observe(Version(rawValue: (start + UInt64(2 * hour)) << 16))
        #expect(clock.now() == start)
        #expect(clock.versionAheadMilliseconds == UInt64(2 * hour))
        #expect(clock.moment(after: 1_000) == start + UInt64(2 * hour) + 1_000, "it may have been right")
    }

    /// A machine without a battery starts in 1970 and is set when it has a network.
    @Test func aClockThatNobodyHasSetYet() {
        clocks.set(1_000)
        let clock = clocks.expiryClock()
        clock.observe(Version(rawValue: start << 16))
        #expect(clock.now() == start, "the newest version is all that tells the time")
        clocks.pass(10)
        #expect(clock.now() == start + 10)
        clocks.set(start + UInt64(24 * hour))
        #expect(clock.now() == clocks.wall, "nothing speaks against the first time that there is")
    }

    @Test func whatIsDroppedForGoodIsPastByEveryClock() {
        let bounded = clocks.bounded()
        let clock = ExpiryClock(bounded)
        #expect(bounded.certainlyPast() == nil)
        clocks.pass(UInt64(ClockBound.settleMilliseconds) - 1, clock)
        #expect(bounded.certainlyPast() == nil)
        clocks.pass(1_000)
        #expect(bounded.certainlyPast() == clocks.wall)
        clocks.jump(30_000)
        #expect(clock.now() == clocks.wall)
        #expect(bounded.certainlyPast() == clocks.wall - 30_000)
        clocks.jump(-60_000)
        #expect(bounded.certainlyPast() == clocks.wall)
    }

    @Test func absurdTimesDoNotTrap() {
        func clock(_ wall: UInt64, _ steady: UInt64) -> ExpiryClock {
            ExpiryClock(BoundedClock(wallMilliseconds: { wall }, steadyMilliseconds: { steady }))
        }
        #expect(clock(.max, .max).now() >= UInt64(Int64.max))
        #expect(clock(.max, .max).moment(after: .max) > clock(.max, .max).now())
        #expect(clock(.max, 0).now() == UInt64(Int64.max))
        #expect(clock(0, .max).now() == 0)
        let told = clock(start, 0)
        told.observe(Version(rawValue: .max))
        #expect(told.now() == start)
    }
}
