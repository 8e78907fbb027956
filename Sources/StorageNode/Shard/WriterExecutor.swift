import Dispatch
import Synchronization

/// A serial executor on a thread of its own, for an actor whose work blocks: writing and fsync.
///
/// Besides the actor's jobs it runs a drain function whenever it is woken, so that work handed over through an
/// inbox costs no task. The thread ends after ``stop()``; the actor calls that from its deinit, when no job can
/// follow.
final class WriterExecutor: SerialExecutor, Sendable {
    private struct State {
        var jobs: [UnownedJob] = []
        /// The semaphore was signalled and the thread has not looked since.
        var isSignalled = false
        var isStopping = false
    }

    private let state = Mutex(State())
    private let semaphore = DispatchSemaphore(value: 0)
    private let threadIdentifier = Atomic<UInt>(0)

    /// Starts the thread.
    /// - Parameter drain: runs on the thread after each wake; returns the milliseconds after which it wants to run
    ///   again by itself, nil for never.
    func start(drain: @escaping @Sendable () -> UInt64?) {
        DedicatedThread.start { [self] in run(drain) }
    }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        let mustSignal = state.withLock { state in
            state.jobs.append(job)
            defer { state.isSignalled = true }
            return !state.isSignalled
        }
        if mustSignal { semaphore.signal() }
    }

    /// Makes the thread drain.
    func wake() {
        let mustSignal = state.withLock { state in
            defer { state.isSignalled = true }
            return !state.isSignalled
        }
        if mustSignal { semaphore.signal() }
    }

    func stop() {
        state.withLock { $0.isStopping = true }
        wake()
    }

    func checkIsolated() {
        precondition(isOnThread, "not on the writer's thread")
    }

    func isIsolatingCurrentContext() -> Bool? { isOnThread }

    private var isOnThread: Bool {
        threadIdentifier.load(ordering: .relaxed) == DedicatedThread.currentIdentifier
    }

    private func run(_ drain: @Sendable () -> UInt64?) {
        threadIdentifier.store(DedicatedThread.currentIdentifier, ordering: .relaxed)
        while true {
            let (jobs, isStopping) = state.withLock { state in
                state.isSignalled = false
                defer { state.jobs = [] }
                return (state.jobs, state.isStopping)
            }
            for job in jobs { job.runSynchronously(on: asUnownedSerialExecutor()) }
            if isStopping, jobs.isEmpty { return }
            if let milliseconds = drain() {
                if milliseconds > 0 { _ = semaphore.wait(timeout: .now() + .milliseconds(Int(milliseconds))) }
            } else {
                semaphore.wait()
            }
        }
    }
}
