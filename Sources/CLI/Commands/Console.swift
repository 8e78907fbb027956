import Core
import Glibc
import NIOCore
import NIOPosix

/// Standard input, output and error. What may block runs on a thread of its own.
enum Console {
    /// The longest value read from a file or standard input, in bytes; the cluster's own limit may be lower.
    static let valueBytesMax = 256 << 20

    /// Writes a line to standard error.
    static func error(_ line: String) {
        errorText(line.hasSuffix("\n") ? line : line + "\n")
    }

    /// Writes to standard error as it is.
    static func errorText(_ text: String) {
        // Nobody is left to be told where standard error is closed.
        _ = writeAll(STDERR_FILENO, ByteBuffer(string: text))
    }

    /// Puts a bar in the place of the one that stands on the terminal's last line.
    static func draw(bar: String) {
        // Carriage return and "erase to the end of the line".
        errorText("\r\u{1B}[K" + bar)
    }

    /// Writes `bytes` to standard output.
    ///
    /// Throws `KVError(.unavailable)` where they cannot be written.
    static func write(_ bytes: ByteBuffer) async throws {
        let failure = try await NIOThreadPool.singleton.runIfActive { writeAll(STDOUT_FILENO, bytes) }
        if let failure {
            throw KVError(.unavailable, "cannot write to standard output: \(String(cString: strerror(failure)))")
        }
    }

    static func print(_ line: String) async throws { try await write(ByteBuffer(string: line + "\n")) }

    /// All of a file, or of standard input for `-`.
    ///
    /// Throws `KVError(.invalidArgument)` where it cannot be read or is larger than ``valueBytesMax``.
    static func read(path: String) async throws -> ByteBuffer {
        try await NIOThreadPool.singleton.runIfActive { try readAll(path) }
    }

    /// Columns of the terminal that standard error is; nil where it is none.
    static var terminalWidth: Int? {
        guard isatty(STDERR_FILENO) == 1 else { return nil }
        var size = winsize()
        guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }

    /// The `errno` of the write that failed; nil where all was written.
    private static func writeAll(_ descriptor: CInt, _ bytes: ByteBuffer) -> CInt? {
        bytes.withUnsafeReadableBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if count >= 0 { rest = rest.dropFirst(count) } else if errno != EINTR { return errno }
            }
            return nil
        }
    }

    private static func readAll(_ path: String) throws -> ByteBuffer {
        let name = path == "-" ? "standard input" : path
        let descriptor = path == "-" ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw KVError(.invalidArgument, "cannot open \(path): \(String(cString: strerror(errno)))")
        }
        defer { if path != "-" { close(descriptor) } }
        let chunkBytes = 1 << 20
        var content = ByteBuffer()
        while true {
            var failure: CInt = 0
            let count = content.writeWithUnsafeMutableBytes(minimumWritableBytes: chunkBytes) { bytes in
                let count = Glibc.read(descriptor, bytes.baseAddress, chunkBytes)
                if count < 0 { failure = errno }
                return max(0, count)
            }
            if failure == EINTR { continue }
            guard failure == 0 else {
                throw KVError(.invalidArgument, "cannot read \(name): \(String(cString: strerror(failure)))")
            }
            if count == 0 { return content }
            guard content.readableBytes <= valueBytesMax else {
                throw KVError(.invalidArgument, "\(name) is larger than \(valueBytesMax) bytes")
            }
        }
    }
}
