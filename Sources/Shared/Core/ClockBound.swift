/// Decides how far a wall clock is followed that may jump either way: at once as far as
/// ``aheadMillisecondsMax``, and farther only when it has stood there for ``settleMilliseconds``. No I/O, no clock of its own.
///
/// Offsets are wall clock minus steady clock, in milliseconds: a wall clock that is right has one that stays.
///
/// Invariants: between two times at which the wall clock has settled, ``offset`` does not fall; it is never more than
/// ``aheadMillisecondsMax`` above ``settled``, the newest offset that was settled or that the process began with.
///
/// A wall clock before ``unsetMillisecondsMax`` has not been set yet, as on a machine without a battery: nothing can be said
/// against it, and the first reading of one that has been set is taken at once.
public struct ClockBound: Sendable {
    /// How far the time may run ahead of where the wall clock was seen to stand.
    public static let aheadMillisecondsMax: Int64 = 60_000
    /// How long a wall clock must have stood where it jumped to before it is believed, forward or back. As NTP's own wait
    /// before it steps a clock (WATCH in RFC 5905, appendix A.1.1).
    public static let settleMilliseconds: Int64 = 900_000
    /// The first of January 2024, before there was this program: an earlier clock is one that nobody has set.
    public static let unsetMillisecondsMax: Int64 = 1_704_067_200_000
    /// Offsets that differ by less are of one clock, which is being slewed.
    static let slewMillisecondsMax: Int64 = 5_000

    /// Of the time that is followed.
    public private(set) var offset: Int64 = .min
    /// Nil before the wall clock is set.
    public private(set) var settled: Int64?
    /// Whether ``settled`` has been stood at, rather than only been read once at the start.
    public private(set) var isProven = false
    /// How far the wall clock is ahead of the time that is followed.
    public private(set) var aheadMilliseconds: Int64 = 0
    /// How often the wall clock was found ahead and not followed.
    public private(set) var jumps: UInt64 = 0
    /// Since when readings have agreed with one another.
    private var standing: (offset: Int64, since: Int64)?

    public init() {}

    /// No time is believed that is farther ahead.
    public var ceiling: Int64 { settled.map { ClockBound.sum($0, ClockBound.aheadMillisecondsMax) } ?? .max }

    /// What may be taken for past beyond recall: nil before the wall clock has settled.
    public var provenOffset: Int64? { isProven ? settled : nil }

    /// Where readings have to be for nothing to change; nil before the first.
    public var standingOffset: Int64? { standing?.offset }

    /// Takes notice of a reading of both clocks.
    public mutating func read(wall: Int64, steady: Int64) {
        let current = ClockBound.difference(wall, steady)
        guard wall >= ClockBound.unsetMillisecondsMax else {
            if settled == nil { offset = max(offset, current) }
            standing = nil
            return note(ahead: 0)
        }
        guard settled != nil else { return begin(at: current, steady) }
        if let standing, abs(ClockBound.difference(current, standing.offset)) <= ClockBound.slewMillisecondsMax {
            if ClockBound.difference(steady, standing.since) >= ClockBound.settleMilliseconds {
                settle(at: current, steady)
            }
        } else {
            standing = (current, steady)
        }
        if current <= ceiling { offset = max(offset, current) }
        note(ahead: max(0, ClockBound.difference(current, offset)))
    }

    private mutating func begin(at current: Int64, _ steady: Int64) {
        settled = current
        standing = (current, steady)
        offset = offset > ceiling ? current : max(offset, current)
    }

    private mutating func settle(at current: Int64, _ steady: Int64) {
        isProven = true
        settled = current
        standing = (current, steady)
        if offset > ceiling { offset = current }
    }

    private mutating func note(ahead: Int64) {
        if aheadMilliseconds == 0, ahead > 0 { jumps += 1 }
        aheadMilliseconds = ahead
    }

    static func sum(_ left: Int64, _ right: Int64) -> Int64 {
        let (sum, overflows) = left.addingReportingOverflow(right)
        return overflows ? (left < 0 ? .min : .max) : sum
    }

    static func difference(_ left: Int64, _ right: Int64) -> Int64 {
        let (difference, overflows) = left.subtractingReportingOverflow(right)
        return overflows ? (left < 0 ? .min + 1 : .max) : difference
    }
}
