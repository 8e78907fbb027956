public import Core
import CTableCheck

/// Reads table files block by block against the checksums in them.
///
/// A table is immutable, so this needs no open database: it works on a checkpoint's files and on those that a database has
/// open. Blocks; nothing it reads goes into the block cache.
public enum TableCheck {
    /// Verifies every block of the table file at `path`, those of metadata included.
    ///
    /// - Parameters:
    ///   - knownAs: what errors call the file; nil for its path.
    ///   - isDirect: reads past the page cache, where the file system can.
    ///   - beforeRead: called before every read with its bytes; may wait, and ends the check by returning false.
    ///
    /// Throws `KVError`: `.corrupted` for a damaged or unreadable block; `.notFound` if the file does not exist;
    /// `.unavailable` if `beforeRead` ended it; `.storageFailed` for what else the system refuses.
    public static func verify(
        path: String, knownAs: String? = nil, isDirect: Bool = false, beforeRead: (_ bytes: Int) -> Bool = { _ in true }
    ) throws(KVError) {
        try TableEnd.check(path, knownAs: knownAs)
        var status = run(path, isDirect: isDirect, beforeRead)
        // tmpfs, for one, knows no direct reads, and says so when a file is opened.
        if isDirect, let refused = status, refused.isWithoutDirectReads {
            status = run(path, isDirect: false, beforeRead)
        }
        guard let status else { return }
        throw status.error(checking: knownAs ?? path)
    }

    private static func run(_ path: String, isDirect: Bool, _ beforeRead: (Int) -> Bool) -> RocksDBStatus? {
        withoutActuallyEscaping(beforeRead) { beforeRead in
            // Lent to the call below, which is over before this is.
            var observer = Observer(beforeRead: beforeRead)
            return withUnsafeMutablePointer(to: &observer) { observer in
                RocksDBStatus(
                    taking: ctablecheck_verify(
                        path, isDirect,
                        { context, bytes in
                            context?.assumingMemoryBound(to: Observer.self).pointee.beforeRead(bytes) ?? false
                        }, observer))
            }
        }
    }

    private struct Observer {
        var beforeRead: (Int) -> Bool
    }

    /// Lets every other thread go before the calling one, at the processor and the disk, for the rest of its life.
    public static func becomeIdle() { ctablecheck_become_idle() }
}
