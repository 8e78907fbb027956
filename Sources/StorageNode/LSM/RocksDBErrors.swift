import CRocksDB
import Core

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The one place that turns RocksDB's status strings into `KVError` codes.
///
/// The C API reports a failure as a string it has allocated, in the form of `rocksdb::Status::ToString`.
struct RocksDBStatus {
    let text: String

    /// Takes over `pointer` and frees it; nil where the call succeeded.
    init?(taking pointer: UnsafeMutablePointer<CChar>?) {
        guard let pointer else { return nil }
        text = String(cString: pointer)
        rocksdb_free(pointer)
    }

    var isTryAgain: Bool { text.hasPrefix("Operation failed. Try again.") }
    var isNotFound: Bool { text.hasPrefix("NotFound") }

    /// "Compression type LZ4 is not linked with the binary."
    var isMissingCompression: Bool { text.contains("not linked") }

    var code: KVError.Code {
        if text.contains("No space left") || text.contains("Space limit reached") { return .storageFull }
        if text.contains("/LOCK: ") { return .locked }
        if text.hasPrefix("Corruption") { return .corrupted }
        if text.hasPrefix("Invalid argument") { return .invalidArgument }
        if text.hasPrefix("NotFound") { return .notFound }
        if text.hasPrefix("Resource busy") || text.hasPrefix("Shutdown in progress") { return .unavailable }
        return .storageFailed
    }

    /// - Parameter doing: what failed, as in "cannot open /data/n1/shard-0".
    func error(_ doing: String, file: String = #fileID, line: Int = #line) -> KVError {
        KVError(code, "\(doing): \(remedy)\(text)", file: file, line: line)
    }

    /// Of opening a database that is there: a file that is gone is damage as well.
    func openingError(_ path: String) -> KVError {
        var failure = error("cannot open the database \(path)")
        if text.contains("No such file or directory"), access("\(path)/CURRENT", F_OK) == 0 {
            failure.code = .corrupted
        }
        return failure
    }

    /// What `errno` says where direct reads are not to be had.
    var isWithoutDirectReads: Bool { text.hasPrefix("IO error") && text.hasSuffix("Invalid argument") }

    /// Of a table that was checked by itself.
    func error(checking path: String, file: String = #fileID, line: Int = #line) -> KVError {
        if text.contains("No such file or directory") {
            return KVError(.notFound, "there is no \(path)", file: file, line: line)
        }
        if text.hasPrefix("Operation aborted") {
            return KVError(.unavailable, "the check of \(path) was ended", file: file, line: line)
        }
        // A block that the disk cannot give back is as lost as one that has other bits. What is not the system's is the
        // table's: a footer that names no format, or no kind of checksum that there is.
        guard !text.hasPrefix("IO error") || text.contains("Input/output error") else {
            return KVError(.storageFailed, "cannot read \(path): \(text)", file: file, line: line)
        }
        return KVError(.corrupted, "\(path) is damaged: \(text)", file: file, line: line)
    }

    private var remedy: String {
        switch code {
        case .locked: "another process has this directory open; stop it or choose another --data-dir; "
        case .storageFull: "the disk is full; free some space and restart the node; "
        case .corrupted: "a file is damaged; "
        default: ""
        }
    }
}

extension UnsafeMutablePointer<CChar> {
    /// A cache-only read that would have to touch the disk. Checked on the hot path, so without making a `String`.
    var isIncompleteStatus: Bool {
        // "Result incomplete: …"
        self[0] == CChar(UInt8(ascii: "R")) && self[1] == CChar(UInt8(ascii: "e"))
            && self[2] == CChar(UInt8(ascii: "s"))
            && self[3] == CChar(UInt8(ascii: "u"))
    }
}

/// An owned pointer into RocksDB.
///
/// Unchecked because `OpaquePointer` is not `Sendable`; the objects it is used for (database, options, cache, env)
/// are documented by RocksDB as safe to use from several threads once set up.
struct ForeignHandle: @unchecked Sendable {
    let pointer: OpaquePointer
}
