public import Core
import LSM
import Logging
import NIOCore
import Synchronization

/// What came upon damage in a replica.
public enum DamageFinder: String, Sendable {
    case read, scan, digest, snapshot, scrub, compaction, background, write
}

/// The first damage that was found in a replica's own files: it makes the replica one to be rebuilt, and stays.
///
/// Thread-safe; looking takes no lock.
final class ReplicaDamage: Sendable {
    private final class Found: Sendable {
        let error: KVError
        init(_ error: KVError) { self.error = error }
    }

    private let first = AtomicLazyReference<Found>()
    private let shard: String
    private let logger: Logger

    init(shard: String, logger: Logger) {
        self.shard = shard
        self.logger = logger
    }

    var error: KVError? { first.load()?.error }

    /// Keeps the first one and logs it. Anything but `.corrupted` is no damage.
    func note(_ error: KVError, foundBy finder: DamageFinder) {
        guard error.code == .corrupted, first.load() == nil else { return }
        let found = Found(error)
        guard first.storeIfNil(found) === found else { return }
        logger.error(
            "this replica is damaged: \(error)", metadata: ["shard": "\(shard)", "found by": "\(finder.rawValue)"])
    }

    /// What `body` returns; damage that it meets is noted.
    func noting<Value: ~Copyable>(
        _ finder: DamageFinder, _ body: () throws(KVError) -> Value
    ) throws(KVError) -> Value {
        do throws(KVError) {
            return try body()
        } catch {
            note(error, foundBy: finder)
            throw error
        }
    }
}

extension ShardReplica {
    /// The first damage that was found in this replica's files; nil if it knows of none. Lock-free.
    public var damage: KVError? { damaged.error }

    /// Keeps the first damage that was found, and logs it; nothing for an error that is no damage.
    public func note(damage: KVError, foundBy finder: DamageFinder = .background) {
        damaged.note(damage, foundBy: finder)
    }
}

/// Where the writer looks values up, with an eye on damage.
struct WatchedValues: ValueSource {
    let database: Database
    let damage: ReplicaDamage

    func read(key: ByteBuffer, tier: ReadTier, _ body: (Lookup) -> Void) throws(KVError) {
        try damage.noting(.write) { () throws(KVError) in try database.read(key: key, tier: tier, body) }
    }
}
