#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A directory in memory that takes RocksDB's own diagnostic log while a database is opened, and goes afterwards.
///
/// RocksDB insists on a log file, and Debian's build has its assertions on: the second log line that finds the disk
/// full aborts the process, where writes should stop and reads go on. So the log is kept off the data's disk. Only
/// the lines of the opening are ever written (the level is fatal errors); what fails later comes back as a status.
struct InfoLogDirectory {
    let path: String

    /// Nil where the system has no such place; RocksDB then logs beside the data.
    init?() {
        var template = Array("/dev/shm/distribkv-XXXXXX".utf8CString)
        let isMade = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.map { mkdtemp($0) != nil } ?? false
        }
        guard isMade else { return nil }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The log file lives on, without a name, until RocksDB closes it.
    func remove() {
        if let stream = opendir(path) {
            while let entry = readdir(stream) {
                let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name != ".", name != ".." { unlink("\(path)/\(name)") }
            }
            closedir(stream)
        }
        rmdir(path)
    }
}
