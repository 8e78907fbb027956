public import Core
public import NIOCore

/// Records of one shard as they go to who merges those of all shards, media type ``MediaType/scanFrames``: frames back
/// to back, in the order of the scan.
///
///     0   flags         UInt8    bit 0: a ttl follows the version; bit 1: the value is left out, as nobody asked for it;
///                                bit 2: it is left out, as the record is larger than was asked for
///     1   key length    UInt16
///     3   value length  UInt32   0 where it is left out
///     7   version       UInt64
///     15  ttl           UInt64   milliseconds that are left of its life; where bit 0 is set
///     …   key, value
///
/// Numbers are big endian.
public struct ScanFrame: Sendable, Hashable {
    /// Places in the bytes it was read from.
    public let key: Range<Int>
    /// Nil where it is left out.
    public let value: Range<Int>?
    public let version: Version
    public let ttlMilliseconds: UInt64?
    /// Larger than the page was allowed to be: to be asked for by itself.
    public let isOversized: Bool
    /// Where the next frame begins.
    public let end: Int

    public static let headerBytesMax = 23
    private static let headerBytesMin = 15
    private static let hasTTL: UInt8 = 1
    private static let isKeyOnly: UInt8 = 2
    private static let isTooLarge: UInt8 = 4

    /// Nil where no whole frame is there.
    public init?(in bytes: UnsafeRawBufferPointer, at offset: Int) {
        guard offset + ScanFrame.headerBytesMin <= bytes.count else { return nil }
        let flags = bytes[offset]
        let keyBytes = Int(UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + 1, as: UInt16.self)))
        let valueBytes = Int(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + 3, as: UInt32.self)))
        version = Version(rawValue: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + 7, as: UInt64.self)))
        var start = offset + ScanFrame.headerBytesMin
        if flags & ScanFrame.hasTTL != 0 {
            guard start + 8 <= bytes.count else { return nil }
            ttlMilliseconds = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: start, as: UInt64.self))
            start += 8
        } else {
            ttlMilliseconds = nil
        }
        key = start..<start + keyBytes
        end = start + keyBytes + valueBytes
        isOversized = flags & ScanFrame.isTooLarge != 0
        let hasNoValue = flags & (ScanFrame.isKeyOnly | ScanFrame.isTooLarge) != 0
        value = hasNoValue ? nil : key.upperBound..<end
        guard end <= bytes.count, keyBytes > 0, flags <= 7, !hasNoValue || valueBytes == 0 else { return nil }
    }

    /// Bytes of the frame of a record.
    public static func bytes(key: Int, value: Int) -> Int { headerBytesMax + key + value }

    public enum Content {
        case value(UnsafeRawBufferPointer)
        case keyOnly
        case oversized
    }

    /// Appends the frame of a record.
    public static func write(
        key: UnsafeRawBufferPointer, _ content: Content, version: Version, ttlMilliseconds: UInt64?,
        into buffer: inout ByteBuffer
    ) {
        var value = UnsafeRawBufferPointer(start: nil, count: 0)
        var flags: UInt8 = ttlMilliseconds == nil ? 0 : hasTTL
        switch content {
        case .value(let bytes): value = bytes
        case .keyOnly: flags |= isKeyOnly
        case .oversized: flags |= isTooLarge
        }
        let length = bytes(key: key.count, value: value.count)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: length) { output in
            output[0] = flags
            output.storeBytes(of: UInt16(key.count).bigEndian, toByteOffset: 1, as: UInt16.self)
            output.storeBytes(of: UInt32(value.count).bigEndian, toByteOffset: 3, as: UInt32.self)
            output.storeBytes(of: version.rawValue.bigEndian, toByteOffset: 7, as: UInt64.self)
            var offset = headerBytesMin
            if let ttlMilliseconds {
                output.storeBytes(of: ttlMilliseconds.bigEndian, toByteOffset: offset, as: UInt64.self)
                offset += 8
            }
            UnsafeMutableRawBufferPointer(rebasing: output[offset...]).copyMemory(from: key)
            UnsafeMutableRawBufferPointer(rebasing: output[(offset + key.count)...]).copyMemory(from: value)
            return offset + key.count + value.count
        }
    }
}

/// Records of one shard, all of one moment, and where its next page begins.
public struct ScanPage: Sendable, Hashable {
    /// ``ScanFrame``s.
    public var frames: ByteBuffer
    /// The `start` of what follows: everything of the shard before it is in `frames`. Nil where nothing follows.
    public var next: [UInt8]?

    public init(frames: ByteBuffer, next: [UInt8]?) {
        self.frames = frames
        self.next = next
    }

    /// What a node answered.
    /// - Parameter next: its ``KVHeader/next``.
    ///
    /// Throws `KVError(.invalidData)` where that is no page.
    public init(frames: ByteBuffer, encodedNext next: String?) throws(KVError) {
        self.frames = frames
        guard let next else {
            self.next = nil
            try check()
            return
        }
        guard let key = PercentCoding.decode(next.utf8), !key.isEmpty else {
            throw KVError(.invalidData, "\"\(next.prefix(64))\" is no percent-encoded key to go on from")
        }
        self.next = key
        try check()
    }

    private func check() throws(KVError) {
        let isWhole = frames.withUnsafeReadableBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                guard let frame = ScanFrame(in: bytes, at: offset) else { return false }
                offset = frame.end
            }
            return true
        }
        guard isWhole else { throw KVError(.invalidData, "the records of a scan are damaged") }
    }
}
