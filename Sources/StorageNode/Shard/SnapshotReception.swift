import Core
import Wire

/// What a follower answers to the one who brings it a snapshot. Pure: the caller does the I/O between two calls and
/// reports what came of it.
///
/// Invariants: one transfer at a time, one part of it being written at a time; a file grows at its end only; nothing
/// changes any more while it is being installed.
struct SnapshotReception: Sendable {
    /// How long a transfer that was active keeps others out.
    static let activeMilliseconds: UInt64 = 10_000
    /// After that long without a part, what is here is given up: it takes space, and a leader has a newer one.
    static let abandonedMilliseconds: UInt64 = 3_600_000

    struct Transfer: Sendable {
        let manifest: SnapshotManifest
        /// Bytes of each file that are on disk, in the order of the manifest.
        fileprivate(set) var received: [UInt64]
        /// Nil where nothing has happened since the node started.
        fileprivate(set) var lastActiveMilliseconds: UInt64?
        /// When it was taken up where nothing has happened since.
        fileprivate var restoredMilliseconds: UInt64 = 0
        fileprivate var isWriting = false
        fileprivate var isInstalling = false

        var bytesReceived: UInt64 { received.reduce(0, +) }
        var receipt: SnapshotReceipt {
            SnapshotReceipt(
                id: manifest.id,
                files: zip(manifest.files, received).map { .init(name: $0.name, received: $1) })
        }
    }

    private(set) var transfer: Transfer?

    /// What this replica is and has, which a snapshot must go beyond.
    struct Own: Sendable {
        /// Nil if it cannot be read.
        var history: TermHistory?
        /// The highest term seen or promised.
        var newestTerm: UInt64
        /// Where it ends, at least; nil if that is not known.
        var position: LogPosition?
    }

    /// Takes up what was on disk when the node started.
    /// - Parameter received: bytes of each file, in the order of the manifest.
    mutating func restore(_ manifest: SnapshotManifest, received: [UInt64], now: UInt64) {
        transfer = Transfer(manifest: manifest, received: received, restoredMilliseconds: now)
    }

    // MARK: Beginning

    enum Beginning: Sendable, Hashable {
        case resume(SnapshotReceipt)
        /// Clear the staging folder, write the manifest, then call ``started(_:now:)`` or ``gaveUp()``.
        case start
    }

    /// - Parameter manifest: one that has been checked.
    ///
    /// Throws `KVError`: `.snapshotBusy` while another transfer is active, `.staleTerm`, `.snapshotMismatch` where the
    /// replica has more of the same history.
    mutating func begin(_ manifest: SnapshotManifest, own: Own, now: UInt64) throws(KVError) -> Beginning {
        try SnapshotReception.check(manifest, against: own)
        guard let current = transfer else { return start(now) }
        if current.manifest == manifest, !current.isInstalling, !isStarting {
            transfer?.lastActiveMilliseconds = now
            return .resume(current.receipt)
        }
        guard !isStarting, !current.isWriting, !current.isInstalling, !isActive(current, now) else {
            throw KVError(
                .snapshotBusy, "snapshot \(current.manifest.id) is being received; try again in a few seconds")
        }
        return start(now)
    }

    private var isStarting = false

    private mutating func start(_ now: UInt64) -> Beginning {
        isStarting = true
        return .start
    }

    mutating func started(_ manifest: SnapshotManifest, now: UInt64) {
        isStarting = false
        transfer = Transfer(
            manifest: manifest, received: manifest.files.map { _ in 0 }, lastActiveMilliseconds: now)
    }

    /// The staging folder could not be made ready; what was there is gone.
    mutating func gaveUp() {
        isStarting = false
        transfer = nil
    }

    private func isActive(_ transfer: Transfer, _ now: UInt64) -> Bool {
        guard let last = transfer.lastActiveMilliseconds else { return false }
        return now < last + SnapshotReception.activeMilliseconds
    }

    /// Whether a replica may take a snapshot at all.
    ///
    /// Throws `KVError(.staleTerm)`, `.snapshotMismatch`.
    static func check(_ manifest: SnapshotManifest, against own: Own) throws(KVError) {
        guard manifest.leaderTerm >= own.newestTerm else {
            throw KVError(
                .staleTerm,
                "the snapshot comes from term \(manifest.leaderTerm), this replica knows term \(own.newestTerm)")
        }
        let theirs = try SnapshotChecks.history(of: manifest)
        guard let history = own.history else {
            guard let end = own.position, end.term == theirs.end.term, end.lsn > theirs.end.lsn else { return }
            throw mismatch(theirs.end, end)
        }
        guard theirs.surplus(over: history) != nil || history.surplus(over: theirs) == nil else {
            throw mismatch(theirs.end, history.end)
        }
    }

    private static func mismatch(_ theirs: LogPosition, _ own: LogPosition) -> KVError {
        KVError(
            .snapshotMismatch,
            "the snapshot ends at lsn \(theirs.lsn), this replica has the same history up to lsn \(own.lsn)")
    }

    // MARK: Receiving

    /// Admits a part; the caller writes it and calls ``wrote(file:bytes:now:)`` or ``failedToWrite(now:)``.
    /// - Returns: the file's index in the manifest.
    ///
    /// Throws `KVError`: `.unknownSnapshot`, `.snapshotMismatch` where it does not continue the file, `.snapshotBusy`,
    /// `.invalidArgument` for one that is too large.
    mutating func part(of name: String, id: String, offset: UInt64, bytes: Int, now: UInt64) throws(KVError) -> Int {
        let current = try transfer(id)
        guard bytes <= SnapshotPart.bytesMax else {
            throw KVError(.invalidArgument, "a part of \(bytes) bytes is larger than \(SnapshotPart.bytesMax)")
        }
        guard let index = current.manifest.files.firstIndex(where: { $0.name == name }) else {
            throw KVError(.snapshotMismatch, "snapshot \(id) has no file \(name.prefix(64))")
        }
        guard !current.isWriting else {
            throw KVError(.snapshotBusy, "another part of snapshot \(id) is being written; try again in a moment")
        }
        guard offset == current.received[index] else {
            throw KVError(
                .snapshotMismatch,
                "\(name) goes on at byte \(current.received[index]), the part begins at byte \(offset)")
        }
        let size = current.manifest.files[index].bytes
        guard UInt64(bytes) <= size - offset else {
            throw KVError(.snapshotMismatch, "\(name) has \(size) bytes, the part reaches beyond them")
        }
        transfer?.isWriting = true
        transfer?.lastActiveMilliseconds = now
        return index
    }

    mutating func wrote(file index: Int, bytes: Int, now: UInt64) {
        transfer?.received[index] += UInt64(bytes)
        failedToWrite(now: now)
    }

    mutating func failedToWrite(now: UInt64) {
        transfer?.isWriting = false
        transfer?.lastActiveMilliseconds = now
    }

    private func transfer(_ id: String) throws(KVError) -> Transfer {
        guard let transfer, transfer.manifest.id == id, !isStarting else {
            throw KVError(.unknownSnapshot, "snapshot \(id.prefix(64)) is not being received")
        }
        guard !transfer.isInstalling else {
            throw KVError(.snapshotBusy, "snapshot \(id) is being installed")
        }
        return transfer
    }

    // MARK: Ending

    /// From here on nothing else happens until ``installFailed(damagedFile:now:)`` or the replica is opened anew.
    ///
    /// Throws `KVError`: `.unknownSnapshot`, `.snapshotBusy`, `.snapshotMismatch` where something is missing, and what
    /// ``check(_:against:)`` throws.
    mutating func install(id: String, own: Own) throws(KVError) -> SnapshotManifest {
        let current = try transfer(id)
        guard !current.isWriting else { throw KVError(.snapshotBusy, "a part of snapshot \(id) is being written") }
        try SnapshotReception.check(current.manifest, against: own)
        for (file, received) in zip(current.manifest.files, current.received) where received < file.bytes {
            throw KVError(
                .snapshotMismatch, "\(file.name) is not complete: \(received) of \(file.bytes) bytes are here")
        }
        transfer?.isInstalling = true
        return current.manifest
    }

    /// - Parameter damagedFile: one that was removed, to be received again.
    mutating func installFailed(damagedFile: Int?, now: UInt64) {
        transfer?.isInstalling = false
        transfer?.lastActiveMilliseconds = now
        if let damagedFile { transfer?.received[damagedFile] = 0 }
    }

    /// Whether nobody has gone on with the transfer for so long that it is to be given up.
    func isAbandoned(now: UInt64) -> Bool {
        guard let transfer, !transfer.isWriting, !transfer.isInstalling, !isStarting else { return false }
        let last = transfer.lastActiveMilliseconds ?? transfer.restoredMilliseconds
        return now >= last + SnapshotReception.abandonedMilliseconds
    }

    /// Gives the transfer up; the caller removes its files. False where there is none.
    ///
    /// Throws `KVError(.snapshotBusy)` while something is written or installed.
    mutating func discard() throws(KVError) -> Bool {
        guard let current = transfer else { return false }
        guard !current.isWriting, !current.isInstalling, !isStarting else {
            throw KVError(.snapshotBusy, "snapshot \(current.manifest.id) is being written; try again in a moment")
        }
        transfer = nil
        return true
    }
}
