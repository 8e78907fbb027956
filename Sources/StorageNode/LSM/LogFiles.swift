#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A write-ahead log file.
struct LogFile {
    var name: String
    var bytes: UInt64

    /// The log files in `directory`, oldest first; none where it does not exist. A file that goes meanwhile is
    /// left out.
    static func list(in directory: String) -> [LogFile] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var files: [LogFile] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard name.hasSuffix(".log") else { continue }
            var status = stat()
            guard stat("\(directory)/\(name)", &status) == 0 else { continue }
            files.append(LogFile(name: name, bytes: UInt64(status.st_size)))
        }
        // Numbers grow beyond their six digits in time.
        return files.sorted { ($0.name.utf8.count, $0.name) < ($1.name.utf8.count, $1.name) }
    }
}
