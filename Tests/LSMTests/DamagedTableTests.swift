import Core
import FoundationEssentials
import LSM
import NIOCore
import TestSupport
import Testing

/// A database of several tables in one sorted run, damaged everywhere: whoever reads gets what was written, or an error.
@Suite struct DamagedTableTests {
    private static let keys = 600
    private static let valueBytes = 400
    /// About every block, and the footer of every table.
    private static let step = 1_500

    private static func options() -> DatabaseOptions {
        var options = DatabaseOptions()
        options.tableBytesMax = 32 << 10
        return options
    }

    private static func key(_ index: Int) -> String { "key-\(1_000 + index)" }

    private static func open(_ directory: TemporaryDirectory) throws(KVError) -> Database {
        try Database(path: directory.path, shared: SharedResources(), options: options())
    }

    /// Paths of the tables.
    private static func make(_ directory: TemporaryDirectory, values: [[UInt8]]) throws -> [String] {
        let database = try open(directory)
        for (index, value) in values.enumerated() {
            try database.write {
                $0.put(
                    key: ByteBuffer(string: key(index)), version: Version(rawValue: UInt64(index)),
                    value: ByteBuffer(bytes: value))
            }
        }
        try database.compact()
        try database.close()
        return try FileManager.default.contentsOfDirectory(atPath: directory.path).filter { $0.hasSuffix(".sst") }
            .sorted().map { "\(directory.path)/\($0)" }
    }

    /// Every way of reading; each gives all records or throws.
    private static func reads(_ values: [[UInt8]]) -> [(name: String, read: (Database) throws -> [[UInt8]])] {
        func all(_ body: ((UnsafeRawBufferPointer, StoredValue) -> Bool) throws -> Void) throws -> [[UInt8]] {
            var found: [[UInt8]] = []
            try body { _, value in
                found.append(Array(value.bytes))
                return true
            }
            return found
        }
        return [
            ("scan", { database in try all { try database.scan(ScanBounds(), $0) } }),
            ("long scan", { database in try all { try database.scan(ScanBounds(), isLong: true, $0) } }),
            (
                "reverse scan",
                { database in try all { try database.scan(ScanBounds(isReverse: true), $0) }.reversed() }
            ),
            ("every user record", { database in try all { try database.forEachUserRecord($0) } }),
            (
                "every record of a snapshot",
                { database in
                    let snapshot = try DatabaseSnapshot(of: database)
                    defer { snapshot.release() }
                    return try all { body in
                        try snapshot.forEachRecord(from: [KeySpace.user]) { key, record in
                            StoredValue(decoding: record).map { body(key, $0) } ?? false
                        }
                    }
                }
            ),
            (
                "gets",
                { database in
                    try values.indices.map { index in
                        guard case .value(_, let bytes) = try database.find(key(index)) else { return [] }
                        return bytes
                    }
                }
            ),
        ]
    }

    @Test func everyReadSaysSo() throws {
        let seed: UInt64 = 4
        var random = SeededGenerator(seed: seed)
        let values = (0..<DamagedTableTests.keys).map { _ in random.bytes(DamagedTableTests.valueBytes) }
        let directory = try TemporaryDirectory()
        let tables = try DamagedTableTests.make(directory, values: values)
        try #require(tables.count > 5)
        let reads = DamagedTableTests.reads(values)
        var failures = [Int](repeating: 0, count: reads.count)
        var damages = 0
        for table in tables {
            let sound = Array(try #require(FileManager.default.contents(atPath: table)))
            for place in stride(from: 10, to: sound.count, by: DamagedTableTests.step) + [sound.count - 4] {
                var bytes = sound
                bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                try Data(bytes).write(to: URL(filePath: table))
                damages += 1
                guard let database = try corruptedAsNil({ try DamagedTableTests.open(directory) }) else { continue }
                for (index, (name, read)) in reads.enumerated() {
                    if let found = try corruptedAsNil({ try read(database) }) {
                        #expect(found == values, "\(name), byte \(place) of \(table), seed \(seed)")
                    } else {
                        failures[index] += 1
                    }
                }
                try database.close()
            }
            try Data(sound).write(to: URL(filePath: table))
        }
        // Nearly all of a table are blocks of data.
        #expect(failures.allSatisfy { $0 > damages / 2 }, "\(failures) of \(damages)")
    }

    /// What cannot be read must not be left out of the table that takes its place.
    @Test func aCompactionLosesNothing() throws {
        var random = SeededGenerator(seed: 5)
        let values = (0..<DamagedTableTests.keys).map { _ in random.bytes(DamagedTableTests.valueBytes) }
        let source = try TemporaryDirectory()
        let tables = try DamagedTableTests.make(source, values: values)
        for table in tables {
            for place in [10, 9_000] {
                let directory = try TemporaryDirectory()
                let copy = directory.path + "/db"
                try FileManager.default.copyItem(atPath: source.path, toPath: copy)
                let damaged = "\(copy)/\(table.split(separator: "/").last ?? "")"
                let sound = Array(try #require(FileManager.default.contents(atPath: damaged)))
                guard place < sound.count else { continue }
                var bytes = sound
                bytes[place] ^= 8
                try Data(bytes).write(to: URL(filePath: damaged))
                let opened = try corruptedAsNil {
                    try Database(path: copy, shared: SharedResources(), options: DamagedTableTests.options())
                }
                if let database = opened {
                    // Something on top, so that there is something to merge.
                    for index in stride(from: 0, to: values.count, by: 7) {
                        try database.write {
                            $0.put(
                                key: ByteBuffer(string: DamagedTableTests.key(index)),
                                version: Version(rawValue: UInt64(index)), value: ByteBuffer(bytes: values[index]))
                        }
                    }
                    #expect(throws: KVError.self, "byte \(place) of \(damaged)") {
                        try database.flush()
                        try database.compact()
                    }
                    try database.close()
                }
                if FileManager.default.fileExists(atPath: damaged) {
                    try Data(sound).write(to: URL(filePath: damaged))
                }
                let database = try Database(
                    path: copy, shared: SharedResources(), options: DamagedTableTests.options())
                var found: [[UInt8]] = []
                try database.forEachUserRecord { _, value in
                    found.append(Array(value.bytes))
                    return true
                }
                #expect(found == values, "byte \(place) of \(damaged)")
                try database.close()
            }
        }
    }
}

/// Nil for what throws `.corrupted`.
private func corruptedAsNil<Value>(_ body: () throws -> Value) throws -> Value? {
    do {
        return try body()
    } catch let error as KVError where error.code == .corrupted {
        return nil
    }
}

private func + (places: StrideTo<Int>, more: [Int]) -> [Int] { Array(places) + more }
