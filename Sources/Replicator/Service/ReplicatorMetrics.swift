import Synchronization

/// What the replicator has done since it started.
final class ReplicatorMetrics: Sendable {
    struct Totals: Sendable {
        var fetches: UInt64 = 0
        var fetchedBytes: UInt64 = 0
        var pushes: UInt64 = 0
        var pushedFrames: UInt64 = 0
        var pushedBytes: UInt64 = 0
        var pushFailures: UInt64 = 0
    }

    private let state = Mutex(Totals())

    var totals: Totals { state.withLock { $0 } }

    func fetched(bytes: Int) {
        state.withLock {
            $0.fetches += 1
            $0.fetchedBytes += UInt64(bytes)
        }
    }

    func pushed(frames: Int, bytes: Int) {
        state.withLock {
            $0.pushes += 1
            $0.pushedFrames += UInt64(frames)
            $0.pushedBytes += UInt64(bytes)
        }
    }

    func pushFailed() { state.withLock { $0.pushFailures += 1 } }
}
