#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Why a file could not be read or written.
struct FileError: Error {
    let errno: Int32
    /// "cannot be read: No such file or directory"
    let reason: String

    init(_ doing: String, errno: Int32) {
        self.errno = errno
        self.reason = "\(doing): \(String(cString: strerror(errno)))"
    }

    init(reason: String) {
        self.errno = 0
        self.reason = reason
    }

    var isMissingFile: Bool { errno == ENOENT }
}

/// Whole small files. Every call blocks on the disk.
enum LocalFile {
    /// Reads at most `bytesMax` bytes; a larger file is an error.
    static func read(path: String, bytesMax: Int) throws(FileError) -> [UInt8] {
        let descriptor = try open(path, O_RDONLY | O_CLOEXEC, doing: "cannot be read")
        defer { close(descriptor) }
        var contents: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = chunk.withUnsafeMutableBytes { bytes in
                retrying { systemRead(descriptor, bytes.baseAddress, bytes.count) }
            }
            guard count >= 0 else { throw FileError("cannot be read", errno: errno) }
            if count == 0 { return contents }
            contents += chunk[..<count]
            guard contents.count <= bytesMax else {
                throw FileError(reason: "cannot be read: larger than \(ByteSize.describe(bytesMax))")
            }
        }
    }

    /// Replaces the file at `path` by `contents`, durably: a crash at any point leaves the old or the new contents.
    ///
    /// Writes a temporary file beside it, fsyncs that, renames it over `path` and fsyncs the directory.
    /// One writer at a time.
    static func replace(path: String, with contents: [UInt8]) throws(FileError) {
        let temporary = path + ".tmp"
        let descriptor = try open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, doing: "cannot be written")
        do throws(FileError) {
            defer { close(descriptor) }
            try write(contents, to: descriptor)
            guard fsync(descriptor) == 0 else { throw FileError("cannot be written", errno: errno) }
        } catch {
            unlink(temporary)
            throw error
        }
        guard rename(temporary, path) == 0 else {
            let error = FileError("cannot be replaced", errno: errno)
            unlink(temporary)
            throw error
        }
        let directory = try open(directory(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC, doing: "cannot be synced")
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw FileError("cannot be synced", errno: errno) }
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func write(_ contents: [UInt8], to descriptor: Int32) throws(FileError) {
        var written = 0
        while written < contents.count {
            let count = contents.withUnsafeBytes { bytes in
                retrying { systemWrite(descriptor, bytes.baseAddress?.advanced(by: written), bytes.count - written) }
            }
            guard count >= 0 else { throw FileError("cannot be written", errno: errno) }
            written += count
        }
    }

    private static func open(_ path: String, _ flags: Int32, doing: String) throws(FileError) -> Int32 {
        let descriptor = retrying { Int(systemOpen(path, flags, 0o644)) }
        guard descriptor >= 0 else { throw FileError(doing, errno: errno) }
        return Int32(descriptor)
    }

    /// Calls again where a signal interrupted the call.
    private static func retrying(_ call: () -> Int) -> Int {
        while true {
            let result = call()
            if result >= 0 || errno != EINTR { return result }
        }
    }
}

// The system calls that the methods above share their names with.
private func systemOpen(_ path: String, _ flags: Int32, _ mode: mode_t) -> Int32 { open(path, flags, mode) }
private func systemRead(_ descriptor: Int32, _ into: UnsafeMutableRawPointer?, _ count: Int) -> Int {
    read(descriptor, into, count)
}
func systemWrite(_ descriptor: Int32, _ from: UnsafeRawPointer?, _ count: Int) -> Int {
    write(descriptor, from, count)
}
