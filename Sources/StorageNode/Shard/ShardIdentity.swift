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

    /// Creates `directory` with an identity, or checks the one it has. Blocks; durable on return.
    ///
    /// Throws `KVError(.invalidConfiguration)` for another shard's or cluster's directory, `.storageFailed`.
    static func claim(directory: String, shard: String, cluster: String) throws(KVError) {
        let text = "distribKV shard replica, format 1\ncluster = \(cluster)\nshard = \(shard)\n"
        let path = "\(directory)/\(fileName)"
        try Files.makeDirectory(directory)
        if let found = try DurableFile.read(path) {
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
        try DurableFile.replace(path, with: text, in: directory)
    }
}
