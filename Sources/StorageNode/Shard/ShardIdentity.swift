import Core

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The file that says whose data a directory holds, written once, before the database: a directory that was moved
/// or a flag that was mistyped must not mix two shards.
///
/// Beside the database and not in it: the log holds log batches only.
enum ShardIdentity {
    static let fileName = "IDENTITY"
    private static let bytesMax = 4_096

    /// Creates `directory` with an identity, or checks the one it has. Blocks; durable on return.
    ///
    /// Throws `KVError(.invalidConfiguration)` for another shard's or cluster's directory, `.storageFailed`.
    static func claim(directory: String, shard: String, cluster: String) throws(KVError) {
        let text = "distribKV shard replica, format 1\ncluster = \(cluster)\nshard = \(shard)\n"
        let path = "\(directory)/\(fileName)"
        guard mkdir(directory, 0o755) == 0 || errno == EEXIST else { throw failure("cannot create \(directory)") }
        if let found = try read(path) {
            guard found == text else {
                let belongs = found.split(separator: "\n").dropFirst().joined(separator: ", ")
                throw KVError(
                    .invalidConfiguration,
                    "\(directory) belongs to another replica (\(belongs)), not to shard \(shard) of cluster "
                        + "\(cluster): check --data-dir and the configuration")
            }
            return
        }
        guard access("\(directory)/db/CURRENT", F_OK) != 0 else {
            throw KVError(
                .invalidConfiguration,
                "\(directory) holds a database but no \(fileName) file: it was not made by this program, or damaged")
        }
        try write(text, to: path, in: directory)
    }

    private static func read(_ path: String) throws(KVError) -> String? {
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

    private static func write(_ text: String, to path: String, in directory: String) throws(KVError) {
        let temporary = path + ".new"
        let file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw failure("cannot create \(temporary)") }
        let bytes = Array(text.utf8)
        let written = bytes.withUnsafeBytes { POSIXFile.write(file, $0.baseAddress, $0.count) }
        let isSynced = fsync(file) == 0
        close(file)
        guard written == bytes.count, isSynced else { throw failure("cannot write \(temporary)") }
        guard rename(temporary, path) == 0 else { throw failure("cannot rename \(temporary)") }
        let folder = open(directory, O_RDONLY | O_CLOEXEC)
        guard folder >= 0 else { throw failure("cannot open \(directory)") }
        defer { close(folder) }
        guard fsync(folder) == 0 else { throw failure("cannot sync \(directory)") }
    }

    private static func failure(_ doing: String) -> KVError {
        let number = errno
        let code: KVError.Code = number == ENOSPC ? .storageFull : .storageFailed
        return KVError(code, "\(doing): \(String(cString: strerror(number)))")
    }
}
