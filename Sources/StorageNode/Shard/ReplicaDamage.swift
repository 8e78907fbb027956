public import Core
import Logging
import Synchronization

/// The first damage that was found in a replica.
final class ReplicaDamage: Sendable {
    private let first = Mutex<KVError?>(nil)

    var error: KVError? { first.withLock { $0 } }

    /// False if there is one already.
    func note(_ error: KVError) -> Bool {
        first.withLock { first in
            guard first == nil else { return false }
            first = error
            return true
        }
    }
}

extension ShardReplica {
    /// The first damage that was found in this replica's files; nil while none was.
    public var damage: KVError? { damaged.error }

    /// Keeps the first damage found and logs it.
    public func note(damage: KVError) {
        guard damaged.note(damage) else { return }
        logger.error("this replica is damaged: \(damage)", metadata: ["shard": "\(configuration.name)"])
    }
}
