import Core

/// The one writer of a shard: an actor on its own thread, because writing blocks.
///
/// Writes reach it through the inbox and are drained on its executor without a task; everything else is an
/// ordinary isolated call.
actor ShardWriter {
    private var core: WriterCore
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

    var failure: KVError? { core.failure }
    var newestTerm: UInt64 { core.newestTerm }

    /// Answers what is in the inbox, makes everything durable and runs `last` on the writer's thread.
    func finish(_ last: @Sendable () throws(KVError) -> Void) throws(KVError) {
        while core.drain() == 0 {}
        try core.syncForClose()
        try last()
    }
}
