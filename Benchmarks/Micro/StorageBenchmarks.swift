import Core
import Foundation
import LSM
import NIOCore

/// How values are stored and batches of writes built; and a look-up in RocksDB itself, to compare with.
let storageBenchmarks = [
    Benchmark("batch of 32 puts built", iterations: 200) {
        let (keys, value) = (Fixture.keys, Fixture.value)
        return { number in
            var builder = WriteBatchBuilder(
                reservedBytes: 32, capacity: 32 * WriteBatchBuilder.putBytesMax(keyBytes: 12, valueBytes: 100))
            for place in 0..<32 {
                builder.put(
                    key: keys[(number + place) & Fixture.keyMask], version: Version(rawValue: UInt64(number)),
                    value: value)
            }
            keep(builder.finish())
        }
    },
    Benchmark("batch of 32 puts read", iterations: 200) {
        let batch = Fixture.batch(puts: 32)
        return { _ in
            try batch.withUnsafeReadableBytes { bytes in
                var reader = try WriteBatchReader(bytes)
                while let record = try reader.next() { keep(record.offset) }
            }
        }
    },
    Benchmark("stored value decoded") {
        var record = ByteBuffer(bytes: [0])
        record.writeInteger(UInt64(7))
        record.writeImmutableBuffer(Fixture.value)
        return { _ in
            record.withUnsafeReadableBytes { keep(StoredValue(decoding: $0)?.bytes.count) }
        }
    },
    Benchmark("look-up in RocksDB, memtable") {
        // A name of its own: two counts of the same benchmark may run at once.
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("microbench-\(UUID())").path
        let database = try Database(path: folder, shared: SharedResources())
        try Fixture.batch(puts: Fixture.keyMask + 1).withUnsafeReadableBytes { try database.write($0, sync: false) }
        // It is open, and what is read is in memory: nothing has to stay behind.
        try FileManager.default.removeItem(atPath: folder)
        let keys = Fixture.keys
        return { number in
            try keys[number & Fixture.keyMask].withUnsafeReadableBytes { key in
                try database.read(key: key, tier: .memory) { lookup in
                    guard case .value(let value) = lookup else { return }
                    keep(value.bytes.count)
                }
            }
        }
    },
]

extension Fixture {
    static func batch(puts: Int) -> ByteBuffer {
        var builder = WriteBatchBuilder()
        for place in 0..<puts {
            builder.put(key: keys[place & keyMask], version: Version(rawValue: UInt64(1 + place)), value: value)
        }
        return builder.finish()
    }
}
