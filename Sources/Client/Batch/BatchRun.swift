import Core
package import NIOCore
import Wire

/// What a batch needs of the process it runs in. Every call comes on the batch's event loop.
package protocol BatchEnvironment: AnyObject {
    /// By the position of their shard, as of now.
    var batchLeaders: [BatchProgress.Leader] { get }
    /// The position of an operation's shard among ``batchLeaders``.
    func batchShard(of operation: Int) -> Int
    /// Sends a part, and completes on the event loop, now or later, by `deadline` or soon after.
    func sendBatch(_ part: BatchProgress.Part, deadline: NIODeadline, completion: @escaping (BatchAnswer) -> Void)
    /// Looks for a newer topology, or waits a little, before what failed is sent again.
    /// - Parameter attempt: how often it was sent, from 1.
    func prepareBatch(forAttemptAfter attempt: Int, completion: @escaping () -> Void)
}

/// One batch on its way: carries out what ``BatchProgress`` decides. Confined to its event loop.
package final class BatchRun {
    private var progress: BatchProgress
    private let environment: any BatchEnvironment
    private let deadline: NIODeadline
    private let completion: ([BatchLine]) -> Void
    private var isPreparing = false
    private var isAdvancing = false
    private var isComplete = false

    private init(
        _ progress: BatchProgress, _ environment: any BatchEnvironment, deadline: NIODeadline,
        completion: @escaping ([BatchLine]) -> Void
    ) {
        self.progress = progress
        self.environment = environment
        self.deadline = deadline
        self.completion = completion
    }

    /// Runs the batch; `completion` gets a line for each operation, in order, once.
    package static func start(
        _ operations: [BatchProgress.Operation], policy: BatchProgress.Policy, in environment: any BatchEnvironment,
        deadline: NIODeadline, completion: @escaping ([BatchLine]) -> Void
    ) {
        BatchRun(
            BatchProgress(operations, policy: policy), environment, deadline: deadline, completion: completion
        ).advance()
    }

    private func advance() {
        // An answer that is there at once comes back in here: the loop below goes on with it.
        guard !isAdvancing else { return }
        isAdvancing = true
        defer { isAdvancing = false }
        while !isComplete {
            switch progress.step {
            case .complete:
                isComplete = true
                completion(progress.results)
            case .receive: return
            case .send:
                if NIODeadline.now() >= deadline { return giveUp() }
                let parts = progress.nextParts(
                    leaders: environment.batchLeaders, shard: environment.batchShard)
                if parts.isEmpty, progress.step == .send { return }
                for part in parts { send(part) }
            case .wait(let attempt):
                if NIODeadline.now() >= deadline { return giveUp() }
                return prepare(attempt)
            }
        }
    }

    private func giveUp() {
        progress.giveUp(Problem(.upstreamTimeout, "The batch's time was over before this operation was sent."))
        guard progress.step == .complete, !isComplete else { return }
        isComplete = true
        completion(progress.results)
    }

    private func send(_ part: BatchProgress.Part) {
        environment.sendBatch(part, deadline: deadline) { answer in
            self.progress.received(answer, of: part)
            self.advance()
        }
    }

    private func prepare(_ attempt: Int) {
        guard !isPreparing else { return }
        isPreparing = true
        environment.prepareBatch(forAttemptAfter: attempt) {
            self.isPreparing = false
            self.progress.resume()
            self.advance()
        }
    }
}
