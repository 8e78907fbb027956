import Synchronization

/// What time it is, told by a wall clock that is followed as far as ``ClockBound`` allows: milliseconds since the Unix epoch.
///
/// Thread-safe; without a lock as long as the clocks agree with what they said before.
public final class BoundedClock: Sendable {
    /// Both clocks at one moment.
    public struct Reading: Sendable {
        let steady: Int64
        let wall: Int64
        /// Of the time that is followed, against the steady clock.
        let offset: Int64
        /// No offset above this is believed.
        let ceiling: Int64

        /// What time it is, having heard from elsewhere of a time at `heard` from the steady clock.
        public func now(heard: Int64 = .min) -> UInt64 {
            UInt64(clamping: ClockBound.sum(steady, believes(heard) ? max(offset, heard) : offset))
        }

        /// Whether a time that was heard of is no farther ahead than a clock may be.
        public func believes(_ heard: Int64) -> Bool { heard <= ceiling }

        /// Of a version, or of whatever else tells the time.
        public func offset(of milliseconds: UInt64) -> Int64 {
            ClockBound.difference(Int64(clamping: milliseconds), steady)
        }

        /// By the wall clock, whether it is followed or not.
        public var wallMilliseconds: UInt64 { UInt64(clamping: wall) }
    }

    private let wallMilliseconds: @Sendable () -> UInt64
    private let steadyMilliseconds: @Sendable () -> UInt64
    private let bound = Mutex(ClockBound())
    // Copies of what `bound` has, for readers that change nothing.
    private let offset = Atomic<Int64>(.min)
    private let ceiling = Atomic<Int64>(.max)
    private let standing = Atomic<Int64>(.min)
    private let nextLook = Atomic<Int64>(.min)
    private let proven = Atomic<Int64>(.min)

    /// How long readers go by the copies where both clocks run as they did.
    private static let lookMilliseconds: Int64 = 1_000

    /// - Parameters:
    ///   - wallMilliseconds: since the Unix epoch; may jump either way.
    ///   - steadyMilliseconds: never goes back, and counts the time that the machine sleeps, if there is such a clock.
    public init(
        wallMilliseconds: @escaping @Sendable () -> UInt64, steadyMilliseconds: @escaping @Sendable () -> UInt64
    ) {
        self.wallMilliseconds = wallMilliseconds
        self.steadyMilliseconds = steadyMilliseconds
    }

    /// Reads both clocks. Call it every second or so also where nobody wants to know: a jump that nobody saw cannot be told
    /// from a clock that was always there.
    public func read() -> Reading {
        let steady = Int64(clamping: steadyMilliseconds())
        let wall = Int64(clamping: wallMilliseconds())
        let current = ClockBound.difference(wall, steady)
        let known = offset.load(ordering: .relaxed)
        let stood = standing.load(ordering: .relaxed)
        if current <= known, steady < nextLook.load(ordering: .relaxed),
            current >= ClockBound.difference(stood, ClockBound.slewMillisecondsMax),
            current <= ClockBound.sum(stood, ClockBound.slewMillisecondsMax)
        {
            return Reading(steady: steady, wall: wall, offset: known, ceiling: ceiling.load(ordering: .relaxed))
        }
        return look(wall: wall, steady: steady)
    }

    private func look(wall: Int64, steady: Int64) -> Reading {
        bound.withLock { bound in
            bound.read(wall: wall, steady: steady)
            offset.store(bound.offset, ordering: .relaxed)
            ceiling.store(bound.ceiling, ordering: .relaxed)
            proven.store(bound.provenOffset ?? .min, ordering: .relaxed)
            standing.store(bound.standingOffset ?? .min, ordering: .relaxed)
            nextLook.store(ClockBound.sum(steady, BoundedClock.lookMilliseconds), ordering: .relaxed)
            return Reading(steady: steady, wall: wall, offset: bound.offset, ceiling: bound.ceiling)
        }
    }

    /// A time that is past by every clock there is: the one that is followed, the wall clock as it stands now, and where the
    /// wall clock has stood for ``ClockBound/settleMilliseconds``. Nil before there is such a place.
    public func certainlyPast() -> UInt64? {
        let reading = read()
        let proven = proven.load(ordering: .relaxed)
        guard proven != .min else { return nil }
        let wall = ClockBound.difference(reading.wall, reading.steady)
        return UInt64(clamping: ClockBound.sum(reading.steady, min(proven, wall, reading.offset)))
    }

    /// How far the wall clock is ahead of the time that is followed; 0 if it is not. And how often it was found to be.
    public var unfollowed: (milliseconds: UInt64, jumps: UInt64) {
        _ = read()
        return bound.withLock { (UInt64(clamping: $0.aheadMilliseconds), $0.jumps) }
    }
}
