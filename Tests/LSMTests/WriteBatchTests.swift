import Core
import LSM
import NIOCore
import TestSupport
import Testing

@Suite struct WriteBatchTests {
    @Test func bytesAreRocksDBsFormat() throws {
        var builder = WriteBatchBuilder()
        builder.put(
            key: ByteBuffer(string: "key"), version: Version(rawValue: 0x0102_0304_0506_0708),
            value: ByteBuffer(string: "value"))
        builder.delete(key: ByteBuffer(string: "k2"))
        let expected: [UInt8] =
            [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]
            + [0x01, 4, 0x01] + Array("key".utf8) + [14, 0, 1, 2, 3, 4, 5, 6, 7, 8] + Array("value".utf8)
            + [0x00, 3, 0x01] + Array("k2".utf8)
        #expect(builder.count == 2)
        #expect(builder.batchBytes == expected.count)
        #expect(bytes(builder.finish()) == expected)
    }

    @Test func longLengthsAreVarints() throws {
        for length in [0, 1, 116, 117, 127, 128, 16_373, 16_374, 16_383, 16_384, 2_097_142, 2_097_143] {
            let value = [UInt8](repeating: 7, count: length)
            var builder = WriteBatchBuilder(reservedBytes: 32)
            builder.put(key: ByteBuffer(string: "k"), version: Version(rawValue: 9), value: ByteBuffer(bytes: value))
            let whole = bytes(builder.finish())
            #expect(whole[..<32].allSatisfy { $0 == 0 })
            try Array(whole[32...]).withUnsafeBytes { batch in
                var reader = try WriteBatchReader(batch)
                let record = try #require(try reader.next())
                let stored = try #require(record.value.flatMap { StoredValue(decoding: $0) })
                #expect(Array(stored.bytes) == value)
                #expect(stored.version.rawValue == 9)
                #expect(try reader.next() == nil)
            }
        }
    }

    @Test func joiningIsConcatenation() throws {
        var first = WriteBatchBuilder()
        first.put(key: ByteBuffer(string: "a"), version: Version(rawValue: 1), value: ByteBuffer(string: "1"))
        var second = WriteBatchBuilder()
        second.delete(key: ByteBuffer(string: "b"))
        second.delete(key: ByteBuffer(string: "c"))
        var joined = WriteBatchBuilder()
        joined.append(recordsOf: first.finish())
        joined.append(recordsOf: second.finish())
        #expect(joined.count == 3)
        let batch = bytes(joined.finish())
        let keys = try batch.withUnsafeBytes { batch in
            var reader = try WriteBatchReader(batch)
            var keys: [String] = []
            while let record = try reader.next() { keys.append(String(decoding: record.key[1...], as: UTF8.self)) }
            return keys
        }
        #expect(keys == ["a", "b", "c"])
    }

    @Test func rocksDBReadsWhatIsBuiltAndLogsTheSameBytes() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        var generator = SeededGenerator(seed: 42)
        var content: [String: Found] = [:]
        var sequence: UInt64 = 1
        for round in 0..<200 {
            var builder = WriteBatchBuilder()
            for _ in 0..<Int.random(in: 1...20, using: &generator) {
                let key = "key-\(Int.random(in: 0..<100, using: &generator))"
                if Bool.random(using: &generator) {
                    let value = (0..<Int.random(in: 0..<300, using: &generator)).map { UInt8(truncatingIfNeeded: $0) }
                    builder.put(
                        key: ByteBuffer(string: key), version: Version(rawValue: UInt64(round)),
                        value: ByteBuffer(bytes: value))
                    content[key] = .value(UInt64(round), value)
                } else {
                    builder.delete(key: ByteBuffer(string: key))
                    content[key] = .missing
                }
            }
            let count = builder.count
            let batch = builder.finish()
            try batch.withUnsafeReadableBytes { try database.write($0, sync: false) }
            let iterator = try #require(try WALIterator(database, since: sequence))
            let logged = try #require(try iterator.takeBatch { Array($0) })
            #expect(Array(logged[8...]) == Array(bytes(batch)[8...]))
            #expect(logged[..<8].enumerated().reduce(0) { $0 | UInt64($1.element) << (8 * $1.offset) } == sequence)
            sequence += UInt64(count)
        }
        for (key, found) in content { #expect(try database.find(key) == found) }
        #expect(try database.latestSequence() == sequence - 1)
    }

    /// Bit flips, truncation and garbage end in an error or in records inside the bytes, never in a trap; and what the
    /// reader accepts, RocksDB accepts.
    @Test(arguments: [UInt64(1), 2, 3, 4]) func damageNeverTraps(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var refused = 0
        for _ in 0..<5_000 {
            var builder = WriteBatchBuilder()
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let key = ByteBuffer(bytes: (0..<Int.random(in: 1...200, using: &generator)).map { _ in UInt8(7) })
                if Bool.random(using: &generator) {
                    builder.put(key: key, version: Version(rawValue: 5), value: ByteBuffer(string: "abc"))
                } else {
                    builder.delete(key: key)
                }
            }
            var batch = bytes(builder.finish())
            switch Int.random(in: 0..<4, using: &generator) {
            case 0: batch.removeLast(Int.random(in: 1...batch.count, using: &generator))
            case 1:
                for _ in 0..<Int.random(in: 1...8, using: &generator) {
                    let bit = Int.random(in: 0..<batch.count * 8, using: &generator)
                    batch[bit / 8] ^= 1 << (bit % 8)
                }
            case 2:
                let at = Int.random(in: 8..<batch.count, using: &generator)
                batch.insert(UInt8.random(in: 0...255, using: &generator), at: at)
            default: batch = (0..<batch.count).map { _ in UInt8.random(in: 0...255, using: &generator) }
            }
            let isRefused = batch.withUnsafeBytes { bytes in
                do {
                    var reader = try WriteBatchReader(bytes)
                    while try reader.next() != nil {}
                    return false
                } catch {
                    return (error as? KVError)?.code == .corrupted
                }
            }
            refused += isRefused ? 1 : 0
        }
        #expect(refused > 2_000, "seed \(seed)")
    }

    @Test func everyTruncationIsRefused() throws {
        var builder = WriteBatchBuilder()
        builder.put(key: ByteBuffer(string: "key"), version: Version(rawValue: 5), value: ByteBuffer(string: "abc"))
        builder.delete(key: ByteBuffer(string: "other"))
        let whole = bytes(builder.finish())
        for length in 0..<whole.count {
            #expect(throws: KVError.self) {
                try whole[..<length].withUnsafeBytes { bytes in
                    var reader = try WriteBatchReader(bytes)
                    while try reader.next() != nil {}
                }
            }
        }
    }
}
