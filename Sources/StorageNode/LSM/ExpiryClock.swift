public import Core
import Synchronization

/// What time it is for the values of a shard that expire, and for its versions, on one replica: milliseconds since the
/// Unix epoch.
///
/// It is that of the node's ``Core/BoundedClock``, and not behind the newest version that the replica has either, which is of
/// the leader's clock: a replica that is restarted or takes over goes on from there. A version that is farther ahead than
/// ``Core/ClockBound/aheadMillisecondsMax`` was given by a clock that was wrong, and does not tell the time. What has expired stays
/// away as long as the process runs and the wall clock does not settle at an earlier time.
///
/// Thread-safe.
public final class ExpiryClock: Sendable {
    private let clock: BoundedClock
    /// Of the newest version.
    private let versionMilliseconds = Atomic<UInt64>(0)
    /// The most that a version that was believed has been ahead of the steady clock.
    private let heard = Atomic<Int64>(.min)

    public init(_ clock: BoundedClock) { self.clock = clock }

    /// Takes notice of the newest version. Called by the shard's writer alone, with rising versions.
    public func observe(_ version: Version) { versionMilliseconds.store(version.milliseconds, ordering: .relaxed) }

    public func now() -> UInt64 { times().now }

    /// What time it is, and the moment from which lives are counted that begin now: the latest that the wall clock, the newest
    /// version or this one tells, believed or not. Whichever turns out to be right, nothing that is written now ends early.
    public func times() -> (now: UInt64, lifeBegins: UInt64) {
        let reading = clock.read()
        let newest = versionMilliseconds.load(ordering: .relaxed)
        let version = reading.offset(of: newest)
        var known = heard.load(ordering: .relaxed)
        if version > known, reading.believes(version) {
            known = heard.max(version, ordering: .relaxed).newValue
        }
        let now = reading.now(heard: known)
        return (now, max(now, newest, reading.wallMilliseconds))
    }

    /// The moment at which a value is gone that begins to live at `start`.
    /// - Parameter milliseconds: how long it lives, up to ``Core/Limits/ttlMillisecondsMax``; more is cut to that.
    public static func moment(_ milliseconds: UInt64, after start: UInt64) -> UInt64 {
        start + min(milliseconds, Limits.ttlMillisecondsMax)
    }

    /// As ``moment(_:after:)``, from now on.
    public func moment(after milliseconds: UInt64) -> UInt64 {
        ExpiryClock.moment(milliseconds, after: times().lifeBegins)
    }

    /// What has expired by then has done so by every clock: it may be dropped for good. Nil if that cannot be said yet.
    func certainlyPast() -> UInt64? { clock.certainlyPast() }

    /// How far the newest version is ahead of the time; 0 if it is not.
    public var versionAheadMilliseconds: UInt64 {
        let (now, version) = (now(), versionMilliseconds.load(ordering: .relaxed))
        return version - min(now, version)
    }
}
