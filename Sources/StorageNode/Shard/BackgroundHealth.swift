public import Core
public import LSM
import Logging
import Synchronization

/// Whether a replica's database does its work in the background: flushes and compactions, of which no request is told when
/// they fail. Thread-safe.
public final class BackgroundHealth: Sendable {
    public enum Change: Sendable, Hashable {
        case failed(String)
        case recovered
    }

    private struct State {
        var errors: UInt64 = 0
        var failure: KVError?
    }

    private let state = Mutex(State())

    public init() {}

    /// Why work in the background does not go on; nil while it does.
    public var failure: KVError? { state.withLock { $0.failure } }

    /// RocksDB tries again by itself, where an error may pass. It has recovered when writes are taken, nothing has failed since
    /// the last look and nothing waits to be done: after an error that stops its work, what is due stays due.
    public func note(_ work: Database.BackgroundWork, shard: String) -> Change? {
        state.withLock { state in
            let isNew = work.errors > state.errors
            state.errors = work.errors
            if isNew || work.stopped != nil {
                let reason = work.stopped ?? "\(work.errors) flushes or compactions have failed"
                let isKnown = state.failure != nil
                state.failure = KVError(
                    .storageFailed,
                    "the database of \(shard) cannot write its tables: see that its disk is well and has free space: \(reason)"
                )
                return isKnown ? nil : .failed(reason)
            }
            guard state.failure != nil, !work.isPending else { return nil }
            state.failure = nil
            return .recovered
        }
    }
}

extension ShardReplica {
    /// Looks at the database's work in the background, and says once when it fails or goes on again. Blocks shortly.
    public func lookAtBackgroundWork() {
        // A database that is closed meanwhile is no news.
        guard let work = try? database.backgroundWork() else { return }
        if work.isCorrupted, let reason = work.stopped {
            note(damage: KVError(.corrupted, "a flush or compaction came upon damage: \(reason)"), foundBy: .background)
        }
        switch background.note(work, shard: configuration.name) {
        case .failed(let reason):
            logger.error(
                "the database cannot write its tables, and will stop taking writes: see that its disk is well and has free space",
                metadata: ["shard": "\(configuration.name)", "reason": "\(reason)"])
        case .recovered:
            logger.notice("the database writes its tables again", metadata: ["shard": "\(configuration.name)"])
        case nil: break
        }
    }
}
