import Core
import Shard

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
        do throws(KVError) {
            // Where every replica is: its name must not be lost with the power, nor that of a folder it is in.
            try Files.makeDirectories("\(path)/shards")
            try Files.makeDirectories(path)
        } catch {
            throw KVError(error.code, "cannot make the data directory \(path): \(error.message)", cause: error)
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
