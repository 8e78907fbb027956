import Core
import Dispatch
import LSM
import Logging
public import NIOCore
import Synchronization
import Wire

/// A part of a snapshot's file.
public struct SnapshotPart: Sendable {
    /// The most that is read or taken at once.
    public static let bytesMax = 4 << 20

    public var bytes: ByteBuffer
    /// CRC-32C of `bytes`.
    public var checksum: UInt32

    /// As header fields and manifests have it: eight hex digits.
    public var checksumText: String { SnapshotChecks.text(checksum) }

    /// Nil for anything but eight hex digits.
    public static func checksum(_ text: some StringProtocol) -> UInt32? { SnapshotChecks.checksum(text) }
}

/// The checkpoints that a leader gives out for its followers to be rebuilt from.
///
/// Thread-safe; every call blocks, so none belongs on an event loop. A checkpoint is a folder of hard links in
/// `snapshots/` of the replica's directory: it costs little until compaction replaces its tables, and it is removed
/// with its last user or after ``SnapshotLeases/idleMillisecondsMax`` without one. What an earlier process left is removed at the start.
final class SnapshotSource: Sendable {
    /// How long a checkpoint may hold a batch that is written and not yet committed.
    private static let commitWaitMilliseconds = 10_000

    private struct State {
        var leases = SnapshotLeases()
        var manifests: [String: SnapshotManifest] = [:]
        var isClosed = false
    }

    private let configuration: ShardConfiguration
    private let database: Database
    private let log: ShardLog
    private let shared: SharedResources
    private let clock: ShardClock
    private let logger: Logger
    private let state = Mutex(State())

    private var directory: String { configuration.directory + "/snapshots" }

    /// Removes what is left of earlier checkpoints.
    init(
        _ configuration: ShardConfiguration, database: Database, log: ShardLog, shared: SharedResources,
        clock: ShardClock, logger: Logger
    ) throws(KVError) {
        self.configuration = configuration
        self.database = database
        self.log = log
        self.shared = shared
        self.clock = clock
        self.logger = logger
        try Files.removeTree(directory)
    }

    // MARK: Opening

    /// Makes a checkpoint, or shares one of this term that the log still reaches back to.
    /// - Parameter leaderTerm: the term that is led now, whose first batch is in the log.
    ///
    /// Throws `KVError`: `.overloaded` while another is being made, `.corrupted` for a damaged table, `.storageFull`,
    /// `.storageFailed`, `.unavailable` once closed.
    func open(leaderTerm: UInt64, atLeast: UInt64 = 0) throws(KVError) -> SnapshotManifest {
        expire()
        // Looked up anew: RocksDB trims the log by itself too, and says nothing.
        let firstLsn = try log.lookUpFirstLsn()
        let now = clock.monotonicMilliseconds()
        let committed = log.committed
        let shareable = try state.withLock { state throws(KVError) -> SnapshotManifest? in
            guard !state.isClosed else { throw SnapshotSource.closed(configuration.name) }
            state.leases.retire(before: leaderTerm)
            guard
                case .share(let id) = try state.leases.open(
                    logFirstLsn: firstLsn, atLeast: atLeast, committed: committed, now: now)
            else { return nil }
            return state.manifests[id]
        }
        if let shareable { return shareable }
        let id = SnapshotSource.newIdentifier()
        do throws(KVError) {
            let manifest = try make(id, leaderTerm: leaderTerm)
            let position = try SnapshotChecks.history(of: manifest).end
            let isKept = state.withLock { state in
                state.leases.add(id: id, position: position, now: clock.monotonicMilliseconds())
                guard !state.isClosed else {
                    _ = state.leases.release(id: id)
                    return false
                }
                state.manifests[id] = manifest
                return true
            }
            guard isKept else { throw SnapshotSource.closed(configuration.name) }
            return manifest
        } catch {
            state.withLock { $0.leases.giveUp() }
            remove([id])
            throw error
        }
    }

    private static func closed(_ shard: String) -> KVError {
        KVError(.unavailable, "\(shard) gives no snapshots now: this node is closing it or does not lead it")
    }

    private static func newIdentifier() -> String {
        let digits = String(UInt64.random(in: 0 ... .max), radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    private func make(_ id: String, leaderTerm: UInt64) throws(KVError) -> SnapshotManifest {
        let began = clock.monotonicMilliseconds()
        let path = "\(directory)/\(id)"
        try Files.makeDirectory(directory)
        try database.checkpoint(to: path)
        let names = try Files.names(in: path) ?? []
        try LogRecovery.settle(checkpoint: path, configuration, shared)
        // What is damaged here must never take the place of a follower's good data. The checksums below read it once more,
        // most of it from memory.
        for name in names where name.hasSuffix(".sst") { try check(name, in: path) }
        let history = try SnapshotSource.history(of: path, configuration, shared)
        try waitUntilCommitted(history.end)
        var files: [SnapshotManifest.File] = []
        for name in names {
            guard SnapshotChecks.isFileName(name), let bytes = try Files.bytes(of: "\(path)/\(name)") else {
                throw KVError(.internalError, "the checkpoint \(path) holds \(name), which is no file of a checkpoint")
            }
            let checksum = try Files.checksum(of: "\(path)/\(name)")
            files.append(.init(name: name, bytes: bytes, crc32c: SnapshotChecks.text(checksum)))
        }
        let manifest = SnapshotManifest(
            // A newer term may have begun since this was asked for.
            shard: configuration.name, id: id, leaderTerm: max(leaderTerm, history.end.term),
            position: PositionDocument(shard: configuration.name, role: .leader, position: history.end),
            terms: history.starts.map(TermDocument.init), files: files)
        logger.info(
            "snapshot made",
            metadata: [
                "shard": "\(configuration.name)", "id": "\(id)", "lsn": "\(history.end.lsn)",
                "files": "\(files.count)", "bytes": "\(manifest.bytesTotal)",
                "milliseconds": "\(clock.monotonicMilliseconds() - began)",
            ])
        return manifest
    }

    // MARK: Checking

    /// Verifies every block of a table of the checkpoint in `path`.
    private func check(_ name: String, in path: String) throws(KVError) {
        // A link to the database's own file, by whose name an operator knows it.
        try TableCheck.verify(path: "\(path)/\(name)", knownAs: "\(database.path)/\(name)") { _ in
            !database.isClosing
        }
    }

    /// The history of a checkpoint, as opening it for good will find it.
    static func history(
        of path: String, _ configuration: ShardConfiguration, _ shared: SharedResources
    ) throws(KVError) -> TermHistory {
        var options = configuration.databaseOptions
        options.isReadOnly = true
        options.mustExist = true
        let checkpoint = try Database(path: path, shared: shared, options: options)
        let history = try TermHistory(of: checkpoint, shard: configuration.name)
        try checkpoint.close()
        return history
    }

    /// The checkpoint may hold a batch whose fsync is not over: shipped, a follower could have what the leader loses.
    private func waitUntilCommitted(_ position: LogPosition) throws(KVError) {
        guard position.lsn > 0 else { return }
        let reached = DispatchSemaphore(value: 0)
        guard case .waiting(let token) = try log.waitForCommit(after: position.lsn - 1, { _ in reached.signal() })
        else { return }
        _ = reached.wait(timeout: .now() + .milliseconds(SnapshotSource.commitWaitMilliseconds))
        log.cancelWait(token)
        guard log.committed.lsn >= position.lsn else {
            throw KVError(
                .unavailable, "the newest batch of \(configuration.name), lsn \(position.lsn), is still being written")
        }
    }

    // MARK: Reading

    /// Reads part of a file: `length` bytes from `offset` on, less where the file ends before.
    ///
    /// Throws `KVError`: `.unknownSnapshot`, also for a file it has not, `.invalidArgument` for a range that is none,
    /// `.storageFailed`.
    func read(id: String, file name: String, offset: UInt64, length: Int) throws(KVError) -> SnapshotPart {
        let manifest = try state.withLock { state throws(KVError) -> SnapshotManifest in
            guard let manifest = state.manifests[id],
                state.leases.touch(id: id, now: clock.monotonicMilliseconds())
            else { throw SnapshotSource.unknown(id) }
            return manifest
        }
        // The name is one that was listed in the folder, so it names a file there and nothing else.
        guard let file = manifest.files.first(where: { $0.name == name }) else {
            throw KVError(.unknownSnapshot, "snapshot \(id) has no file \(name.prefix(64))")
        }
        guard length > 0, length <= SnapshotPart.bytesMax, offset <= file.bytes else {
            throw KVError(
                .invalidArgument,
                "the part must begin within the \(file.bytes) bytes of \(name) and have 1 to "
                    + "\(SnapshotPart.bytesMax) bytes")
        }
        let count = Int(min(UInt64(length), file.bytes - offset))
        let path = "\(directory)/\(id)/\(file.name)"
        var bytes = ByteBufferAllocator().buffer(capacity: count)
        var result = Result<UInt32, KVError>.success(0)
        bytes.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { target in
            let part = UnsafeMutableRawBufferPointer(rebasing: target[..<count])
            result = Result { () throws(KVError) in
                guard try Files.read(path, at: offset, into: part) == count else {
                    throw KVError(.storageFailed, "\(path) is shorter than it was")
                }
                return CRC32C.checksum(UnsafeRawBufferPointer(part))
            }
            return count
        }
        return SnapshotPart(bytes: bytes, checksum: try result.get())
    }

    private static func unknown(_ id: String) -> KVError {
        KVError(.unknownSnapshot, "there is no snapshot \(id.prefix(64)) here any more; ask for a new one")
    }

    // MARK: Ending

    /// One user less; the checkpoint goes with the last.
    ///
    /// Throws `KVError(.unknownSnapshot)`.
    func release(id: String) throws(KVError) {
        guard let isLast = state.withLock({ $0.leases.release(id: id) }) else { throw SnapshotSource.unknown(id) }
        if isLast { remove([id]) }
    }

    /// Removes what nobody has used for a while. To be called every few seconds.
    func expire() {
        remove(state.withLock { $0.leases.expire(now: clock.monotonicMilliseconds()) })
    }

    /// Removes all of them, because this replica does not lead any more.
    func removeAll() { remove(state.withLock { $0.leases.removeAll() }) }

    func close() {
        state.withLock { $0.isClosed = true }
        removeAll()
    }

    private func remove(_ ids: [String]) {
        for id in ids {
            state.withLock { _ = $0.manifests.removeValue(forKey: id) }
            do throws(KVError) {
                try Files.removeTree("\(directory)/\(id)")
            } catch {
                // It costs space until the replica is opened anew, and nothing else.
                logger.warning("cannot remove a snapshot: \(error)", metadata: ["shard": "\(configuration.name)"])
            }
        }
    }
}
