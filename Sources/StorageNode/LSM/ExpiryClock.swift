public import Core
import Synchronization

/// What time it is for the values of a shard that expire, on one replica: milliseconds since the Unix epoch.
///
/// Invariants: it never goes back, and it goes on at least as fast as the monotonic clock. So what has expired once stays
/// away while the process runs, and what is to live for ten seconds does, also where somebody sets the wall clock back.
/// It is never behind the wall clock, nor behind the newest version that the replica has, which is of the leader's clock:
/// a replica that is restarted or takes over goes on from there.
///
/// Thread-safe.
public final class ExpiryClock: Sendable {
    private let wallMilliseconds: @Sendable () -> UInt64
    private let monotonicMilliseconds: @Sendable () -> UInt64
    /// Of the newest version.
    private let versionMilliseconds = Atomic<UInt64>(0)
    /// The most that the time has been ahead of the monotonic clock.
    private let offset = Atomic<Int64>(.min)

    /// - Parameters:
    ///   - wallMilliseconds: since the Unix epoch; may jump either way.
    ///   - monotonicMilliseconds: never goes back.
    public init(
        wallMilliseconds: @escaping @Sendable () -> UInt64, monotonicMilliseconds: @escaping @Sendable () -> UInt64
    ) {
        self.wallMilliseconds = wallMilliseconds
        self.monotonicMilliseconds = monotonicMilliseconds
    }

    /// Takes notice of the newest version. Called by the shard's writer alone, with rising versions.
    public func observe(_ version: Version) { versionMilliseconds.store(version.milliseconds, ordering: .relaxed) }

    /// The moment at which a value is gone that is stored now.
    /// - Parameter milliseconds: how long it lives, up to ``Core/Limits/ttlMillisecondsMax``; more is cut to that.
    public func moment(after milliseconds: UInt64) -> UInt64 { ExpiryClock.moment(milliseconds, after: now()) }

    public static func moment(_ milliseconds: UInt64, after now: UInt64) -> UInt64 {
        now + min(milliseconds, Limits.ttlMillisecondsMax)
    }

    public func now() -> UInt64 {
        let monotonic = Int64(clamping: monotonicMilliseconds())
        let time = Int64(clamping: max(wallMilliseconds(), versionMilliseconds.load(ordering: .relaxed)))
        let current = time.subtractingReportingOverflow(monotonic).partialValue
        let known = offset.load(ordering: .relaxed)
        let newest = current > known ? offset.max(current, ordering: .relaxed).newValue : known
        return UInt64(clamping: monotonic.addingReportingOverflow(newest).partialValue)
    }
}
