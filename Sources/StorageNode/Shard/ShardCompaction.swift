import Core
import LSM
import Logging
import Synchronization
public import Wire

/// Compactions of one replica that somebody asks for: one at a time, on a thread of its own. Thread-safe.
final class ShardCompaction: Sendable {
    private struct State {
        var document: CompactionDocument
        var since: UInt64 = 0
    }

    private let database: Database
    private let damage: ReplicaDamage
    private let clock: ShardClock
    private let logger: Logger
    private let state: Mutex<State>

    init(shard: String, database: Database, damage: ReplicaDamage, clock: ShardClock, logger: Logger) {
        self.database = database
        self.damage = damage
        self.clock = clock
        self.logger = logger
        state = Mutex(State(document: CompactionDocument(shard: shard)))
    }

    /// The one that runs or the last one.
    var document: CompactionDocument {
        let now = clock.monotonicMilliseconds()
        return state.withLock { state in
            var document = state.document
            if document.isRunning { document.milliseconds = now - min(now, state.since) }
            return document
        }
    }

    /// Begins one where none runs.
    func start() -> CompactionDocument {
        let now = clock.monotonicMilliseconds()
        let (document, begins) = state.withLock { state in
            guard !state.document.isRunning else { return (state.document, false) }
            state.document = CompactionDocument(
                shard: state.document.shard, number: state.document.number + 1, isRunning: true)
            state.since = now
            return (state.document, true)
        }
        guard begins else { return self.document }
        logger.notice("compacting", metadata: ["shard": "\(document.shard)", "number": "\(document.number)"])
        // The thread keeps this alive, and with it the database, which a close has end the compaction.
        DedicatedThread.start { self.run() }
        return document
    }

    private func run() {
        do throws(KVError) {
            // What is in memory belongs to the size before.
            try database.flush()
            let before = try database.tableBytes()
            state.withLock { $0.document.tableBytesBefore = before }
            try database.compact()
            end(after: try database.tableBytes(), failure: nil)
        } catch {
            findDamage()
            end(after: nil, failure: error)
        }
    }

    /// RocksDB does not say why it ended a compaction, but tells whoever wants it to write a table now.
    private func findDamage() {
        do throws(KVError) {
            try database.flush()
        } catch {
            damage.note(error, foundBy: .compaction)
        }
    }

    private func end(after: UInt64?, failure: KVError?) {
        let now = clock.monotonicMilliseconds()
        let document = state.withLock { state in
            state.document.isRunning = false
            state.document.tableBytesAfter = after
            state.document.failure = failure?.message
            state.document.milliseconds = now - min(now, state.since)
            return state.document
        }
        var metadata: Logger.Metadata = [
            "shard": "\(document.shard)", "number": "\(document.number)", "milliseconds": "\(document.milliseconds)",
        ]
        if let failure {
            logger.warning("the compaction ended early: \(failure)", metadata: metadata)
            return
        }
        metadata["bytes_before"] = "\(document.tableBytesBefore ?? 0)"
        metadata["bytes_after"] = "\(after ?? 0)"
        logger.notice("compacted", metadata: metadata)
    }
}

extension ShardReplica {
    /// Begins to rewrite all tables of the replica, where that is not being done already, so that the space of what was
    /// overwritten, removed or has expired is free again; see ``LSM/Database/compact()``. Returns at once.
    public func startCompaction() -> CompactionDocument { compaction.start() }

    /// The compaction that runs or was the last; with number 0 where none was asked for since the replica was opened.
    public var lastCompaction: CompactionDocument { compaction.document }

    /// Has what is old rewritten, so that what has expired in it goes; to be called every hour or so. Blocks shortly.
    public func rewriteOldTables() {
        do throws(KVError) {
            try database.rewriteOldTables()
        } catch {
            // It costs space and nothing else; the next round tries again.
            logger.warning("\(error)", metadata: ["shard": "\(configuration.name)"])
        }
    }
}
