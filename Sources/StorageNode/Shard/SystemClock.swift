#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

extension ShardClock {
    /// The machine's clocks.
    public static let system = ShardClock(
        wallMilliseconds: { read(CLOCK_REALTIME) }, monotonicMilliseconds: { read(steady) })

    // Linux stops CLOCK_MONOTONIC while the machine sleeps: the wall clock would seem to jump when it wakes.
    #if canImport(Darwin)
        private static let steady = CLOCK_MONOTONIC
    #else
        private static let steady = CLOCK_BOOTTIME
    #endif

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return UInt64(time.tv_sec) * 1_000 + UInt64(time.tv_nsec) / 1_000_000
    }
}
