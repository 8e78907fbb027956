import Core

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Whether damage in a write-ahead log is the trace of one write that never ended.
///
/// A machine that loses power during an fsync leaves some pages of the last record written and others as zeros, in
/// any order. RocksDB drops a last record that is cut off but refuses one whose length is whole. With every write
/// synced, the last record is the only one that can be incomplete, and it was not acknowledged. So this looks for
/// the opposite: any record that begins after the damage, or damage without a page of zeros, means that something
/// else happened.
///
/// Format (rocksdb/db/log_format.h): blocks of 32 KiB; fragments of checksum (4 bytes), length (2), type (1: whole
/// record, 2: first, 3: middle, 4: last) and data; what is left of a block under seven bytes is filled with zeros.
struct LogTail {
    enum Verdict: Equatable {
        case sound
        /// The file ends in a record of which pages are missing.
        case unwritten
        case damaged
    }

    private static let blockBytes = 32_768
    private static let pageBytes = 4_096
    private static let headerBytes = 7

    private var isDamaged = false
    private var hasEmptyPage = false

    /// Whether the logs of a database, oldest first, are sound but for such an end of the newest. Blocks.
    ///
    /// Throws `KVError(.storageFailed)` where a file cannot be read.
    static func isUnwritten(inLogsAt paths: [String]) throws(KVError) -> Bool {
        for path in paths.dropLast() {
            guard try verdict(of: path) == .sound else { return false }
        }
        guard let newest = paths.last else { return false }
        return try verdict(of: newest) == .unwritten
    }

    static func verdict(of path: String) throws(KVError) -> Verdict {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw KVError(.storageFailed, "cannot open \(path): errno \(errno)") }
        defer { close(file) }
        var tail = LogTail()
        var block = [UInt8](repeating: 0, count: blockBytes)
        while true {
            let count = try fill(&block, from: file, path)
            let hasLaterRecord = block.withUnsafeBytes { bytes in
                tail.takeBlock(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
            }
            if hasLaterRecord { return .damaged }
            if count < blockBytes { break }
        }
        if !tail.isDamaged { return .sound }
        return tail.hasEmptyPage ? .unwritten : .damaged
    }

    private static func fill(_ block: inout [UInt8], from file: Int32, _ path: String) throws(KVError) -> Int {
        var filled = 0
        while filled < blockBytes {
            let count = block.withUnsafeMutableBytes { bytes in
                posixRead(file, bytes.baseAddress.map { $0 + filled }, blockBytes - filled)
            }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw KVError(.storageFailed, "cannot read \(path): errno \(errno)") }
            if count == 0 { break }
            filled += count
        }
        return filled
    }

    /// True where a record begins after damage.
    private mutating func takeBlock(_ block: UnsafeRawBufferPointer) -> Bool {
        var offset = 0
        while block.count - offset >= LogTail.headerBytes {
            guard let fragment = LogTail.fragment(at: offset, in: block) else {
                isDamaged = true
                notePages(from: offset, in: block)
                // Where the next fragment is, if there is one, nothing says.
                return LogTail.hasRecord(after: offset, in: block)
            }
            if isDamaged, fragment.type <= 2 { return true }
            offset += LogTail.headerBytes + fragment.length
        }
        return false
    }

    private static func fragment(
        at offset: Int, in block: UnsafeRawBufferPointer
    ) -> (length: Int, type: UInt8)? {
        let length = Int(block[offset + 4]) | Int(block[offset + 5]) << 8
        let type = block[offset + 6]
        let end = offset + headerBytes + length
        guard (1...4).contains(type), end <= block.count else { return nil }
        let stored = UInt32(littleEndian: block.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        // Type and data; masked as in rocksdb/util/crc32c.h.
        let crc = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: block[(offset + 6)..<end]))
        return (crc >> 15 | crc << 17) &+ 0xA282_EAD8 == stored ? (length, type) : nil
    }

    /// Whether a record begins anywhere after `offset`: a fragment with the right checksum, and the tag of a put or
    /// delete behind the header of a write batch.
    private static func hasRecord(after offset: Int, in block: UnsafeRawBufferPointer) -> Bool {
        let tag = headerBytes + WriteBatchBuilder.headerBytes
        var candidate = offset + 1
        while candidate + tag < block.count {
            if block[candidate + 6] == 1 || block[candidate + 6] == 2, block[candidate + tag] <= 1,
                fragment(at: candidate, in: block) != nil
            {
                return true
            }
            candidate += 1
        }
        return false
    }

    /// Blocks begin at multiples of their size, so pages of a block are pages of the file.
    private mutating func notePages(from offset: Int, in block: UnsafeRawBufferPointer) {
        var start = offset
        while start < block.count, !hasEmptyPage {
            let end = min(block.count, (start / LogTail.pageBytes + 1) * LogTail.pageBytes)
            // A few zeros at the end of a page may be anything.
            hasEmptyPage = end - start >= 16 && block[start..<end].allSatisfy { $0 == 0 }
            start = end
        }
    }
}

private func posixRead(_ file: Int32, _ bytes: UnsafeMutableRawPointer?, _ count: Int) -> Int {
    read(file, bytes, count)
}
