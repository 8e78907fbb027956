import Core
import Synchronization

/// The log frames that a replicator has in memory, of all shards: in windows, read ahead and on their way to followers.
///
/// Shares bound what is usual (``ReplicationLimits/shared(shards:followers:)``). This bounds frames that are larger than a
/// share, which only wait for nobody: a node that takes none, or takes them slowly, holds no more than its own part, and
/// windows keep none while the budget is tight.
final class ReplicationBudget: Sendable {
    private let limits: ReplicationLimits
    private let used = Atomic<Int>(0)
    private let largePushes = Mutex<[NodeAddress: Int]>([:])

    init(_ limits: ReplicationLimits) { self.limits = limits }

    var bytesMax: Int { limits.framesBytesMax }
    var usedBytes: Int { used.load(ordering: .relaxed) }

    /// Windows keep no frame that is larger than their share.
    var isTight: Bool { usedBytes > limits.framesBytesMax / 2 }

    /// Counts frames in, until the last copy of them goes.
    func charge(_ bytes: Int) -> Charge { Charge(self, bytes) }

    final class Charge: Sendable {
        let budget: ReplicationBudget
        private let bytes: Int

        fileprivate init(_ budget: ReplicationBudget, _ bytes: Int) {
            self.budget = budget
            self.bytes = bytes
            budget.used.add(bytes, ordering: .relaxed)
        }

        deinit { budget.used.subtract(bytes, ordering: .relaxed) }
    }

    /// Whether a push that is larger than a share may go to `follower` now; then ``endLargePush(_:to:)`` ends it.
    /// - Parameter isInTurn: bounded otherwise, and let through.
    func beginLargePush(_ bytes: Int, to follower: NodeAddress, isInTurn: Bool) -> Bool {
        largePushes.withLock { pushes in
            let before = pushes[follower] ?? 0
            guard isInTurn || before == 0 || before + bytes <= limits.largePushesBytesMax else { return false }
            pushes[follower] = before + bytes
            return true
        }
    }

    func endLargePush(_ bytes: Int, to follower: NodeAddress) {
        largePushes.withLock { pushes in
            let left = (pushes[follower] ?? 0) - bytes
            pushes[follower] = left > 0 ? left : nil
        }
    }
}
