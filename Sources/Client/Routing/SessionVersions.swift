import Core
import Synchronization

/// The newest version that a client has written or read in each shard: what its reads have to include.
///
/// Kept by the shard's name, so a change of the topology keeps it. Bounded by the number of shards.
final class SessionVersions: Sendable {
    private let versions = Mutex<[String: Version]>([:])

    /// nil where nothing was written or read in that shard yet.
    func newest(of shard: String) -> Version? { versions.withLock { $0[shard] } }

    func note(_ version: Version, in shard: String) {
        versions.withLock { versions in
            if version > versions[shard] ?? .zero { versions[shard] = version }
        }
    }

    /// Drops what is known of the shard, unless it is newer than `version`.
    func forget(_ version: Version, in shard: String) {
        versions.withLock { versions in
            if let newest = versions[shard], newest <= version { versions[shard] = nil }
        }
    }
}
