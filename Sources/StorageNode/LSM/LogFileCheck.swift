public import Core

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Reads a file in RocksDB's log format, a write-ahead log or a manifest, and finds out where it stops being whole.
///
/// RocksDB reads such files too, but takes much for the trace of an interrupted write that is none: a wrong length in the
/// last block, a header of zeros, a file that is too short. What it drops then may have been acknowledged.
///
/// Format (rocksdb/db/log_format.h): blocks of 32 KiB; fragments of checksum (4 bytes, masked CRC-32C of type and data),
/// length (2), type (1: whole record, 2: first, 3: middle, 4: last) and data; what is left of a block under seven bytes is
/// filled with zeros.
public struct LogFileCheck: Sendable, Hashable {
    /// What follows the last whole record.
    public enum Ending: Sendable, Hashable {
        /// Nothing.
        case clean
        /// A record that the end of the file cuts off: its write never ended.
        case cutOff
        /// A record of which whole sectors are zeros. A machine that loses power while it writes leaves that; a process
        /// that is killed does not.
        case unwritten
        /// What no interrupted write leaves.
        case damaged
    }

    public var ending: Ending
    /// Where the last whole record ends: the bytes of the file before are sound.
    public var soundBytes: UInt64
    public var fileBytes: UInt64

    static let blockBytes = 32_768
    private static let headerBytes = 7
    /// What a disk writes whole or not at all.
    private static let sectorBytes = 512
    /// Fewer zeros at the end of a sector may be anything.
    private static let zerosMin = 16
    /// Read at once: whole blocks.
    private static let chunkBytes = 32 * blockBytes

    /// Lends every whole record to `body`, in order, until one is not what it should be or `body` says so.
    /// - Parameter body: returns whether the record is in order; with false the file counts as damaged there.
    ///
    /// Blocks. Throws `KVError(.storageFailed)` if the file cannot be read, and what `body` throws.
    public static func run(
        path: String, _ body: (UnsafeRawBufferPointer) throws(KVError) -> Bool
    ) throws(KVError) -> LogFileCheck {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw failure("cannot open \(path)") }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw failure("cannot look at \(path)") }
        var walk = Walk(fileBytes: Int(status.st_size))
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: chunkBytes, alignment: 64)
        defer { chunk.deallocate() }
        var start = 0
        while start < walk.fileBytes {
            let count = try read(file, path, into: chunk, count: min(chunkBytes, walk.fileBytes - start))
            var offset = 0
            while offset < count {
                let end = min(offset + blockBytes, count)
                let block = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(chunk)[offset..<end])
                try walk.take(block, at: start + offset, body)
                offset = end
            }
            if walk.isDecided { break }
            start += count
        }
        return walk.result
    }

    /// As ``run(path:_:)``, of what a file holds.
    package static func run(
        contents: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws(KVError) -> Bool
    ) throws(KVError) -> LogFileCheck {
        var walk = Walk(fileBytes: contents.count)
        var start = 0
        while start < contents.count, !walk.isDecided {
            let end = min(start + blockBytes, contents.count)
            try walk.take(UnsafeRawBufferPointer(rebasing: contents[start..<end]), at: start, body)
            start = end
        }
        return walk.result
    }

    private static func read(
        _ file: Int32, _ path: String, into chunk: UnsafeMutableRawBufferPointer, count: Int
    ) throws(KVError) -> Int {
        var filled = 0
        while filled < count {
            let read = posixRead(file, chunk.baseAddress?.advanced(by: filled), count - filled)
            if read < 0, errno == EINTR { continue }
            guard read >= 0 else { throw failure("cannot read \(path)") }
            guard read > 0 else {
                throw KVError(.storageFailed, "cannot read \(path): it became shorter meanwhile")
            }
            filled += read
        }
        return filled
    }

    private static func failure(_ doing: String) -> KVError {
        KVError(.storageFailed, "\(doing): \(String(cString: strerror(errno)))")
    }

    /// Goes through the blocks of a file.
    ///
    /// Invariant: `soundBytes` is the end of the last record that was lent; everything behind it is either the record
    /// that is being put together (`record`) or what comes after `damage`.
    private struct Walk {
        let fileBytes: Int
        private var soundBytes = 0
        /// The fragments so far of a record that spans several.
        private var record: [UInt8] = []
        private var isInRecord = false
        /// Where the first fragment that is not whole begins.
        private var damage: Int?
        private var isCutOff = false
        private var hasEmptySector = false
        /// From the damage on there are only zeros.
        private var isEmpty = true
        private var hasLaterRecord = false

        init(fileBytes: Int) { self.fileBytes = fileBytes }

        /// Whether the rest of the file changes nothing.
        var isDecided: Bool { hasLaterRecord || isCutOff }

        var result: LogFileCheck {
            let ending: Ending
            if hasLaterRecord {
                ending = .damaged
            } else if isCutOff || (damage == nil && isInRecord) {
                ending = .cutOff
            } else if damage != nil {
                ending = hasEmptySector || isEmpty ? .unwritten : .damaged
            } else {
                ending = .clean
            }
            return LogFileCheck(
                ending: ending, soundBytes: UInt64(ending == .clean ? fileBytes : soundBytes),
                fileBytes: UInt64(fileBytes))
        }

        mutating func take(
            _ block: UnsafeRawBufferPointer, at start: Int, _ body: (UnsafeRawBufferPointer) throws(KVError) -> Bool
        ) throws(KVError) {
            var offset = 0
            while block.count - offset >= headerBytes, !isDecided {
                guard let fragment = Fragment(at: offset, in: block) else {
                    return noteDamage(at: offset, in: block, start)
                }
                offset = fragment.end
                if damage != nil {
                    isEmpty = false
                    // What belongs to the damaged record may follow it, the start of another may not.
                    hasLaterRecord = fragment.isStart
                    continue
                }
                guard fragment.isStart != isInRecord, try take(fragment, block, body) else {
                    // A whole piece in the wrong place, or a whole record that says what cannot be.
                    damage = start + offset
                    hasLaterRecord = true
                    return
                }
                if !isInRecord { soundBytes = start + offset }
            }
            // Less than a header is left of the block: zeros, or a header that was cut off.
            guard damage == nil, start + block.count == fileBytes, block.count < blockBytes, offset < block.count,
                !isDecided
            else { return }
            isCutOff = true
        }

        /// - Returns: false if `body` says that the record is not in order.
        private mutating func take(
            _ fragment: Fragment, _ block: UnsafeRawBufferPointer,
            _ body: (UnsafeRawBufferPointer) throws(KVError) -> Bool
        ) throws(KVError) -> Bool {
            let data = UnsafeRawBufferPointer(rebasing: block[fragment.data])
            if fragment.isStart, fragment.isEnd { return try body(data) }
            isInRecord = !fragment.isEnd
            record += data
            guard fragment.isEnd else { return true }
            let whole = record
            record.removeAll(keepingCapacity: true)
            var outcome = Result<Bool, KVError>.success(true)
            whole.withUnsafeBytes { bytes in
                outcome = Result { () throws(KVError) in try body(bytes) }
            }
            return try outcome.get()
        }

        private mutating func noteDamage(at offset: Int, in block: UnsafeRawBufferPointer, _ start: Int) {
            if damage == nil {
                damage = start + offset
                // Its length says that more is to come, but it may be the length that is wrong.
                isCutOff =
                    start + block.count == fileBytes && Fragment.isCutOff(at: offset, in: block)
                    && !Fragment.isWhole(at: offset, in: block) && !hasRecord(after: offset, in: block)
                if isCutOff { return }
            }
            isEmpty = isEmpty && block[offset...].allSatisfy { $0 == 0 }
            if !hasEmptySector { hasEmptySector = LogFileCheck.hasEmptySector(from: offset, in: block) }
            // Where the next fragment begins, if there is one, nothing says.
            hasLaterRecord = hasRecord(after: offset, in: block)
        }

        /// Whether a record begins anywhere behind `offset`: a fragment with the right checksum.
        private func hasRecord(after offset: Int, in block: UnsafeRawBufferPointer) -> Bool {
            var candidate = offset + 1
            while candidate + headerBytes < block.count {
                if block[candidate + 6] == 1 || block[candidate + 6] == 2,
                    Fragment(at: candidate, in: block).map({ !$0.data.isEmpty }) ?? false
                {
                    return true
                }
                candidate += 1
            }
            return false
        }
    }

    /// One fragment of a block, whole.
    private struct Fragment {
        var data: Range<Int>
        var type: UInt8

        var end: Int { data.upperBound }
        var isStart: Bool { type == 1 || type == 2 }
        var isEnd: Bool { type == 1 || type == 4 }

        /// Nil for one that is not whole.
        init?(at offset: Int, in block: UnsafeRawBufferPointer) {
            guard let (data, type) = Fragment.claim(at: offset, in: block), (1...4).contains(type),
                data.upperBound <= block.count, Fragment.holds(data, at: offset, in: block)
            else { return nil }
            self.data = data
            self.type = type
        }

        private static func claim(
            at offset: Int, in block: UnsafeRawBufferPointer
        ) -> (data: Range<Int>, type: UInt8)? {
            guard offset + headerBytes <= block.count else { return nil }
            let length = Int(block[offset + 4]) | Int(block[offset + 5]) << 8
            return (offset + headerBytes..<offset + headerBytes + length, block[offset + 6])
        }

        /// Whether the checksum is that of the type and `data`.
        private static func holds(_ data: Range<Int>, at offset: Int, in block: UnsafeRawBufferPointer) -> Bool {
            let stored = UInt32(littleEndian: block.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
            let crc = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: block[(offset + 6)..<data.upperBound]))
            // Masked as in rocksdb/util/crc32c.h.
            return (crc >> 15 | crc << 17) &+ 0xA282_EAD8 == stored
        }

        /// Whether the header says that the fragment reaches beyond the block, which ends with the file.
        static func isCutOff(at offset: Int, in block: UnsafeRawBufferPointer) -> Bool {
            guard let (data, type) = claim(at: offset, in: block) else { return true }
            return (1...4).contains(type) && data.upperBound > block.count
        }

        /// Whether the fragment is whole but for its length, and ends with the block.
        static func isWhole(at offset: Int, in block: UnsafeRawBufferPointer) -> Bool {
            guard let (data, _) = claim(at: offset, in: block), data.lowerBound <= block.count else { return false }
            return holds(data.lowerBound..<block.count, at: offset, in: block)
        }
    }

    /// Blocks begin at multiples of their size, so sectors of a block are sectors of the file.
    private static func hasEmptySector(from offset: Int, in block: UnsafeRawBufferPointer) -> Bool {
        var start = offset
        while start < block.count {
            let end = min(block.count, (start / sectorBytes + 1) * sectorBytes)
            if end - start >= zerosMin, block[start..<end].allSatisfy({ $0 == 0 }) { return true }
            start = end
        }
        return false
    }
}

private func posixRead(_ file: Int32, _ bytes: UnsafeMutableRawPointer?, _ count: Int) -> Int {
    read(file, bytes, count)
}
