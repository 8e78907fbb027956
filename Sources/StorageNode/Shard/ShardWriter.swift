import Core
import LSM

/// The one writer of a shard: an actor on its own thread, because writing blocks.
///
/// Writes reach it through the inbox and are drained on its executor without a task; everything else is an
/// ordinary isolated call, which runs between two batches. What it changes takes effect before the next one.
actor ShardWriter {
    private var core: WriterCore
    private var isFinished = false
    private nonisolated let executor: WriterExecutor

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(core: WriterCore) {
        self.core = core
        executor = WriterExecutor()
    }

    deinit { executor.stop() }

    /// Starts the thread. Once.
    nonisolated func start() {
        executor.start { [weak self] in self?.assumeIsolated { $0.core.drain() } }
    }

    /// Tells the writer that the inbox is no longer empty.
    nonisolated func wake() { executor.wake() }

    private func checkOpen() throws(KVError) {
        guard !isFinished else {
            throw KVError(.unavailable, "the shard \(core.configuration.name) is closed")
        }
    }

    func become(_ role: ShardRole, during hold: WriteHold?) throws(KVError) {
        try checkOpen()
        try core.become(role, during: hold)
    }

    func fence(term: UInt64, candidate: NodeAddress) throws(KVError) {
        try checkOpen()
        try core.fence(term: term, candidate: candidate)
    }

    func hold(milliseconds: UInt64) throws(KVError) -> WriteHold {
        try checkOpen()
        return try core.beginHold(milliseconds: milliseconds)
    }

    func release(_ hold: WriteHold) { core.end(hold) }

    /// What `database` holds when this replica stands exactly at `lsn`; nil for wherever it stands.
    func snapshot(
        of database: Database, at lsn: UInt64?
    ) async throws(KVError) -> (LogPosition, DatabaseSnapshot) {
        try checkOpen()
        typealias Found = Result<(LogPosition, DatabaseSnapshot), KVError>
        let found: Found = await withCheckedContinuation { continuation in
            core.stop(at: lsn) { stopped in
                let found = Found { () throws(KVError) in
                    (try stopped.get(), try DatabaseSnapshot(of: database))
                }
                continuation.resume(returning: found)
            }
        }
        return try found.get()
    }

    var stopsWaiting: Int { core.stops.count }

    /// Answers what is in the inbox, makes everything durable and runs `last` on the writer's thread.
    func finish<Value: Sendable>(_ last: @Sendable () throws(KVError) -> Value) throws(KVError) -> Value {
        isFinished = true
        core.endHold()
        core.stops.fail(KVError(.unavailable, "the shard \(core.configuration.name) is closed"))
        while core.drain() == 0 {}
        try core.syncForClose()
        return try last()
    }
}
