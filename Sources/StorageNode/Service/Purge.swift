import Core
import LSM
import NIOCore
import Shard
import Sharding
import Wire

extension Node {
    /// Keys that are looked at together, and removed together.
    private static let purgeKeysMax = 1_000

    /// Removes from the shards that this node leads the keys that do not belong to them by `view`, as after a change of
    /// the shards in sharding.toml. The removals are writes: followers take them from the log.
    /// - Returns: how many were removed.
    ///
    /// Throws `KVError`, and then those before it are removed.
    func purge(by view: NodeView, on eventLoop: any EventLoop) async throws -> Int {
        var removed = 0
        for (position, replica) in view.replicas.enumerated() where view.leads[position] {
            guard let replica else { continue }
            var start: [UInt8]? = [KeySpace.user]
            while let from = start {
                let found = try await snapshotWork.run(on: eventLoop) {
                    try Node.foreignKeys(in: replica, from: from) { key in
                        view.topology.position(of: HashSlot(key: key)) != position
                    }
                }.get()
                start = found.next
                guard !found.keys.isEmpty else { continue }
                removed += try await remove(found.keys, from: replica)
            }
        }
        return removed
    }

    /// - Parameter isForeign: gets a key as clients have it.
    /// - Returns: some of the foreign keys from there on, and where to go on; nil at the end.
    private static func foreignKeys(
        in replica: ShardReplica, from start: [UInt8], isForeign: (UnsafeRawBufferPointer) -> Bool
    ) throws(KVError) -> (keys: [ByteBuffer], next: [UInt8]?) {
        var keys: [ByteBuffer] = []
        var next: [UInt8]?
        try replica.database.forEachRecord(from: start) { key, _ in
            guard key.first == KeySpace.user else { return false }
            let own = UnsafeRawBufferPointer(rebasing: key[1...])
            guard isForeign(own) else { return true }
            guard keys.count < purgeKeysMax else {
                next = Array(key)
                return false
            }
            keys.append(ByteBuffer(bytes: own))
            return true
        }
        return (keys: keys, next: next)
    }

    private func remove(_ keys: [ByteBuffer], from replica: ShardReplica) async throws -> Int {
        let receipt: WriteReceipt = try await withCheckedThrowingContinuation { continuation in
            do throws(KVError) {
                try replica.submit(keys.map { .delete(key: $0) }) { continuation.resume(returning: $0) }
            } catch {
                continuation.resume(throwing: error)
            }
        }
        if let failure = receipt.failure { throw failure }
        return receipt.committed
    }
}
