import Core
import FoundationEssentials

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A storage node's directory, held by this process alone until the value is released.
///
///     LOCK             held with flock(2): the kernel lets it go when the process ends, however that happens
///     node.json        what the node was started with, for its next start
///     topology.json    the newest topology this node has served with
///     shards/NAME/     one replica each
final class DataDirectory: Sendable {
    let path: String
    private let lock: Int32

    /// Makes the directory where it is missing, and locks it. Blocks.
    ///
    /// Throws `KVError`: `.locked` where another process holds it, `.storageFailed` where it cannot be made.
    init(path: String) throws(KVError) {
        self.path = path
        do {
            try FileManager.default.createDirectory(atPath: "\(path)/shards", withIntermediateDirectories: true)
        } catch {
            throw KVError(.storageFailed, "cannot make the data directory \(path)", cause: error)
        }
        let lock = open("\(path)/LOCK", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard lock >= 0 else {
            throw KVError(
                .storageFailed, "cannot write to the data directory \(path): \(String(cString: strerror(errno)))")
        }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            close(lock)
            throw KVError(
                .locked, "the data directory \(path) is used by another process; stop that or name another --data-dir")
        }
        self.lock = lock
    }

    deinit { close(lock) }
}
