public import Core
import Glibc
public import NIOCore
import NIOPosix

/// A file that is written aside and takes its name when it is whole; standard output, or what is no regular file, is
/// written as it is.
///
/// Call ``finish()`` or ``discard()`` in the end, once.
public final class ExportFile: ExportSink {
    private let descriptor: CInt
    private let path: String
    /// nil where what is written is there at once.
    private let temporary: String?

    public var isStandardOutput: Bool { path == "-" }

    /// Opens the file beside `path`; `-` is standard output.
    ///
    /// Throws `KVError(.invalidArgument)` where it cannot be written.
    public init(path: String) throws(KVError) {
        self.path = path
        var status = stat()
        let exists = stat(path, &status) == 0
        if path == "-" {
            temporary = nil
            descriptor = dup(STDOUT_FILENO)
        } else if exists, status.st_mode & S_IFMT != S_IFREG {
            temporary = nil
            descriptor = open(path, O_WRONLY | O_CLOEXEC)
        } else {
            let aside = "\(path).\(getpid()).tmp"
            temporary = aside
            descriptor = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
        }
        guard descriptor >= 0 else {
            throw KVError(.invalidArgument, "cannot write \(path): \(String(cString: strerror(errno)))")
        }
    }

    deinit { close(descriptor) }

    public func write(_ bytes: ByteBuffer) async throws(KVError) {
        try await blocking { self.writeAll(bytes) ? nil : errno }
    }

    /// Makes the file durable and gives it its name.
    public func finish() async throws(KVError) {
        guard let temporary else { return }
        try await blocking { [descriptor, path] in
            guard fsync(descriptor) == 0, rename(temporary, path) == 0 else { return errno }
            let slash = path.lastIndex(of: "/")
            let folder = open(slash.map { String(path[...$0]) } ?? ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            // The file is whole and has its name. Of a folder that is not ours to read, that is all that can be had.
            guard folder >= 0 else { return nil }
            defer { close(folder) }
            return fsync(folder) == 0 || errno == EINVAL ? nil : errno
        }
    }

    /// Removes what was written aside.
    public func discard() {
        if let temporary { unlink(temporary) }
    }

    private func writeAll(_ bytes: ByteBuffer) -> Bool {
        bytes.withUnsafeReadableBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if count >= 0 { rest = rest.dropFirst(count) } else if errno != EINTR { return false }
            }
            return true
        }
    }

    /// - Parameter work: the `errno` of what failed; nil for success.
    private func blocking(_ work: @escaping @Sendable () -> CInt?) async throws(KVError) {
        let failure: CInt?
        do {
            failure = try await NIOThreadPool.singleton.runIfActive(work)
        } catch {
            throw KVError(.internalError, "cannot write \(path)", cause: error)
        }
        if let failure {
            let name = isStandardOutput ? "standard output" : path
            throw KVError(.unavailable, "cannot write to \(name): \(String(cString: strerror(failure)))")
        }
    }
}
