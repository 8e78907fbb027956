public import Core

/// Reads a write batch record by record and believes nothing: every length, tag and the count are checked, and
/// bytes that are no batch of puts and deletes end in `KVError(.corrupted)`, never in a trap.
///
/// The records lent by ``next()`` point into the bytes given at `init` and live as long as those.
public struct WriteBatchReader {
    public struct Record {
        /// The key as it is in RocksDB, prefix included; never empty.
        public let key: UnsafeRawBufferPointer
        /// Nil for a delete.
        public let value: UnsafeRawBufferPointer?
        /// Where the record starts, from the start of the batch.
        public let offset: Int
    }

    public let sequence: UInt64
    /// As the header claims; checked against the records when the last has been read.
    public let count: UInt32
    private let bytes: UnsafeRawBufferPointer
    /// Where the next record starts.
    public private(set) var offset = WriteBatchBuilder.headerBytes
    private var recordsRead: UInt32 = 0

    public init(_ bytes: UnsafeRawBufferPointer) throws(KVError) {
        guard bytes.count >= WriteBatchBuilder.headerBytes else {
            throw KVError(.corrupted, "a write batch of \(bytes.count) bytes is shorter than its header")
        }
        self.bytes = bytes
        sequence = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self))
        count = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
    }

    /// The next record, or nil after the last one.
    public mutating func next() throws(KVError) -> Record? {
        guard offset < bytes.count else {
            guard recordsRead == count else {
                throw KVError(.corrupted, "a write batch claims \(count) records and holds \(recordsRead)")
            }
            return nil
        }
        let start = offset
        let tag = bytes[offset]
        offset += 1
        guard tag == WriteBatchBuilder.putTag || tag == WriteBatchBuilder.deleteTag else {
            throw KVError(.corrupted, "a write batch holds a record of unknown kind \(tag) at byte \(start)")
        }
        let key = try lengthPrefixed()
        guard !key.isEmpty else {
            throw KVError(.corrupted, "a write batch holds an empty key at byte \(start)")
        }
        let value = tag == WriteBatchBuilder.putTag ? try lengthPrefixed() : nil
        recordsRead &+= 1
        return Record(key: key, value: value, offset: start)
    }

    private mutating func lengthPrefixed() throws(KVError) -> UnsafeRawBufferPointer {
        let length = try varint()
        guard length <= bytes.count - offset else {
            throw KVError(.corrupted, "a record of a write batch reaches past its end, at byte \(offset)")
        }
        let slice = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + length])
        offset += length
        return slice
    }

    private mutating func varint() throws(KVError) -> Int {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while offset < bytes.count, shift <= 28 {
            let byte = bytes[offset]
            offset += 1
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 {
                guard value <= UInt64(UInt32.max) else { break }
                return Int(value)
            }
            shift += 7
        }
        throw KVError(.corrupted, "a write batch holds a length that is no varint32, at byte \(offset)")
    }
}
