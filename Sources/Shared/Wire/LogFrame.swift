public import Core
public import NIOCore

/// One write batch of a shard's log on its way from leader to follower.
///
/// Layout, little endian, 32 bytes and then the batch:
///
///     0   length   UInt32   of the batch, in bytes
///     4   crc      UInt32   CRC-32C over bytes 0–3, 8–31 and the batch
///     8   term     UInt64
///     16  lsn      UInt64
///     24  version  UInt64   the highest version in the batch
///     32  batch    a RocksDB write batch that opens with its position record, sequence number zero
public struct LogFrame: Sendable, Hashable {
    public static let headerBytes = 32
    /// A frame that claims more is corrupt. Above the largest value plus its batch.
    public static let batchBytesMax = 64 << 20

    public var position: LogPosition
    public var batch: ByteBuffer

    public init(position: LogPosition, batch: ByteBuffer) {
        self.position = position
        self.batch = batch
    }

    public var encodedBytes: Int { LogFrame.headerBytes + batch.readableBytes }

    public func encode(into buffer: inout ByteBuffer) {
        let start = buffer.writerIndex
        buffer.writeInteger(UInt32(batch.readableBytes), endianness: .little)
        buffer.writeInteger(UInt32(0), endianness: .little)
        buffer.writeInteger(position.term, endianness: .little)
        buffer.writeInteger(position.lsn, endianness: .little)
        buffer.writeInteger(position.version.rawValue, endianness: .little)
        buffer.writeImmutableBuffer(batch)
        let crc = LogFrame.checksum(of: buffer, at: start, length: encodedBytes)
        buffer.setInteger(crc, at: start + 4, endianness: .little)
    }

    /// Fills in the header of a frame that was built in place: `frame` holds ``headerBytes`` bytes of room and then
    /// the batch.
    public static func seal(_ frame: inout ByteBuffer, position: LogPosition) {
        let start = frame.readerIndex
        let total = frame.readableBytes
        precondition(total >= headerBytes, "a frame needs room for its header")
        frame.setInteger(UInt32(total - headerBytes), at: start, endianness: .little)
        frame.setInteger(position.term, at: start + 8, endianness: .little)
        frame.setInteger(position.lsn, at: start + 16, endianness: .little)
        frame.setInteger(position.version.rawValue, at: start + 24, endianness: .little)
        frame.setInteger(checksum(of: frame, at: start, length: total), at: start + 4, endianness: .little)
    }

    /// The next whole frame, taken out of `buffer`; nil where more bytes are needed.
    ///
    /// Throws `KVError(.corrupted)` where the length is absurd or the checksum does not hold; `buffer` is then
    /// not worth reading further.
    public static func decode(from buffer: inout ByteBuffer) throws -> LogFrame? {
        let start = buffer.readerIndex
        guard buffer.readableBytes >= headerBytes,
            let length = buffer.getInteger(at: start, endianness: .little, as: UInt32.self),
            let crc = buffer.getInteger(at: start + 4, endianness: .little, as: UInt32.self),
            let term = buffer.getInteger(at: start + 8, endianness: .little, as: UInt64.self),
            let lsn = buffer.getInteger(at: start + 16, endianness: .little, as: UInt64.self),
            let version = buffer.getInteger(at: start + 24, endianness: .little, as: UInt64.self)
        else { return nil }
        guard length <= batchBytesMax else {
            throw KVError(.corrupted, "a log frame claims \(length) bytes, more than \(batchBytesMax)")
        }
        let total = headerBytes + Int(length)
        guard buffer.readableBytes >= total else { return nil }
        guard checksum(of: buffer, at: start, length: total) == crc else {
            throw KVError(.corrupted, "the checksum of the log frame at lsn \(lsn) does not hold")
        }
        buffer.moveReaderIndex(forwardBy: headerBytes)
        guard let batch = buffer.readSlice(length: Int(length)) else { return nil }
        return LogFrame(
            position: LogPosition(term: term, lsn: lsn, version: Version(rawValue: version)), batch: batch)
    }

    private static func checksum(of buffer: ByteBuffer, at index: Int, length: Int) -> UInt32 {
        buffer.withUnsafeReadableBytes { readable in
            let frame = UnsafeRawBufferPointer(rebasing: readable[(index - buffer.readerIndex)...].prefix(length))
            var crc = CRC32C()
            crc.update(UnsafeRawBufferPointer(rebasing: frame[..<4]))
            crc.update(UnsafeRawBufferPointer(rebasing: frame[8...]))
            return crc.value
        }
    }
}
