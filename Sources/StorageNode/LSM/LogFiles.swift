public import Core

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A write-ahead log file.
public struct LogFile: Sendable, Hashable {
    /// `000012.log`
    public var name: String
    public var bytes: UInt64

    /// It rises with every log of a database.
    public var number: UInt64 { LogFile.number(ofName: name) ?? 0 }

    /// Nil if this is no name of a log.
    public static func number(ofName name: String) -> UInt64? {
        guard name.hasSuffix(".log") else { return nil }
        return UInt64(name.dropLast(".log".count))
    }

    /// The log files in `directory`, oldest first; none if it does not exist. A file that goes meanwhile is
    /// left out.
    public static func list(in directory: String) -> [LogFile] {
        FolderNames.list(directory).compactMap { name in
            guard number(ofName: name) != nil else { return nil }
            var status = stat()
            guard stat("\(directory)/\(name)", &status) == 0 else { return nil }
            return LogFile(name: name, bytes: UInt64(status.st_size))
        }.sorted { $0.number < $1.number }
    }

    /// The logs that a database in `directory` will replay when it is opened, oldest first: those that hold what no
    /// table holds yet. Blocks.
    ///
    /// Throws `KVError(.corrupted)` if the database's manifest is damaged or missing, `.storageFailed`.
    public static func live(in directory: String) throws(KVError) -> [LogFile] {
        guard let oldest = try oldestNeeded(in: directory) else { return [] }
        return list(in: directory).filter { $0.number >= oldest }
    }
}

extension LogFile {
    /// The number that the oldest of the ``live(in:)`` logs has at least; nil if there is no database yet. Blocks.
    ///
    /// Throws as ``live(in:)``.
    public static func oldestNeeded(in directory: String) throws(KVError) -> UInt64? {
        try Manifest.oldestLogNeeded(in: directory)
    }
}

/// The names in a folder.
enum FolderNames {
    /// In no order; none if there is no such folder.
    static func list(_ directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            names.append(
                withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                })
        }
        return names
    }
}
