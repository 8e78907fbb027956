import Core

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Looks at the one thing in a table that RocksDB must not be shown damaged.
///
/// RocksDB reads a table's properties before it verifies their checksum. One bit in the last four bytes of that block, the
/// number of its restarts, says that a hash index follows, and a RocksDB with its assertions on, as Debian's is, then ends the
/// process: at every start, and with it all other shards of the node. Everything else is left to RocksDB, which finds it.
///
/// Format (rocksdb/table/format.h): the file ends in a footer of checksum type (1 byte), the places of the metaindex and
/// the index (varints, padded to 40 bytes), format version (4) and magic number (8). The metaindex is a block of keys and
/// places, without compression of keys.
enum TableEnd {
    private static let footerBytes = 53
    private static let magic: UInt64 = 0x88E2_41B7_85F4_CFF7
    private static let blockBytesMax = 1 << 20
    private static let hashIndexBit: UInt32 = 1 << 31

    /// Blocks. Nothing for a file that cannot be read or made sense of: RocksDB says what is wrong with it.
    ///
    /// - Parameter knownAs: what errors call the file; nil for its path.
    ///
    /// Throws `KVError(.corrupted)`.
    static func check(_ path: String, knownAs: String? = nil) throws(KVError) {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return }
        defer { close(file) }
        let size = lseek(file, 0, SEEK_END)
        guard size >= footerBytes, let footer = read(file, Int(size) - footerBytes, footerBytes),
            number(footer[45...], as: UInt64.self) == magic
        else { return }
        var places = footer[1..<41]
        guard let metaindex = place(&places, within: Int(size)),
            let block = read(file, metaindex.lowerBound, metaindex.count),
            let properties = properties(in: block, within: Int(size)), properties.count >= 4,
            let restarts = read(file, properties.upperBound - 4, 4)
        else { return }
        guard number(restarts[...], as: UInt32.self) & hashIndexBit == 0 else {
            throw KVError(.corrupted, "\(knownAs ?? path) is damaged: its properties end in what no such block ends in")
        }
    }

    private static func read(_ file: Int32, _ offset: Int, _ count: Int) -> [UInt8]? {
        guard count <= blockBytesMax else { return nil }
        var bytes = [UInt8](repeating: 0, count: count)
        let read = bytes.withUnsafeMutableBytes { pread(file, $0.baseAddress, count, off_t(offset)) }
        return read == count ? bytes : nil
    }

    private static func number<Number: FixedWidthInteger>(_ bytes: ArraySlice<UInt8>, as type: Number.Type) -> Number {
        bytes.prefix(Number.bitWidth / 8).reversed().reduce(0) { $0 << 8 | Number($1) }
    }

    private static func varint(_ bytes: inout ArraySlice<UInt8>) -> Int? {
        var value = 0
        var shift = 0
        while shift < 56, let byte = bytes.popFirst() {
            value |= Int(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        return nil
    }

    /// Of a block, without its trailer.
    private static func place(_ bytes: inout ArraySlice<UInt8>, within size: Int) -> Range<Int>? {
        guard let offset = varint(&bytes), let count = varint(&bytes), offset <= size, count <= size - offset else {
            return nil
        }
        return offset..<offset + count
    }

    private static func properties(in metaindex: [UInt8], within size: Int) -> Range<Int>? {
        var rest = metaindex[...]
        while rest.count > 4, let shared = varint(&rest), let own = varint(&rest), let valueBytes = varint(&rest) {
            guard shared == 0, own > 0, own <= rest.count, valueBytes <= rest.count - own else { return nil }
            let key = rest.prefix(own)
            var value = rest.dropFirst(own).prefix(valueBytes)
            rest = rest.dropFirst(own + valueBytes)
            if key.elementsEqual("rocksdb.properties".utf8) { return place(&value, within: size) }
        }
        return nil
    }
}
