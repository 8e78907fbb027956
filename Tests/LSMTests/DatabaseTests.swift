import Core
import FoundationEssentials
import LSM
import NIOCore
import TestSupport
import Testing

@Suite struct DatabaseTests {
    @Test func readsWhatWasWritten() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        try database.put("a", "1", version: 7)
        try database.put("empty", "")
        #expect(try database.find("a") == .value(7, Array("1".utf8)))
        #expect(try database.find("a", tier: .memory) == .value(7, Array("1".utf8)))
        #expect(try database.find("empty") == .value(1, []))
        #expect(try database.find("b", tier: .memory) == .missing)
        try database.write { $0.delete(key: ByteBuffer(string: "a")) }
        #expect(try database.find("a") == .missing)
        let long = String(repeating: "k", count: 4_096)
        try database.put(long, "long")
        #expect(try database.find(long, tier: .memory) == .value(1, Array("long".utf8)))
    }

    @Test func aColdReadWouldBlockAndTheDiskHasIt() throws {
        let directory = try TemporaryDirectory()
        do {
            let database = try Database(path: directory.path, shared: SharedResources())
            for index in 0..<1_000 { try database.put("key-\(index)", String(repeating: "v", count: 100)) }
            try database.flush()
            try database.close()
        }
        let database = try Database(path: directory.path, shared: SharedResources())
        #expect(try database.find("key-500", tier: .memory) == .wouldBlock)
        #expect(try database.find("key-500", tier: .disk) == .value(1, [UInt8](repeating: 118, count: 100)))
        #expect(try database.find("key-500", tier: .memory) == .value(1, [UInt8](repeating: 118, count: 100)))
    }

    /// RocksDB writes down the options it opened with.
    @Test func theLogIsKeptBySizeAndNeverByAge() throws {
        let directory = try TemporaryDirectory()
        var options = DatabaseOptions()
        options.logRetentionBytes = 5 << 20
        let database = try Database(path: directory.path, shared: SharedResources(), options: options)
        try database.close()
        let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
        let name = try #require(names.filter { $0.hasPrefix("OPTIONS-") }.max())
        let bytes = try #require(FileManager.default.contents(atPath: directory.path + "/" + name))
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n").map {
            $0.trimmingPrefix { $0 == " " }
        }
        #expect(lines.contains("WAL_ttl_seconds=0") && lines.contains("WAL_size_limit_MB=5"))
        #expect(lines.contains("recycle_log_file_num=0"), "a reused file would end in records of before")
    }

    @Test func aDirectoryInUseIsLocked() throws {
        let directory = try TemporaryDirectory()
        let shared = SharedResources()
        let first = try Database(path: directory.path, shared: shared)
        let error = #expect(throws: KVError.self) { _ = try Database(path: directory.path, shared: shared) }
        #expect(error?.code == .locked)
        try first.close()
        _ = try Database(path: directory.path, shared: shared)
    }

    @Test func aDamagedTableIsCorrupted() throws {
        let directory = try TemporaryDirectory()
        do {
            let database = try Database(path: directory.path, shared: SharedResources())
            for index in 0..<1_000 { try database.put("key-\(index)", String(repeating: "v", count: 100)) }
            try database.flush()
            try database.close()
        }
        let names = try FileManager.default.contentsOfDirectory(atPath: directory.path).filter { $0.hasSuffix(".sst") }
        let path = directory.path + "/" + (try #require(names.first))
        var table = try Data(contentsOf: URL(filePath: path))
        for index in 0..<2_000 { table[index] ^= 0x55 }
        try table.write(to: URL(filePath: path))
        let error = #expect(throws: KVError.self) {
            let database = try Database(path: directory.path, shared: SharedResources())
            for index in 0..<1_000 { _ = try database.find("key-\(index)") }
        }
        #expect(error?.code == .corrupted)
    }

    @Test func aRecordOfAnUnknownFormatIsCorrupted() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        try database.write { batch in
            let key: [UInt8] = [KeySpace.user] + Array("a".utf8)
            let value: [UInt8] = [0x80] + [UInt8](repeating: 0, count: 20)
            key.withUnsafeBytes { key in value.withUnsafeBytes { batch.putRaw(key: key, value: $0) } }
        }
        let error = #expect(throws: KVError.self) { _ = try database.find("a") }
        #expect(error?.code == .corrupted)
    }

    /// Whoever opens decides what may be missing of a log; RocksDB drops nothing by itself.
    @Test(arguments: [false, true]) func aLogThatIsNotWholeDoesNotOpen(isCut: Bool) throws {
        let directory = try TemporaryDirectory()
        do {
            let database = try Database(path: directory.path, shared: SharedResources())
            for index in 0..<100 { try database.put("key-\(index)", String(repeating: "v", count: 100)) }
            try database.close()
        }
        let log = try #require(try LogFile.live(in: directory.path).last)
        let path = "\(directory.path)/\(log.name)"
        var bytes = try Data(contentsOf: URL(filePath: path))
        if isCut { bytes = bytes.dropLast(40) } else { bytes[bytes.count / 2] ^= 1 }
        try bytes.write(to: URL(filePath: path))
        let error = #expect(throws: KVError.self) { _ = try Database(path: directory.path, shared: SharedResources()) }
        #expect(error?.code == .corrupted)
    }

    @Test func garbageIsNotApplied() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        let tooShort: [UInt8] = [1, 2, 3]
        var damaged = [UInt8](repeating: 0, count: 12)
        damaged[8] = 3
        damaged += [0x7E, 1, 1]
        for batch in [tooShort, damaged] {
            let error = #expect(throws: KVError.self) {
                try batch.withUnsafeBytes { try database.write($0, sync: false) }
            }
            #expect(error?.code == .corrupted)
        }
    }

    @Test func aClosedDatabaseRefuses() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        try database.put("a", "1")
        try database.close()
        try database.close()
        let error = #expect(throws: KVError.self) { _ = try database.find("a") }
        #expect(error?.code == .unavailable)
        #expect(throws: KVError.self) { try database.put("b", "1") }
    }

    @Test func userRecordsComeInKeyOrderWithoutTheReserved() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        try database.write { batch in
            let key: [UInt8] = [KeySpace.reserved, 1]
            key.withUnsafeBytes { batch.putRaw(key: $0, value: $0) }
        }
        for key in ["b", "a", "c"] { try database.put(key, key + key, version: 3) }
        var seen: [String] = []
        try database.forEachUserRecord { key, value in
            let text = String(decoding: value.bytes, as: UTF8.self)
            seen.append("\(String(decoding: key, as: UTF8.self)) \(value.version.rawValue) \(text)")
            return true
        }
        #expect(seen == ["a 3 aa", "b 3 bb", "c 3 cc"])
        let sizes = try database.sizes()
        #expect(sizes.keysEstimate == 4)
        #expect(sizes.logBytes > 0)
        #expect(sizes.memtableBytes > 0)
    }
}
