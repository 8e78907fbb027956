import Core
import Logging
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The file `JOINING` beside `IDENTITY`: this replica was made empty, as a follower, and has never had everything its
/// leader had. Until it has, its reads would miss what was written long ago.
///
/// Beside the database and not in it, because a replica that a snapshot replaces goes on joining.
final class JoiningMark: Sendable {
    static let fileName = "JOINING"

    private let directory: String
    private let shard: String
    private let logger: Logger
    private let isOver = Atomic<Bool>(false)

    private init(_ configuration: ShardConfiguration, logger: Logger) {
        directory = configuration.directory
        shard = configuration.name
        self.logger = logger
    }

    private var path: String { "\(directory)/\(JoiningMark.fileName)" }

    /// The mark of a replica that is joining; nil for one that is not. To be called before anything is applied.
    /// Blocks; durable on return.
    ///
    /// A leader has what there is to have, so its mark is removed. A follower that is empty gets one.
    ///
    /// Throws `KVError`: `.storageFailed`, `.storageFull`.
    static func open(
        _ configuration: ShardConfiguration, isLeader: Bool, isEmpty: Bool, logger: Logger
    ) throws(KVError) -> JoiningMark? {
        let mark = JoiningMark(configuration, logger: logger)
        let isThere = access(mark.path, F_OK) == 0
        guard !isLeader else {
            if isThere { try mark.unlink() }
            return nil
        }
        guard isThere || isEmpty || configuration.joins else { return nil }
        if !isThere { try put(in: configuration) }
        return mark
    }

    /// Blocks; durable on return.
    ///
    /// Throws `KVError`: `.storageFailed`, `.storageFull`.
    static func put(in configuration: ShardConfiguration) throws(KVError) {
        try DurableFile.replace(
            "\(configuration.directory)/\(fileName)",
            with: "has not caught up with its leader yet and serves no reads\n", in: configuration.directory)
    }

    /// The replica has caught up, or leads. Any thread; the writer then removes the file.
    func end() { isOver.store(true, ordering: .releasing) }

    /// Removes the file where that is due: blocks, then.
    ///
    /// A failure is logged. The next start then finds the mark, and the replica waits for its leader once more.
    /// - Returns: whether nothing is left to do.
    func removeIfOver() -> Bool {
        guard isOver.load(ordering: .acquiring) else { return false }
        do throws(KVError) {
            try unlink()
            logger.info("caught up with the leader", metadata: ["shard": "\(shard)"])
        } catch {
            logger.warning(
                "caught up with the leader, but the mark stays",
                metadata: ["shard": "\(shard)", "reason": "\(error)"])
        }
        return true
    }

    private func unlink() throws(KVError) {
        guard systemUnlink(path) == 0 || errno == ENOENT else { throw DurableFile.failure("cannot remove \(path)") }
        try Files.sync(directory)
    }
}

private func systemUnlink(_ path: String) -> Int32 { unlink(path) }
