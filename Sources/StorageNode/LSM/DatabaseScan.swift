import CRocksDB
public import Core

/// The user keys `lower ≤ key < upper`, in the order in which a scan takes them.
public struct ScanBounds: Sendable, Hashable {
    public var lower: [UInt8]
    /// Nil for the end of the key space.
    public var upper: [UInt8]?
    /// From the upper end down.
    public var isReverse: Bool

    public init(lower: [UInt8] = [], upper: [UInt8]? = nil, isReverse: Bool = false) {
        self.lower = lower
        self.upper = upper
        self.isReverse = isReverse
    }
}

extension Database {
    /// What is read ahead of a scan that says it will be long. Short ones leave it to RocksDB, which begins small and
    /// doubles.
    public static let scanReadAheadBytes = 512 << 10

    /// Calls `body` for the user records within `bounds`, in their order, with bytes that are lent, until it returns
    /// false; all of one moment. Leaves the block cache as it is. Blocks.
    ///
    /// Throws `KVError`: `.corrupted` for a damaged block or a record that is no stored value, `.storageFailed`,
    /// `.unavailable` once closed, also when that happens meanwhile.
    /// - Parameter isLong: whether thousands of records may be wanted.
    public func scan(
        _ bounds: ScanBounds, isLong: Bool = false,
        _ body: (_ key: UnsafeRawBufferPointer, _ value: StoredValue) -> Bool
    ) throws(KVError) {
        if let upper = bounds.upper, !bounds.lower.lexicographicallyPrecedes(upper) { return }
        try enter()
        defer { leave() }
        let lower = [KeySpace.user] + bounds.lower
        let upper = bounds.upper.map { [KeySpace.user] + $0 } ?? [KeySpace.user + 1]
        // RocksDB keeps the bounds' addresses for as long as the iterator lives.
        let failure = lower.withUnsafeBytes { lower in
            upper.withUnsafeBytes { upper -> KVError? in
                let options = Database.iterationOptions()
                defer { rocksdb_readoptions_destroy(options) }
                if isLong { rocksdb_readoptions_set_readahead_size(options, Database.scanReadAheadBytes) }
                rocksdb_readoptions_set_iterate_lower_bound(options, lower.characters, lower.count)
                rocksdb_readoptions_set_iterate_upper_bound(options, upper.characters, upper.count)
                let iterator = rocksdb_create_iterator(handle.pointer, options)
                defer { rocksdb_iter_destroy(iterator) }
                if bounds.isReverse {
                    rocksdb_iter_seek_to_last(iterator)
                } else {
                    rocksdb_iter_seek_to_first(iterator)
                }
                return walk(iterator, isReverse: bounds.isReverse, body)
            }
        }
        if let failure { throw failure }
    }

    private func walk(
        _ iterator: OpaquePointer?, isReverse: Bool,
        _ body: (_ key: UnsafeRawBufferPointer, _ value: StoredValue) -> Bool
    ) -> KVError? {
        while rocksdb_iter_valid(iterator) != 0 {
            guard !isClosing else { return KVError(.unavailable, "the database \(path) is closed") }
            var (keyBytes, valueBytes) = (0, 0)
            let key = UnsafeRawBufferPointer(start: rocksdb_iter_key(iterator, &keyBytes), count: keyBytes)
            let record = UnsafeRawBufferPointer(start: rocksdb_iter_value(iterator, &valueBytes), count: valueBytes)
            guard let value = StoredValue(decoding: record) else {
                return KVError(.corrupted, "a record in \(path) is no stored value of this version")
            }
            guard body(UnsafeRawBufferPointer(rebasing: key[1...]), value) else { return nil }
            if isReverse { rocksdb_iter_prev(iterator) } else { rocksdb_iter_next(iterator) }
        }
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_iter_get_error(iterator, &failure)
        return RocksDBStatus(taking: failure)?.error("cannot read from \(path)")
    }
}

extension UnsafeRawBufferPointer {
    fileprivate var characters: UnsafePointer<CChar>? { baseAddress?.assumingMemoryBound(to: CChar.self) }
}
