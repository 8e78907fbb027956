public import Core
public import NIOCore

/// Writes RocksDB's own write batch format into a `ByteBuffer`, so that one buffer serves the write-ahead log, the
/// in-memory log and the wire.
///
/// Layout (rocksdb/db/write_batch.cc): sequence number `UInt64` and record count `UInt32`, little endian; then
/// records: tag `0x01`, key, value for a put; tag `0x00`, key for a delete; key and value each as varint32 length
/// and bytes. The sequence number is left zero: RocksDB fills it in.
public struct WriteBatchBuilder {
    public static let headerBytes = 12
    static let putTag: UInt8 = 0x01
    static let deleteTag: UInt8 = 0x00
    /// A varint32 takes at most this many bytes.
    static let varintBytesMax = 5

    private var buffer: ByteBuffer
    private let start: Int
    public private(set) var count: UInt32 = 0

    /// What one user record takes at most, to size the buffer.
    public static func putBytesMax(keyBytes: Int, valueBytes: Int) -> Int {
        1 + varintBytesMax + 1 + keyBytes + varintBytesMax + StoredValue.expiringHeaderBytes + valueBytes
    }

    /// - Parameters:
    ///   - reservedBytes: zeroed space left in front of the batch, for a frame header.
    ///   - capacity: bytes to allocate at once; the buffer grows where it was too small.
    public init(reservedBytes: Int = 0, capacity: Int = 0, allocator: ByteBufferAllocator = ByteBufferAllocator()) {
        buffer = allocator.buffer(capacity: reservedBytes + WriteBatchBuilder.headerBytes + capacity)
        buffer.writeRepeatingByte(0, count: reservedBytes + WriteBatchBuilder.headerBytes)
        start = reservedBytes
    }

    /// The size of the batch so far, without the reserved bytes.
    public var batchBytes: Int { buffer.writerIndex - start }

    /// A place to come back to.
    public struct Mark {
        fileprivate let writerIndex: Int
        fileprivate let count: UInt32
    }

    public var mark: Mark { Mark(writerIndex: buffer.writerIndex, count: count) }

    /// Takes back every record since `mark`, which is of this batch.
    public mutating func rollBack(to mark: Mark) {
        buffer.moveWriterIndex(to: mark.writerIndex)
        count = mark.count
    }

    /// Replaces the last eight bytes before `mark`, which is of this batch.
    public mutating func setBigEndian(_ value: UInt64, before mark: Mark) {
        buffer.setInteger(value, at: mark.writerIndex - 8, endianness: .big)
    }

    /// A put of a key as it is in RocksDB, prefix included.
    public mutating func putRaw(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
        let bytesMax = 1 + 2 * WriteBatchBuilder.varintBytesMax + key.count + value.count
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: bytesMax) { target in
            var cursor = RecordWriter(target)
            cursor.byte(WriteBatchBuilder.putTag)
            cursor.varint(key.count)
            cursor.bytes(key)
            cursor.varint(value.count)
            cursor.bytes(value)
            return cursor.offset
        }
        count += 1
    }

    /// A put of a user key.
    /// - Parameter expires: when the value is gone, in milliseconds since the Unix epoch; nil for never.
    public mutating func put(
        key: UnsafeRawBufferPointer, version: Version, expires: UInt64? = nil, value: UnsafeRawBufferPointer
    ) {
        let bytesMax = WriteBatchBuilder.putBytesMax(keyBytes: key.count, valueBytes: value.count)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: bytesMax) { target in
            var cursor = RecordWriter(target)
            cursor.byte(WriteBatchBuilder.putTag)
            cursor.varint(1 + key.count)
            cursor.byte(KeySpace.user)
            cursor.bytes(key)
            if let expires {
                cursor.varint(StoredValue.expiringHeaderBytes + value.count)
                cursor.byte(StoredValue.expiringFlags)
                cursor.bigEndian(version.rawValue)
                cursor.bigEndian(expires)
            } else {
                cursor.varint(StoredValue.headerBytes + value.count)
                cursor.byte(StoredValue.plainFlags)
                cursor.bigEndian(version.rawValue)
            }
            cursor.bytes(value)
            return cursor.offset
        }
        count += 1
    }

    /// A delete of a user key.
    public mutating func delete(key: UnsafeRawBufferPointer) {
        let bytesMax = 1 + WriteBatchBuilder.varintBytesMax + 1 + key.count
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: bytesMax) { target in
            var cursor = RecordWriter(target)
            cursor.byte(WriteBatchBuilder.deleteTag)
            cursor.varint(1 + key.count)
            cursor.byte(KeySpace.user)
            cursor.bytes(key)
            return cursor.offset
        }
        count += 1
    }

    @inlinable public mutating func put(
        key: ByteBuffer, version: Version, expires: UInt64? = nil, value: ByteBuffer
    ) {
        key.withUnsafeReadableBytes { key in
            value.withUnsafeReadableBytes { value in put(key: key, version: version, expires: expires, value: value) }
        }
    }

    @inlinable public mutating func delete(key: ByteBuffer) {
        key.withUnsafeReadableBytes { key in delete(key: key) }
    }

    /// The records of another batch, which must be a valid one: joining batches is concatenation.
    public mutating func append(recordsOf batch: ByteBuffer) {
        guard batch.readableBytes > WriteBatchBuilder.headerBytes,
            let records = batch.getInteger(at: batch.readerIndex + 8, endianness: .little, as: UInt32.self),
            let slice = batch.getSlice(
                at: batch.readerIndex + WriteBatchBuilder.headerBytes,
                length: batch.readableBytes - WriteBatchBuilder.headerBytes)
        else { return }
        buffer.writeImmutableBuffer(slice)
        count += records
    }

    /// Appends encoded records that hold `count` operations.
    public mutating func append(records: UnsafeRawBufferPointer, count recordCount: UInt32) {
        buffer.writeBytes(records)
        count += recordCount
    }

    /// The reserved bytes and then the batch, with its count filled in.
    public consuming func finish() -> ByteBuffer {
        buffer.setInteger(count, at: start + 8, endianness: .little)
        return buffer
    }
}

/// Writes into memory that was reserved for the whole record.
private struct RecordWriter {
    private let target: UnsafeMutableRawBufferPointer
    private(set) var offset = 0

    init(_ target: UnsafeMutableRawBufferPointer) { self.target = target }

    mutating func byte(_ value: UInt8) {
        target[offset] = value
        offset += 1
    }

    mutating func varint(_ value: Int) {
        var rest = UInt32(value)
        while rest >= 0x80 {
            byte(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        byte(UInt8(rest))
    }

    mutating func bigEndian(_ value: UInt64) {
        target.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt64.self)
        offset += 8
    }

    mutating func bytes(_ source: UnsafeRawBufferPointer) {
        guard source.count > 0 else { return }
        UnsafeMutableRawBufferPointer(rebasing: target[offset...]).copyMemory(from: source)
        offset += source.count
    }
}
