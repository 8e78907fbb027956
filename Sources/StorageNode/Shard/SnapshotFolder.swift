import Core
import LSM
import Wire

/// Where a replica keeps a snapshot on its way in, and how that takes the database's place.
///
///     db/            the database
///     db.new/        the snapshot's files as far as they are here; with a file SNAPSHOT-COMPLETE it is to take db's
///                    place, whatever happens
///     db.new.json    the snapshot's manifest
///     db.old/        the database before, on its way out
///     db.damaged/    a damaged database that was kept, because it may be the only place of some writes; stays
///
/// Every call blocks.
struct SnapshotFolder: Sendable {
    static let completeMark = "SNAPSHOT-COMPLETE"
    /// What stands in it if the database before is to be kept.
    private static let keepingMark = Array("keep the database as db.damaged\n".utf8)
    private static let manifestBytesMax = 64 << 20

    /// The replica's own directory.
    let directory: String

    var database: String { directory + "/db" }
    var staging: String { directory + "/db.new" }
    private var manifestPath: String { directory + "/db.new.json" }
    private var previous: String { directory + "/db.old" }
    /// Removed by people only.
    var setAside: String { directory + "/db.damaged" }

    // MARK: Receiving

    /// What an earlier process left, with the bytes of each file; nil where there is nothing to go on with, and then
    /// nothing is left.
    func restore(shard: String) throws(KVError) -> (manifest: SnapshotManifest, received: [UInt64])? {
        guard let manifest = try readManifest(shard: shard), let names = try Files.names(in: staging) else {
            try clear()
            return nil
        }
        let known = Set(manifest.files.map(\.name))
        for name in names where !known.contains(name) { try Files.removeTree("\(staging)/\(name)") }
        var received: [UInt64] = []
        for file in manifest.files {
            let bytes = try Files.bytes(of: "\(staging)/\(file.name)") ?? 0
            if bytes > file.bytes { try Files.removeTree("\(staging)/\(file.name)") }
            received.append(bytes > file.bytes ? 0 : bytes)
        }
        return (manifest, received)
    }

    private func readManifest(shard: String) throws(KVError) -> SnapshotManifest? {
        guard let bytes = try Files.read(manifestPath, bytesMax: SnapshotFolder.manifestBytesMax) else { return nil }
        do {
            let manifest = try DocumentCoding.decode(SnapshotManifest.self, from: bytes)
            try SnapshotChecks.check(manifest, shard: shard)
            return manifest
        } catch {
            // One that cannot be read is as good as none: the transfer begins again.
            return nil
        }
    }

    /// Clears what is there and begins with no file at all, so that nothing of another snapshot stays, an old CURRENT
    /// least of all.
    func start(_ manifest: SnapshotManifest) throws(KVError) {
        try clear()
        let document: [UInt8]
        do {
            document = try DocumentCoding.encode(manifest)
        } catch {
            throw KVError(.internalError, "the manifest cannot be written down", cause: error)
        }
        try Files.makeDirectory(staging)
        try Files.replace(manifestPath, with: document)
    }

    func clear() throws(KVError) {
        let mark = "\(staging)/\(SnapshotFolder.completeMark)"
        if Files.exists(mark) {
            // A folder that is half gone must not be taken for a complete one.
            try Files.removeTree(mark)
            try Files.sync(staging)
        }
        try Files.removeTree(manifestPath)
        try Files.removeTree(staging)
    }

    func append(_ bytes: UnsafeRawBufferPointer, to file: SnapshotManifest.File, at offset: UInt64) throws(KVError) {
        let path = "\(staging)/\(file.name)"
        try Files.append(bytes, to: path, at: offset)
        // File by file, so that the install does not have to wait for all of it.
        if offset + UInt64(bytes.count) == file.bytes { try Files.sync(path) }
    }

    func remove(_ file: SnapshotManifest.File) throws(KVError) { try Files.removeTree("\(staging)/\(file.name)") }

    /// Whether a file is what the manifest says; durable on return where it is.
    func isIntact(_ file: SnapshotManifest.File) throws(KVError) -> Bool {
        let path = "\(staging)/\(file.name)"
        // No part was sent of a file without bytes.
        if file.bytes == 0 { try Files.append(UnsafeRawBufferPointer(start: nil, count: 0), to: path, at: 0) }
        guard try Files.bytes(of: path) == file.bytes else { return false }
        guard try SnapshotChecks.text(Files.checksum(of: path)) == file.crc32c.lowercased() else { return false }
        try Files.sync(path)
        return true
    }

    /// From here on the staging folder takes the database's place, now or when the replica is opened next.
    /// - Parameter keepsDatabase: the database is kept aside and not removed.
    func markComplete(keepsDatabase: Bool = false) throws(KVError) {
        try Files.sync(staging)
        try Files.replace(
            "\(staging)/\(SnapshotFolder.completeMark)", with: keepsDatabase ? SnapshotFolder.keepingMark : [])
        try Files.sync(directory)
    }

    // MARK: Taking the database's place

    /// What is in the replica's directory.
    struct State: Sendable, Hashable {
        var hasDatabase: Bool
        var hasPrevious: Bool
        /// The staging folder is there and marked complete.
        var isStagingComplete: Bool
        /// The database carries the mark it came with.
        var isDatabaseMarked: Bool
        /// There is a manifest and no staging folder.
        var hasLooseManifest: Bool
        /// The staging folder's mark says that the database is to be kept.
        var keepsDatabase = false
    }

    enum Step: Sendable, Hashable, CaseIterable {
        case removePrevious
        case moveDatabaseAside
        /// Fails where one was kept before.
        case keepDatabase
        case moveStagingIn
        /// Only where something else than this program has been at work.
        case moveDatabaseBack
        case removeMark
        case removeManifest
    }

    /// The one step that leads from `state` towards a database in its place and nothing else; nil where it is reached.
    ///
    /// Each step is one rename, or the removal of something that nothing depends on: it may be interrupted and
    /// repeated at any point.
    static func nextStep(from state: State) -> Step? {
        if state.isStagingComplete {
            guard state.hasDatabase else { return .moveStagingIn }
            if state.keepsDatabase { return .keepDatabase }
            return state.hasPrevious ? .removePrevious : .moveDatabaseAside
        }
        if state.hasPrevious { return state.hasDatabase ? .removePrevious : .moveDatabaseBack }
        if state.isDatabaseMarked { return .removeMark }
        return state.hasLooseManifest ? .removeManifest : nil
    }

    func state() -> State {
        State(
            hasDatabase: Files.exists(database), hasPrevious: Files.exists(previous),
            isStagingComplete: Files.exists("\(staging)/\(SnapshotFolder.completeMark)"),
            isDatabaseMarked: Files.exists("\(database)/\(SnapshotFolder.completeMark)"),
            hasLooseManifest: Files.exists(manifestPath) && !Files.exists(staging), keepsDatabase: keepsDatabase)
    }

    /// Anything in the mark has the database kept: that is the safe way round.
    private var keepsDatabase: Bool {
        do throws(KVError) {
            return try Files.bytes(of: "\(staging)/\(SnapshotFolder.completeMark)") ?? 0 > 0
        } catch {
            return true
        }
    }

    func perform(_ step: Step) throws(KVError) {
        switch step {
        case .removePrevious: try Files.removeTree(previous)
        case .moveDatabaseAside: try Files.move(database, to: previous)
        case .keepDatabase: try Files.move(database, to: setAside)
        case .moveStagingIn: try Files.move(staging, to: database)
        case .moveDatabaseBack: try Files.move(previous, to: database)
        case .removeMark: try Files.removeTree("\(database)/\(SnapshotFolder.completeMark)")
        case .removeManifest: try Files.removeTree(manifestPath)
        }
    }

    /// Ends what was begun: with a snapshot that is marked complete the database is that one, else the one before.
    func settle() throws(KVError) {
        while let step = SnapshotFolder.nextStep(from: state()) { try perform(step) }
    }
}
