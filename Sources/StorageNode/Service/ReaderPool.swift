import Core
import NIOCore
import NIOPosix
import Synchronization

/// Threads for reads that may touch the disk, with a bound on the reads that wait.
final class ReaderPool: Sendable {
    let threads: NIOThreadPool
    private let waitingMax: Int
    private let running = Atomic<Int>(0)

    /// - Parameters:
    ///   - threads: reads that run at once.
    ///   - waitingMax: reads that run or wait; more are refused.
    init(threads: Int, waitingMax: Int) {
        self.threads = NIOThreadPool(numberOfThreads: threads)
        self.waitingMax = waitingMax
        self.threads.start()
    }

    /// Runs `work` on a thread that may block. Fails with `KVError(.overloaded)` at once where too many wait.
    func run<Value: Sendable>(
        on eventLoop: any EventLoop, _ work: @escaping @Sendable () throws -> Value
    ) -> EventLoopFuture<Value> {
        guard running.add(1, ordering: .relaxed).newValue <= waitingMax else {
            running.subtract(1, ordering: .relaxed)
            return eventLoop.makeFailedFuture(
                KVError(.overloaded, "more than \(waitingMax) reads wait for the disk; try again later"))
        }
        return threads.runIfActive(eventLoop: eventLoop) {
            defer { self.running.subtract(1, ordering: .relaxed) }
            return try work()
        }
    }

    func shutdown() async throws { try await threads.shutdownGracefully() }
}
