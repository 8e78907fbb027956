import CRocksDB

/// Has compactions drop values that have expired. RocksDB calls it from its own threads, for every record that a
/// compaction rewrites and that no newer one hides; what it drops becomes a removal, so that nothing older shows up.
///
/// Snapshots do not hold a value that has expired: whoever reads one treats such a value as absent anyway.
final class ExpiryFilter: Sendable {
    /// How long after its expiry a value stays at least. Checksums of replicas are compared without values that expire
    /// soon; this bridges the time until both have been read, and clocks that differ.
    static let delayMilliseconds: UInt64 = 60_000

    let handle: ForeignHandle

    init(_ clock: ExpiryClock) {
        let state = Unmanaged.passRetained(clock).toOpaque()
        handle = ForeignHandle(
            pointer: rocksdb_compactionfilter_create(
                state,
                { state in
                    guard let state else { return }
                    Unmanaged<ExpiryClock>.fromOpaque(state).release()
                },
                { state, _, key, keyBytes, value, valueBytes, _, _, _ in
                    guard let state else { return 0 }
                    let isExpired = Unmanaged<ExpiryClock>.fromOpaque(state)._withUnsafeGuaranteedRef { clock in
                        ExpiryFilter.isExpired(
                            key: UnsafeRawBufferPointer(start: key, count: keyBytes),
                            UnsafeRawBufferPointer(start: value, count: valueBytes), clock)
                    }
                    return isExpired ? 1 : 0
                },
                { _ in UnsafeRawPointer(ExpiryFilter.name.utf8Start).assumingMemoryBound(to: CChar.self) }))
    }

    /// No database may use it any more.
    deinit { rocksdb_compactionfilter_destroy(handle.pointer) }

    private static let name: StaticString = "distribkv.expiry"

    /// Reads the clock for values that expire, and for no others. What is no stored value stays.
    private static func isExpired(
        key: UnsafeRawBufferPointer, _ record: UnsafeRawBufferPointer, _ clock: ExpiryClock
    ) -> Bool {
        guard key.first == KeySpace.user, record.first == StoredValue.expiringFlags,
            let expires = StoredValue(decoding: record)?.expiresMilliseconds
        else { return false }
        // Dropping is for good: a clock that was set wrong for a while must not decide it.
        guard let past = clock.certainlyPast() else { return false }
        return past >= delayMilliseconds && expires <= past - delayMilliseconds
    }
}
