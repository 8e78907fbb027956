public import Core
import Glibc
public import NIOCore
import NIOPosix
import Synchronization

/// Where an import reads from, chunk by chunk.
public protocol ImportSource: Sendable {
    /// The next bytes; nil at the end. Called by one task at a time.
    func next() async throws(KVError) -> ByteBuffer?
}

/// A file or standard input, read by a thread of its own.
public final class FileSource: ImportSource {
    /// Bytes of a chunk.
    private static let chunkBytes = 256 << 10

    /// How long a cancelled import may go on waiting for input.
    private static let pollMilliseconds: CInt = 100

    private let isCancelled = Atomic(false)
    private let descriptor: CInt
    private let name: String
    /// nil where it is no regular file.
    public let size: UInt64?

    /// Opens the file at `path`; `-` is standard input.
    ///
    /// Throws `KVError(.invalidArgument)` where it cannot be opened.
    public init(path: String) throws(KVError) {
        name = path == "-" ? "standard input" : path
        descriptor = path == "-" ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw KVError(.invalidArgument, "cannot open \(path): \(String(cString: strerror(errno)))")
        }
        var status = stat()
        size = fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFREG ? UInt64(status.st_size) : nil
    }

    deinit { close(descriptor) }

    /// A cancelled task gets `KVError(.cancelled)`, also while it waits for input.
    public func next() async throws(KVError) -> ByteBuffer? {
        do {
            return try await withTaskCancellationHandler {
                try await NIOThreadPool.singleton.runIfActive { try self.read() }
            } onCancel: {
                isCancelled.store(true, ordering: .relaxed)
            }
        } catch {
            if error is CancellationError { throw KVError(.cancelled, "interrupted") }
            throw error as? KVError ?? KVError(.internalError, "cannot read \(name)", cause: error)
        }
    }

    private func read() throws -> ByteBuffer? {
        try waitForInput()
        var chunk = ByteBufferAllocator().buffer(capacity: Self.chunkBytes)
        var failure: CInt = 0
        chunk.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.chunkBytes) { bytes in
            while true {
                let count = Glibc.read(descriptor, bytes.baseAddress, Self.chunkBytes)
                if count >= 0 { return count }
                if errno != EINTR {
                    failure = errno
                    return 0
                }
            }
        }
        guard failure == 0 else {
            throw KVError(.invalidArgument, "cannot read \(name): \(String(cString: strerror(failure)))")
        }
        return chunk.readableBytes > 0 ? chunk : nil
    }

    /// A pipe or terminal may have nothing for long; a read of it could not be ended.
    private func waitForInput() throws {
        guard size == nil else { return }
        while true {
            if isCancelled.load(ordering: .relaxed) { throw CancellationError() }
            var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            // Anything but a timeout is for `read` to tell.
            if Glibc.poll(&poll, 1, Self.pollMilliseconds) != 0 { return }
        }
    }
}
