import Core
import FoundationEssentials
import LSM
import NIOCore
import TestSupport
import Testing

/// Reading what is left of a database with damaged tables.
@Suite struct SalvageTests {
    private static let perTable = 400

    /// Four tables, one after the other by their keys, of some blocks each.
    /// - Parameter isSorted: in a level where RocksDB goes by the tables' ranges, instead of in the one where it asks all.
    private func fill(_ path: String, isSorted: Bool = true) throws {
        let database = try Database(path: path, shared: SharedResources())
        var random = SeededGenerator(seed: 1)
        for table in 0..<4 {
            try database.write { batch in
                for number in 0..<SalvageTests.perTable {
                    batch.put(
                        key: ByteBuffer(string: SalvageTests.key(table * SalvageTests.perTable + number)),
                        version: Version(rawValue: 1), value: ByteBuffer(bytes: random.bytes(100)))
                }
            }
            try database.flush()
            if isSorted { try database.compact() }
        }
        try database.close()
    }

    private static func key(_ number: Int) -> String { "key-\(100_000 + number)" }

    private func readable(_ path: String) throws -> (keys: [String], failure: KVError?) {
        let database = try Database(path: path, shared: SharedResources())
        var keys: [String] = []
        let failure = try database.forEachReadableUserRecord { key, value in
            #expect(value.bytes.count == 100)
            keys.append(String(decoding: key, as: UTF8.self))
            return true
        }
        try database.close()
        return (keys, failure)
    }

    @Test func aDatabaseThatIsWholeIsReadWholeInOrder() throws {
        let directory = try TemporaryDirectory()
        try fill(directory.path)
        let (keys, failure) = try readable(directory.path)
        #expect(failure == nil)
        #expect(keys == (0..<4 * SalvageTests.perTable).map(SalvageTests.key))
        let database = try Database(path: directory.path, shared: SharedResources())
        var count = 0
        #expect(
            try database.forEachReadableUserRecord { _, _ in
                count += 1
                return count < 5
            } == nil)
        #expect(count == 5)
        try database.close()
    }

    /// One block is lost, wherever it is, and nothing else.
    @Test(arguments: 0..<4, [(0.0, true), (0.4, true), (0.8, true), (0.4, false), (0.8, false)])
    func whatLiesBehindTheDamageIsRead(table: Int, _ damage: (place: Double, isSorted: Bool)) throws {
        let directory = try TemporaryDirectory()
        try fill(directory.path, isSorted: damage.isSorted)
        let names = try FileManager.default.contentsOfDirectory(atPath: directory.path).filter { $0.hasSuffix(".sst") }
            .sorted()
        try #require(names.count >= 2)
        let path = "\(directory.path)/\(names[table % names.count])"
        var contents = try Data(contentsOf: URL(filePath: path))
        contents[Int(Double(contents.count) * damage.place) + 50] ^= 1
        try contents.write(to: URL(filePath: path))
        let (keys, failure) = try readable(directory.path)
        #expect(failure?.code == .corrupted)
        let all = Set((0..<4 * SalvageTests.perTable).map(SalvageTests.key))
        let lost = all.subtracting(keys)
        #expect(keys.count == Set(keys).count && all.isSuperset(of: keys))
        #expect(!lost.isEmpty && lost.count < 100, "\(lost.count) records are lost with one block")
        let first = try #require(all.sorted().firstIndex(of: lost.min() ?? ""))
        #expect(lost.sorted() == Array(all.sorted()[first...].prefix(lost.count)), "it is one block")
    }
}
