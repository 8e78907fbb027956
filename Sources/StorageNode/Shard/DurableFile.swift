import Core

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Small files of text that are replaced whole and survive the loss of power.
enum DurableFile {
    static let bytesMax = 4_096

    /// The text; nil where there is no such file. Blocks.
    static func read(_ path: String) throws(KVError) -> String? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            if errno == ENOENT { return nil }
            throw failure("cannot open \(path)")
        }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: bytesMax)
        let count = bytes.withUnsafeMutableBytes { POSIXFile.read(file, $0.baseAddress, $0.count) }
        guard count >= 0 else { throw failure("cannot read \(path)") }
        return String(decoding: bytes[..<count], as: UTF8.self)
    }

    /// Writes a file beside `path` and renames it. Blocks; durable on return, and what was there before stays whole
    /// until then.
    static func replace(_ path: String, with text: String, in directory: String) throws(KVError) {
        let temporary = path + ".new"
        let file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw failure("cannot create \(temporary)") }
        let bytes = Array(text.utf8)
        let written = bytes.withUnsafeBytes { POSIXFile.write(file, $0.baseAddress, $0.count) }
        let isSynced = written == bytes.count && fsync(file) == 0
        let problem = isSynced ? nil : failure("cannot write \(temporary)")
        close(file)
        if let problem { throw problem }
        guard rename(temporary, path) == 0 else { throw failure("cannot rename \(temporary)") }
        try Files.sync(directory)
    }

    /// With what `errno` says.
    static func failure(_ doing: String) -> KVError {
        let number = errno
        let code: KVError.Code = number == ENOSPC ? .storageFull : .storageFailed
        return KVError(code, "\(doing): \(String(cString: strerror(number)))")
    }
}
