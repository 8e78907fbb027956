/// Finds the longest time without a success: how long something was not available, as its users saw it.
///
/// A stream of successes at a steady pace has gaps of that pace; what is much longer is an outage.
public struct GapFinder: Sendable {
    public struct Gap: Sendable, Hashable {
        /// Nanoseconds from the start.
        public var start: UInt64
        /// Nanoseconds.
        public var length: UInt64
    }

    private var last: UInt64 = 0
    /// Of those that have ended; the first of several equally long ones.
    private var ended = Gap(start: 0, length: 0)

    /// Time is counted from here.
    public init() {}

    /// Notes a success. One that is told late, after a later one, changes nothing: the later one has ended the gap.
    /// - Parameter nanoseconds: from the start.
    public mutating func succeeded(at nanoseconds: UInt64) {
        guard nanoseconds > last else { return }
        if nanoseconds - last > ended.length { ended = Gap(start: last, length: nanoseconds - last) }
        last = nanoseconds
    }

    /// The longest gap up to `end`, the one included that has not ended by then.
    public func longest(until end: UInt64) -> Gap {
        let open = Gap(start: last, length: end - min(end, last))
        return open.length > ended.length ? open : ended
    }
}
