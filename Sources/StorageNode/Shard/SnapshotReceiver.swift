public import Core
import LSM
public import NIOCore
import Synchronization
public import Wire

/// The snapshot that a follower is receiving: its files as far as they are here, in a folder beside the database.
///
/// Thread-safe. Every call but ``receipt`` and ``progress`` blocks on the disk. What was received survives a restart
/// of the node: the files' sizes on disk are the receipt.
public final class SnapshotReceiver: Sendable {
    private struct State {
        var reception = SnapshotReception()
        var rate = TransferRate()
        var bytesReceived: UInt64 = 0
    }

    private let configuration: ShardConfiguration
    private let folder: SnapshotFolder
    private let shared: SharedResources
    private let clock: ShardClock
    private let freeBytes: @Sendable (String) -> UInt64?
    private let state = Mutex(State())

    /// Takes up what an earlier process left.
    init(
        _ configuration: ShardConfiguration, shared: SharedResources, clock: ShardClock,
        freeBytes: @escaping @Sendable (String) -> UInt64? = Files.freeBytes
    ) throws(KVError) {
        self.configuration = configuration
        self.shared = shared
        self.clock = clock
        self.freeBytes = freeBytes
        folder = SnapshotFolder(directory: configuration.directory)
        guard let left = try folder.restore(shard: configuration.name) else { return }
        state.withLock {
            $0.reception.restore(left.manifest, received: left.received, now: clock.monotonicMilliseconds())
        }
    }

    // MARK: Looking

    /// What is here; nil where no snapshot is being received. Does not block.
    public var receipt: SnapshotReceipt? { state.withLock { $0.reception.transfer?.receipt } }

    /// How far it is; nil where no snapshot is being received. Does not block.
    public var progress: SnapshotProgress? {
        state.withLock { state in
            guard let transfer = state.reception.transfer else { return nil }
            return state.rate.progress(
                done: transfer.bytesReceived, total: transfer.manifest.bytesTotal, now: clock.monotonicMilliseconds())
        }
    }

    /// Bytes of all snapshots received since the replica was opened. Does not block.
    public var bytesReceived: UInt64 { state.withLock { $0.bytesReceived } }

    // MARK: Receiving

    /// Begins a transfer, or goes on with the one that is here.
    ///
    /// Throws `KVError`: `.invalidArgument` for a manifest that is none, `.snapshotBusy` while another transfer is
    /// active, `.staleTerm` for an old leader's, `.snapshotMismatch` where the replica has more of the same history,
    /// `.storageFull` where the disk has no room for it, `.storageFailed`.
    /// - Parameter own: what the replica has, asked for once the manifest is known to be one.
    func begin(
        _ manifest: SnapshotManifest, own: () throws(KVError) -> SnapshotReception.Own
    ) throws(KVError) -> (receipt: SnapshotReceipt, isNew: Bool) {
        try SnapshotChecks.check(manifest, shard: configuration.name)
        let own = try own()
        let beginning = try state.withLock { state throws(KVError) in
            try state.reception.begin(manifest, own: own, now: clock.monotonicMilliseconds())
        }
        if case .resume(let receipt) = beginning { return (receipt, false) }
        do throws(KVError) {
            try folder.clear()
            if let free = freeBytes(configuration.directory), free < manifest.bytesTotal {
                throw KVError(
                    .storageFull,
                    "a snapshot of \(manifest.bytesTotal) bytes does not fit on the disk, which has \(free) free: "
                        + "make room beside \(configuration.directory)")
            }
            try folder.start(manifest)
        } catch {
            state.withLock { $0.reception.gaveUp() }
            throw error
        }
        return state.withLock { state in
            state.rate = TransferRate()
            state.reception.started(manifest, now: clock.monotonicMilliseconds())
            return (state.reception.transfer?.receipt ?? SnapshotReceipt(id: manifest.id, files: []), true)
        }
    }

    /// Appends a part to a file.
    /// - Parameter checksum: CRC-32C of `bytes`.
    ///
    /// Throws `KVError`: `.unknownSnapshot`, `.snapshotMismatch` where the part does not continue the file,
    /// `.snapshotBusy` while another part is being written, `.invalidArgument` for a checksum that does not hold or too
    /// many bytes, `.storageFull` and `.storageFailed`: what was received before is kept.
    public func append(
        _ bytes: ByteBuffer, to name: String, at offset: UInt64, id: String, checksum: UInt32
    ) throws(KVError) -> SnapshotReceipt {
        let now = clock.monotonicMilliseconds()
        let (index, file) = try state.withLock { state throws(KVError) in
            let index = try state.reception.part(
                of: name, id: id, offset: offset, bytes: bytes.readableBytes, now: now)
            return (index, state.reception.transfer?.manifest.files[index])
        }
        let written: Result<Void, KVError> = bytes.withUnsafeReadableBytes { bytes in
            Result { () throws(KVError) in
                guard CRC32C.checksum(bytes) == checksum else {
                    throw KVError(
                        .invalidArgument, "the checksum of the part of \(name) at byte \(offset) does not hold")
                }
                if let file { try folder.append(bytes, to: file, at: offset) }
            }
        }
        return try state.withLock { state throws(KVError) in
            let now = clock.monotonicMilliseconds()
            if case .failure(let error) = written {
                state.reception.failedToWrite(now: now)
                throw error
            }
            state.reception.wrote(file: index, bytes: bytes.readableBytes, now: now)
            state.bytesReceived += UInt64(bytes.readableBytes)
            let done = state.reception.transfer?.bytesReceived ?? 0
            state.rate.note(bytes: done, now: now)
            return SnapshotReceipt(id: id, files: [.init(name: name, received: offset + UInt64(bytes.readableBytes))])
        }
    }

    /// Gives the transfer up and removes its files; returns what was there, nil where nothing was.
    /// - Parameter id: of the one that is meant; nil for whichever is there.
    ///
    /// Throws `KVError(.snapshotBusy)` while something is written or installed, `.storageFailed`.
    public func discard(id: String? = nil) throws(KVError) -> SnapshotReceipt? {
        let (receipt, isThere) = try state.withLock { state throws(KVError) -> (SnapshotReceipt?, Bool) in
            guard let receipt = state.reception.transfer?.receipt, id == nil || id == receipt.id else {
                return (nil, false)
            }
            return (receipt, try state.reception.discard())
        }
        if isThere { try folder.clear() }
        return receipt
    }

    /// Gives up a transfer that nobody went on with for an hour. To be called from time to time.
    func giveUpAbandoned() throws(KVError) {
        guard
            let id = state.withLock({ state in
                state.reception.isAbandoned(now: clock.monotonicMilliseconds())
                    ? state.reception.transfer?.manifest.id : nil
            })
        else { return }
        _ = try discard(id: id)
    }

    // MARK: Installing

    /// Reads everything back that was received. Nothing else is taken from here on, until the replica is opened anew
    /// or ``cancelInstall()``.
    ///
    /// Throws `KVError`, and goes on receiving: `.unknownSnapshot`, `.snapshotBusy`, `.staleTerm`; `.snapshotMismatch`
    /// where something is missing or damaged: a damaged file is removed, to be received again.
    func prepareInstall(
        id: String, own: (SnapshotManifest) throws(KVError) -> SnapshotReception.Own
    ) throws(KVError) -> SnapshotManifest {
        guard let asked = state.withLock({ $0.reception.transfer?.manifest }), asked.id == id else {
            throw KVError(.unknownSnapshot, "snapshot \(id.prefix(64)) is not being received")
        }
        let own = try own(asked)
        let manifest = try state.withLock { state throws(KVError) in try state.reception.install(id: id, own: own) }
        var damaged: Int?
        do throws(KVError) {
            for (index, file) in manifest.files.enumerated() where try !folder.isIntact(file) {
                damaged = index
                try folder.remove(file)
                throw KVError(
                    .snapshotMismatch,
                    "\(file.name) is damaged on disk and has to be received again: its checksum "
                        + "does not hold")
            }
            let found = try SnapshotSource.history(of: folder.staging, configuration, shared)
            guard found == (try SnapshotChecks.history(of: manifest)) else {
                throw KVError(
                    .corrupted,
                    "snapshot \(id) ends at \(found.end) and not at \(manifest.position.lsn) as its "
                        + "manifest says: give it up and take another")
            }
        } catch {
            let damaged = damaged
            state.withLock { $0.reception.installFailed(damagedFile: damaged, now: clock.monotonicMilliseconds()) }
            throw error
        }
        return manifest
    }

    func cancelInstall() {
        state.withLock { $0.reception.installFailed(damagedFile: nil, now: clock.monotonicMilliseconds()) }
    }
}
