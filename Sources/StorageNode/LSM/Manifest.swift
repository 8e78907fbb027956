import Core

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Reads the one thing in RocksDB's manifest that has to be known before a database is opened: which logs it will
/// replay.
///
/// `CURRENT` names the manifest, a file in the log format. Its records are edits (rocksdb/db/version_edit.cc): tags, each
/// with its fields. What is looked for comes before everything that grows, so nothing else has to be understood.
enum Manifest {
    private static let currentBytesMax = 4_096

    /// The number of the oldest log that holds what no table holds; nil if there is no database yet.
    ///
    /// Throws `KVError(.corrupted)` if `CURRENT` or the manifest is damaged, or missing in a folder that holds a
    /// database; `.storageFailed`.
    static func oldestLogNeeded(in directory: String) throws(KVError) -> UInt64? {
        guard let name = try current(in: directory) else {
            let leftover = FolderNames.list(directory).first { isOfADatabase($0) }
            guard let leftover else { return nil }
            throw KVError(
                .corrupted, "\(directory) holds \(leftover) but not the file CURRENT, so its database is damaged")
        }
        var number: UInt64?
        let check = try LogFileCheck.run(path: "\(directory)/\(name)") { edit in
            if let found = logNumber(in: edit) { number = found }
            return true
        }
        guard check.ending == .clean || check.ending == .cutOff else {
            throw KVError(.corrupted, "\(directory)/\(name) is damaged behind byte \(check.soundBytes)")
        }
        return number ?? 0
    }

    /// What `CURRENT` names; nil if there is no such file.
    private static func current(in directory: String) throws(KVError) -> String? {
        let path = "\(directory)/CURRENT"
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            if errno == ENOENT { return nil }
            throw KVError(.storageFailed, "cannot open \(path): \(String(cString: strerror(errno)))")
        }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: currentBytesMax)
        let count = bytes.withUnsafeMutableBytes { pread(file, $0.baseAddress, $0.count, 0) }
        guard count >= 0 else {
            throw KVError(.storageFailed, "cannot read \(path): \(String(cString: strerror(errno)))")
        }
        let text = String(decoding: bytes[..<count], as: UTF8.self)
        guard text.hasSuffix("\n"), text.hasPrefix("MANIFEST-"), UInt64(text.dropFirst(9).dropLast()) != nil else {
            throw KVError(.corrupted, "\(path) does not name a manifest")
        }
        let name = String(text.dropLast())
        guard access("\(directory)/\(name)", F_OK) == 0 else {
            throw KVError(.corrupted, "\(directory)/\(name) is missing")
        }
        return name
    }

    private static func isOfADatabase(_ name: String) -> Bool {
        name.hasPrefix("MANIFEST-") || name.hasSuffix(".sst") || LogFile.number(ofName: name) != nil
    }

    private enum Tag {
        static let comparator: UInt64 = 1
        static let logNumber: UInt64 = 2
        /// May be skipped by whoever does not know it; a string, as all such are.
        static let ignorable: UInt64 = 1 << 13
    }

    /// The log number of an edit; nil if it does not change it.
    private static func logNumber(in edit: UnsafeRawBufferPointer) -> UInt64? {
        var rest = edit[...]
        while let tag = varint(&rest) {
            switch tag {
            case Tag.logNumber: return varint(&rest)
            case Tag.comparator,
                _ where tag & Tag.ignorable != 0:
                guard let length = varint(&rest), length <= UInt64(rest.count) else { return nil }
                rest = rest.dropFirst(Int(length))
            default: return nil
            }
        }
        return nil
    }

    private static func varint(_ bytes: inout Slice<UnsafeRawBufferPointer>) -> UInt64? {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while shift < 64, let byte = bytes.popFirst() {
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        return nil
    }
}
