import CRocksDB
public import Core

extension Database {
    /// Calls `body` once for every user record that can still be read, with bytes that are lent, until it returns false: where
    /// blocks of tables cannot be read, it goes on behind them. Nobody may write meanwhile. Blocks.
    ///
    /// It goes on from the smallest keys of the tables that follow, and from each of these, or from the end, backwards up to
    /// the damage. So of two damaged blocks of one table it misses what lies between them; and where the first block of a table is
    /// damaged that was flushed and not compacted yet, all that lies before it, as RocksDB asks every such table. No older version of a record
    /// shows up for one that cannot be read: RocksDB's iterator stops where any table has damage.
    /// - Returns: why not everything could be read; nil if it could.
    ///
    /// Throws `KVError(.unavailable)` once closed.
    public func forEachReadableUserRecord(
        _ body: (_ key: UnsafeRawBufferPointer, _ value: StoredValue) -> Bool
    ) throws(KVError) -> KVError? {
        try enter()
        defer { leave() }
        let starts = tableStarts()
        var firstFailure: KVError?
        var from = [KeySpace.user]
        while true {
            let walk = SalvageWalk(self)
            walk.seek(from)
            guard walk.forward(body), let failure = walk.failure else { return firstFailure ?? walk.undecodable }
            firstFailure = firstFailure ?? failure
            let damage = walk.last ?? from
            let next = starts.first { $0.lexicographicallyPrecedes(damage) == false && $0 != damage && canSeek($0) }
            let back = SalvageWalk(self)
            back.seekBefore(next ?? [KeySpace.user + 1])
            guard back.backward(downTo: damage, isDelivered: walk.last != nil, body), let next else {
                return firstFailure
            }
            from = next
        }
    }

    private func canSeek(_ key: [UInt8]) -> Bool {
        let walk = SalvageWalk(self)
        walk.seek(key)
        return walk.failure == nil
    }

    /// The smallest user keys of the tables, rising, without repetitions.
    private func tableStarts() -> [[UInt8]] {
        let files = rocksdb_livefiles(handle.pointer)
        defer { rocksdb_livefiles_destroy(files) }
        var starts: Set<[UInt8]> = []
        for index in 0..<rocksdb_livefiles_count(files) {
            var bytes = 0
            let key = rocksdb_livefiles_smallestkey(files, index, &bytes)
            let start = [UInt8](UnsafeRawBufferPointer(start: key, count: bytes))
            if start.first == KeySpace.user { starts.insert(start) }
        }
        return starts.sorted { $0.lexicographicallyPrecedes($1) }
    }
}

/// One iterator over user records, for as long as it can read.
private final class SalvageWalk {
    private let options: OpaquePointer?
    private let iterator: OpaquePointer?
    private let path: String
    /// The last key that was handed on, prefix included.
    private(set) var last: [UInt8]?
    /// What a record that is no stored value has led to. It is passed over.
    private(set) var undecodable: KVError?

    init(_ database: Database) {
        path = database.path
        options = rocksdb_readoptions_create()
        rocksdb_readoptions_set_fill_cache(options, 0)
        // An iterator of RocksDB 7.8 can lose an error at the end of a table where it also looks for ranges that were deleted.
        rocksdb_readoptions_set_ignore_range_deletions(options, 1)
        iterator = rocksdb_create_iterator(database.handle.pointer, options)
    }

    deinit {
        rocksdb_iter_destroy(iterator)
        rocksdb_readoptions_destroy(options)
    }

    /// What keeps it from reading on.
    var failure: KVError? {
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_iter_get_error(iterator, &failure)
        return RocksDBStatus(taking: failure)?.error("cannot read from \(path)")
    }

    func seek(_ key: [UInt8]) {
        key.withUnsafeBytes { bytes in
            rocksdb_iter_seek(iterator, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
        }
    }

    /// To the last record before `key`.
    func seekBefore(_ key: [UInt8]) {
        key.withUnsafeBytes { bytes in
            rocksdb_iter_seek_for_prev(iterator, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
        }
        if let current, current.elementsEqual(key) { rocksdb_iter_prev(iterator) }
    }

    private var current: UnsafeRawBufferPointer? {
        guard rocksdb_iter_valid(iterator) != 0 else { return nil }
        var bytes = 0
        return UnsafeRawBufferPointer(start: rocksdb_iter_key(iterator, &bytes), count: bytes)
    }

    /// Returns false where `body` wants no more.
    func forward(_ body: (UnsafeRawBufferPointer, StoredValue) -> Bool) -> Bool {
        while let key = current, key.first == KeySpace.user {
            guard handOn(key, body) else { return false }
            last = Array(key)
            rocksdb_iter_next(iterator)
        }
        return true
    }

    /// - Parameter isDelivered: whether `body` has had the record at `bound`.
    func backward(
        downTo bound: [UInt8], isDelivered: Bool, _ body: (UnsafeRawBufferPointer, StoredValue) -> Bool
    ) -> Bool {
        while let key = current, key.first == KeySpace.user, !key.lexicographicallyPrecedes(bound) {
            if isDelivered, key.elementsEqual(bound) { break }
            guard handOn(key, body) else { return false }
            rocksdb_iter_prev(iterator)
        }
        return true
    }

    private func handOn(_ key: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer, StoredValue) -> Bool) -> Bool {
        var bytes = 0
        let record = UnsafeRawBufferPointer(start: rocksdb_iter_value(iterator, &bytes), count: bytes)
        guard let value = StoredValue(decoding: record) else {
            undecodable = KVError(.corrupted, "a record in \(path) is no stored value of this version")
            return true
        }
        return body(UnsafeRawBufferPointer(rebasing: key[1...]), value)
    }
}
