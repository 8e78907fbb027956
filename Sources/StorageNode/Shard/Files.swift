import Core

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Files and folders by their paths, with errors that say what failed. Every call blocks.
enum Files {
    /// What the last system call reported: `.storageFull` where the disk is, `.storageFailed` for anything else.
    static func failure(_ doing: String) -> KVError {
        let number = errno
        guard number == ENOSPC || number == EDQUOT else {
            return KVError(.storageFailed, "\(doing): \(String(cString: strerror(number)))")
        }
        return KVError(.storageFull, "\(doing): the disk is full; free some space")
    }

    // MARK: Folders

    /// The names in a folder, sorted; nil where there is none.
    static func names(in directory: String) throws(KVError) -> [String]? {
        guard let stream = opendir(directory) else {
            if errno == ENOENT { return nil }
            throw failure("cannot list \(directory)")
        }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Also where it is there already.
    static func makeDirectory(_ path: String) throws(KVError) {
        guard mkdir(path, 0o755) == 0 || errno == EEXIST else { throw failure("cannot create \(path)") }
    }

    /// A folder and everything in it, or a file; nothing where it does not exist. Links are not followed.
    static func removeTree(_ path: String) throws(KVError) {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            if errno == ENOENT { return }
            throw failure("cannot look at \(path)")
        }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            guard unlink(path) == 0 || errno == ENOENT else { throw failure("cannot remove \(path)") }
            return
        }
        for name in try names(in: path) ?? [] { try removeTree("\(path)/\(name)") }
        guard rmdir(path) == 0 || errno == ENOENT else { throw failure("cannot remove \(path)") }
    }

    /// Durable on return, where both are in the same folder.
    static func move(_ from: String, to path: String) throws(KVError) {
        guard rename(from, path) == 0 else { throw failure("cannot rename \(from) to \(path)") }
        try sync(parent(of: path))
    }

    static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Bytes that this user may still write to the file system of `path`; nil where it does not say.
    static func freeBytes(at path: String) -> UInt64? {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { return nil }
        return UInt64(status.f_bavail) * UInt64(status.f_frsize)
    }

    // MARK: Files

    /// A regular file's size; nil where there is none.
    static func bytes(of path: String) throws(KVError) -> UInt64? {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            if errno == ENOENT { return nil }
            throw failure("cannot look at \(path)")
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw KVError(.storageFailed, "\(path) is no file")
        }
        return UInt64(status.st_size)
    }

    /// Makes a file or a folder's entries durable.
    static func sync(_ path: String) throws(KVError) {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw failure("cannot open \(path)") }
        defer { close(file) }
        guard fsync(file) == 0 else { throw failure("cannot sync \(path)") }
    }

    /// A small file's bytes; nil where there is none.
    static func read(_ path: String, bytesMax: Int) throws(KVError) -> [UInt8]? {
        guard let size = try bytes(of: path) else { return nil }
        guard size <= UInt64(bytesMax) else { throw KVError(.invalidData, "\(path) is larger than \(bytesMax) bytes") }
        var contents = [UInt8](repeating: 0, count: Int(size))
        let result = contents.withUnsafeMutableBytes { bytes in
            Result { () throws(KVError) in try read(path, at: 0, into: bytes) }
        }
        let count = try result.get()
        contents.removeLast(contents.count - count)
        return contents
    }

    /// Fills `bytes` from `offset` on; returns how many there were.
    static func read(_ path: String, at offset: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(KVError)
        -> Int
    {
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard file >= 0 else { throw failure("cannot open \(path)") }
        defer { close(file) }
        return try read(file, path, at: offset, into: bytes)
    }

    private static func read(
        _ file: Int32, _ path: String, at offset: UInt64, into bytes: UnsafeMutableRawBufferPointer
    ) throws(KVError) -> Int {
        var filled = 0
        while filled < bytes.count {
            let count = pread(
                file, bytes.baseAddress?.advanced(by: filled), bytes.count - filled, off_t(offset) + filled)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure("cannot read \(path)") }
            if count == 0 { break }
            filled += count
        }
        return filled
    }

    private static let chunkBytes = 256 << 10

    /// The CRC-32C of a whole file.
    static func checksum(of path: String) throws(KVError) -> UInt32 {
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard file >= 0 else { throw failure("cannot open \(path)") }
        defer { close(file) }
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: chunkBytes, alignment: 64)
        defer { chunk.deallocate() }
        var crc = CRC32C()
        var offset: UInt64 = 0
        while true {
            let count = try read(file, path, at: offset, into: chunk)
            crc.update(UnsafeRawBufferPointer(rebasing: chunk[..<count]))
            offset += UInt64(count)
            if count < chunk.count { return crc.value }
        }
    }

    /// Writes at `offset`, the file's end, making the file where it is missing. After an error the file has the size
    /// it had.
    static func append(_ bytes: UnsafeRawBufferPointer, to path: String, at offset: UInt64) throws(KVError) {
        let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
        guard file >= 0 else { throw failure("cannot create \(path)") }
        defer { close(file) }
        var written = 0
        while written < bytes.count {
            let count = pwrite(
                file, bytes.baseAddress?.advanced(by: written), bytes.count - written, off_t(offset) + written)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                let error = failure("cannot write \(path)")
                ftruncate(file, off_t(offset))
                throw error
            }
            written += count
        }
    }

    static func append(_ contents: [UInt8], to path: String, at offset: UInt64) throws(KVError) {
        let result = contents.withUnsafeBytes { bytes in
            Result { () throws(KVError) in try append(bytes, to: path, at: offset) }
        }
        try result.get()
    }

    /// Copies what a file holds from `offset` on to a new file. Durable on return, but for its name.
    static func copy(_ path: String, from offset: UInt64, to target: String) throws(KVError) {
        try removeTree(target)
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: chunkBytes, alignment: 64)
        defer { chunk.deallocate() }
        var copied: UInt64 = 0
        while true {
            let count = try read(path, at: offset + copied, into: chunk)
            try append(UnsafeRawBufferPointer(rebasing: chunk[..<count]), to: target, at: copied)
            copied += UInt64(count)
            if count < chunk.count { break }
        }
        try sync(target)
    }

    /// Makes a file end at `bytes`. Durable on return.
    static func truncate(_ path: String, to bytes: UInt64) throws(KVError) {
        let file = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
        guard file >= 0 else { throw failure("cannot open \(path)") }
        defer { close(file) }
        guard ftruncate(file, off_t(bytes)) == 0, fsync(file) == 0 else { throw failure("cannot cut \(path) off") }
    }

    /// Replaces a small file durably: a crash leaves the old or the new one.
    static func replace(_ path: String, with contents: [UInt8]) throws(KVError) {
        let temporary = path + ".tmp"
        try removeTree(temporary)
        try append(contents, to: temporary, at: 0)
        try sync(temporary)
        try move(temporary, to: path)
    }
}
