public import Core
public import NIOCore
import Synchronization
public import Wire

/// The acknowledgements of a shard's followers, as its leader knows them, and the writes that wait for them.
///
/// Safe from any thread. Callbacks run on the thread of whoever reports the event that ends the wait, outside of
/// the lock: hand on and return.
public final class ShardAcks: Sendable {
    public typealias Callback = @Sendable (AckOutcome) -> Void

    private let tracker: Mutex<AckTracker<Callback>>
    private let clock: ShardClock

    init(waitersMax: Int, clock: ShardClock) {
        tracker = Mutex(AckTracker(waitersMax: waitersMax))
        self.clock = clock
    }

    // MARK: Waiting

    /// The answer to a request to wait.
    public enum Wait: Sendable {
        /// The callback is not called.
        case ended(AckOutcome)
        /// The callback will be called once, unless the wait is cancelled first.
        case waiting(Token)
    }

    public struct Token: Sendable, Hashable {
        fileprivate let id: UInt64
        fileprivate let target: AckTarget
        fileprivate let lsn: UInt64
    }

    /// Makes room for writes that are going to wait, before they are made.
    ///
    /// Throws `KVError(.overloaded)` where `ackWaitersMax` writes wait already.
    public func reserve(writes: Int = 1) throws(KVError) {
        let admitted = tracker.withLock { $0.reserve(writes) }
        guard admitted else {
            throw KVError(.overloaded, "too many writes wait for followers; try again later or with ack=leader")
        }
    }

    /// Gives room back that no wait was added for.
    public func release(writes: Int = 1) { tracker.withLock { $0.release(writes) } }

    /// Waits until `target` has the batch at `lsn`.
    /// - Parameter writes: how many writes wait in this; room was made for them with ``reserve(writes:)``.
    public func wait(
        for target: AckTarget, lsn: UInt64, writes: Int = 1, _ callback: @escaping Callback
    ) -> Wait {
        switch tracker.withLock({ $0.add(target, lsn: lsn, writes: writes, callback) }) {
        case .ended(let outcome): .ended(outcome)
        case .waiting(let token): .waiting(Token(id: token.id, target: token.target, lsn: token.lsn))
        }
    }

    /// Gives a wait up, because its time is over.
    /// - Returns: how far its batch has come; nil where the callback has been called or is being called.
    public func cancel(_ token: Token) -> AckProgress? {
        let token = AckTracker<Callback>.Token(id: token.id, target: token.target, lsn: token.lsn)
        return tracker.withLock { $0.cancel(token) }
    }

    /// Waits until `target` has the batch at `lsn`, in this leader's term.
    ///
    /// The result is false where that is not so by `deadline`, where this node stops leading, and where it can never be;
    /// it comes on `eventLoop`. Fails with `KVError(.overloaded)` where too many wait.
    public func wait(
        until target: AckTarget, has lsn: UInt64, on eventLoop: any EventLoop, deadline: NIODeadline
    ) -> EventLoopFuture<Bool> {
        do throws(KVError) {
            try reserve()
        } catch {
            return eventLoop.makeFailedFuture(error)
        }
        let promise = eventLoop.makePromise(of: Bool.self)
        switch wait(for: target, lsn: lsn, { promise.succeed($0 == .reached) }) {
        case .ended(let outcome): promise.succeed(outcome == .reached)
        case .waiting(let token):
            let timer = eventLoop.scheduleTask(deadline: deadline) {
                if self.cancel(token) != nil { promise.succeed(false) }
            }
            promise.futureResult.whenComplete { _ in timer.cancel() }
        }
        return promise.futureResult
    }

    // MARK: Events

    /// This node leads the shard in `term` with these followers. To be called again when they change.
    public func lead(term: UInt64, followers: [NodeAddress]) {
        call(tracker.withLock { $0.lead(term: term, followers: followers) })
    }

    /// A follower is about to be taken out of the shard: what it has counts no more. Or it stays after all.
    public func mark(_ follower: NodeAddress, isLeaving: Bool) {
        call(tracker.withLock { $0.mark(follower, isLeaving: isLeaving) })
    }

    /// This node no longer leads the shard: every wait ends.
    public func stopLeading() { call(tracker.withLock { $0.stopLeading() }) }

    /// A follower stands at `position`. One that is not of the leader's own term, or of no follower, is ignored.
    public func acked(_ follower: NodeAddress, _ position: LogPosition) {
        let now = clock.monotonicMilliseconds()
        call(tracker.withLock { $0.acked(follower, position, atMilliseconds: now) })
    }

    private func call(_ ended: [AckTracker<Callback>.Ended]) {
        for wait in ended { wait.payload(wait.outcome) }
    }

    // MARK: Looking

    /// The shard's replicas, this leader included; 1 where it follows.
    public var replicas: Int { tracker.withLock { 1 + $0.followers.count } }

    /// What each follower that has reported in this term reported last.
    public var followers: [FollowerAck] {
        let now = clock.monotonicMilliseconds()
        return tracker.withLock { tracker in
            tracker.followers.compactMap { follower in
                follower.reported.map { reported in
                    FollowerAck(
                        address: follower.address, lsn: reported.lsn,
                        millisecondsAgo: now - min(now, reported.milliseconds))
                }
            }
        }
    }

    /// Writes that wait, and those that are admitted to.
    public var held: Int { tracker.withLock { $0.held } }
}
