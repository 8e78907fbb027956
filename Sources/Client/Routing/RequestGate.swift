import Core
import NIOCore
import Synchronization

/// Counts the requests of a client that are under way, and lets no more begin once it shuts down.
///
/// Invariant: `underWay` ≤ `limit`, whatever the requests wait for: a connection, a pause between attempts, a topology.
final class RequestGate: Sendable {
    private struct State {
        var underWay = 0
        var isClosed = false
        /// Of those who wait for the last request to end.
        var waiters: [EventLoopPromise<Void>] = []
    }

    private let limit: Int
    private let state = Mutex(State())

    init(limit: Int) { self.limit = limit }

    /// Throws `KVError(.cancelled)` after the shutdown began, `KVError(.overloaded)` where too many are under way.
    func enter() throws(KVError) {
        let refusal = state.withLock { state -> KVError? in
            if state.isClosed { return KVError(.cancelled, "the client is shut down") }
            guard state.underWay < limit else {
                return KVError(
                    .overloaded, "\(limit) requests of this client are under way: wait for some of them, then try again"
                )
            }
            state.underWay += 1
            return nil
        }
        if let refusal { throw refusal }
    }

    func leave() {
        let waiters = state.withLock { state -> [EventLoopPromise<Void>] in
            state.underWay -= 1
            assert(state.underWay >= 0)
            guard state.underWay == 0 else { return [] }
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.succeed() }
    }

    /// Lets no more requests begin, and returns when none is under way, or when `patience` is over.
    func close(patience: TimeAmount, on eventLoop: any EventLoop) async {
        let promise = eventLoop.makePromise(of: Void.self)
        let isEmpty = state.withLock { state in
            state.isClosed = true
            if state.underWay > 0 { state.waiters.append(promise) }
            return state.underWay == 0
        }
        if isEmpty { promise.succeed() }
        // The first of the two counts.
        let end = eventLoop.scheduleTask(in: patience) { promise.succeed() }
        // Never failed, except by an event loop that has stopped; then nothing is under way on it.
        _ = try? await promise.futureResult.get()
        end.cancel()
    }
}
