import Core
import FoundationEssentials
import LSM
import TestSupport
import Testing

@Suite struct CheckpointTests {
    @Test func holdsWhatWasThereAndNothingLater() throws {
        let directory = try TemporaryDirectory()
        let shared = SharedResources()
        let database = try Database(path: directory.path + "/db", shared: shared)
        for number in 0..<100 { try database.put("key-\(number)", "value") }
        let path = directory.path + "/checkpoint"
        try database.checkpoint(to: path)
        try database.put("later", "value")

        var options = DatabaseOptions()
        options.isReadOnly = true
        options.mustExist = true
        let checkpoint = try Database(path: path, shared: shared, options: options)
        #expect(try checkpoint.find("key-99") == .value(1, Array("value".utf8)))
        #expect(try checkpoint.find("later") == .missing)
        #expect(throws: KVError.self) { try checkpoint.put("more", "value") }
        try checkpoint.close()
        // Looking at it leaves nothing behind that would be taken for one of its files.
        let names = try FileManager.default.contentsOfDirectory(atPath: path)
        #expect(!names.contains("LOCK") && !names.contains("LOG"))
        try database.close()
    }

    /// Tables are shared with the database, so a checkpoint takes no space of its own at first.
    @Test func tablesAreHardLinks() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path + "/db", shared: SharedResources())
        try database.put("key", "value")
        try database.checkpoint(to: directory.path + "/checkpoint")
        let tables = try FileManager.default.contentsOfDirectory(atPath: directory.path + "/checkpoint")
            .filter { $0.hasSuffix(".sst") }
        #expect(!tables.isEmpty)
        for table in tables {
            let attributes = try FileManager.default.attributesOfItem(
                atPath: "\(directory.path)/checkpoint/\(table)")
            #expect(attributes[.referenceCount] as? Int == 2)
        }
        try database.close()
    }

    @Test func whereSomethingIsNothingIsMade() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path + "/db", shared: SharedResources())
        try database.put("key", "value")
        #expect(throws: KVError.self) { try database.checkpoint(to: directory.path + "/db") }
        #expect(throws: KVError.self) { try database.checkpoint(to: directory.path + "/none/checkpoint") }
        #expect(try database.find("key") == .value(1, Array("value".utf8)))
        try database.close()
        #expect(throws: KVError.self) { try database.checkpoint(to: directory.path + "/closed") }
    }
}
