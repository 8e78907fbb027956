import Core
import LSM
import NIOCore
import TestSupport
import Testing

@Suite struct WALIteratorTests {
    private func sequence(_ iterator: WALIterator) throws -> UInt64? {
        try iterator.takeBatch { (bytes: UnsafeRawBufferPointer) throws(KVError) in try WriteBatchReader(bytes).sequence
        }
    }

    @Test func goesOnAfterBeingCaughtUp() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        #expect(try WALIterator(database, since: 1) == nil)
        try database.put("a", "1")
        let iterator = try #require(try WALIterator(database, since: 1))
        #expect(try sequence(iterator) == 1)
        #expect(try sequence(iterator) == nil, "each batch is given out once")
        #expect(try iterator.next() == .caughtUp)
        try database.put("b", "1")
        #expect(try iterator.next() == .batch)
        #expect(try sequence(iterator) == 2)
        #expect(try WALIterator(database, since: 3) == nil)
    }

    @Test func aRotatedLogWantsANewIterator() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        try database.put("a", "1")
        let iterator = try #require(try WALIterator(database, since: 1))
        #expect(try iterator.next() == .caughtUp)
        try database.flush()
        try database.put("b", "1")
        #expect(try iterator.next() == .reopen)
        let reopened = try #require(try WALIterator(database, since: 2))
        #expect(try sequence(reopened) == 2)
        let whole = try #require(try WALIterator(database, since: 1))
        #expect(try sequence(whole) == 1)
        #expect(try whole.next() == .batch)
        #expect(try sequence(whole) == 2)
    }

    @Test func theLogOutlivesARestart() throws {
        let directory = try TemporaryDirectory()
        for round in 0..<3 {
            let database = try Database(path: directory.path, shared: SharedResources())
            for index in 0..<10 { try database.put("key-\(round)-\(index)", "v") }
            try database.close()
        }
        let database = try Database(path: directory.path, shared: SharedResources())
        let iterator = try #require(try WALIterator(database, since: 1))
        var seen: [UInt64] = []
        repeat {
            if let found = try sequence(iterator) { seen.append(found) }
        } while try iterator.next() == .batch
        #expect(seen == Array(1...30))
    }

    @Test func trimmedLogIsGoneFromTheFront() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        for round in 0..<5 {
            for index in 0..<10 { try database.put("key-\(round)-\(index)", String(repeating: "v", count: 1_000)) }
            try database.flush()
        }
        #expect(try database.trimArchivedLogs(keepingBytes: 1 << 30) == 0)
        let deleted = try database.trimArchivedLogs(keepingBytes: 25_000)
        #expect(deleted >= 2 && deleted < 5)
        let iterator = try #require(try WALIterator(database, since: 1))
        #expect(try sequence(iterator) == UInt64(deleted) * 10 + 1, "it starts later than asked, with status OK")
    }

    @Test func anIteratorKeepsTheDatabaseOpen() throws {
        let directory = try TemporaryDirectory()
        let database = try Database(path: directory.path, shared: SharedResources())
        try database.put("a", "1")
        var iterator = try WALIterator(database, since: 1)
        #expect(iterator?.hasBatch == true)
        iterator = nil
        try database.close()
    }
}
