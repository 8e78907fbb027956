import Core
import FoundationEssentials
import LSM
import TestSupport
import Testing

/// One table of several blocks, by itself, whose bits can be flipped.
private struct Table {
    let path: String
    let bytes: [UInt8]

    init(in directory: TemporaryDirectory) throws {
        let database = try Database(path: directory.path + "/db", shared: SharedResources())
        var random = SystemRandomNumberGenerator()
        for number in 0..<60 {
            // What cannot be compressed, so that there are blocks.
            let value = String((0..<80).map { _ in String(random.next(), radix: 36) }.joined().prefix(800))
            try database.put("key-\(number)", value)
        }
        try database.flush()
        try database.close()
        let folder = directory.path + "/db"
        let name = try #require(
            FileManager.default.contentsOfDirectory(atPath: folder).first { $0.hasSuffix(".sst") })
        path = "\(folder)/\(name)"
        bytes = Array(try Data(contentsOf: URL(filePath: path)))
    }

    func write(_ bytes: [UInt8]) throws { try Data(bytes).write(to: URL(filePath: path)) }

    /// The code of what the check says of this table with one bit flipped.
    func check(flippingBit bit: Int, of index: Int, isDirect: Bool = false) throws -> KVError.Code? {
        var damaged = bytes
        damaged[index] ^= 1 << bit
        try write(damaged)
        return code { () throws(KVError) in try TableCheck.verify(path: path, isDirect: isDirect) }
    }
}

private func code(_ body: () throws(KVError) -> Void) -> KVError.Code? {
    do throws(KVError) {
        try body()
        return nil
    } catch {
        return error.code
    }
}

@Suite struct TableCheckTests {
    /// RocksDB with its assertions on ends the process at one of these.
    @Test func noBitAtTheEndEndsTheProcess() throws {
        let directory = try TemporaryDirectory()
        let table = try Table(in: directory)
        var refused = 0
        for index in table.bytes.count - 1_500..<table.bytes.count {
            let found = try table.check(flippingBit: 7, of: index)
            guard let properties = found, properties == .corrupted else { continue }
            let opened = code { () throws(KVError) in
                let database = try Database(path: directory.path + "/db", shared: SharedResources())
                try database.close()
            }
            if opened == .corrupted { refused += 1 }
        }
        #expect(refused > 10)
        try table.write(table.bytes)
        let database = try Database(path: directory.path + "/db", shared: SharedResources())
        try database.close()
    }

    @Test func aWholeTableIsWhole() throws {
        let directory = try TemporaryDirectory()
        let table = try Table(in: directory)
        for isDirect in [false, true] {
            var bytes = 0
            try TableCheck.verify(path: table.path, isDirect: isDirect) { count in
                bytes += count
                return true
            }
            #expect(bytes >= table.bytes.count)
        }
    }

    /// Closer together than any block is long: data, filter, index, properties, metaindex and footer are all hit.
    @Test(arguments: [1, 7]) func oneFlippedBitInAnyBlockIsFound(bit: Int) throws {
        let directory = try TemporaryDirectory()
        let table = try Table(in: directory)
        // The footer has no checksum of its own. Behind the kind of checksum it has two places in the file, four numbers of
        // seven bits a byte, then zeros up to its version, which do not mean anything; neither does a bit that has the
        // last number go on with those.
        let footer = table.bytes.count - 53
        var end = footer + 1
        for _ in 0..<4 {
            while table.bytes[end] >= 0x80 { end += 1 }
            end += 1
        }
        let zeros = (bit == 7 ? end - 1 : end)..<table.bytes.count - 12
        for offset in Array(stride(from: bit, to: footer, by: 23)) + Array(footer..<table.bytes.count)
        where !zeros.contains(offset) {
            #expect(try table.check(flippingBit: bit, of: offset) == .corrupted, "bit \(bit) of byte \(offset)")
        }
        try table.write(table.bytes)
        try TableCheck.verify(path: table.path)
    }

    @Test func damageNamesTheFile() throws {
        let directory = try TemporaryDirectory()
        let table = try Table(in: directory)
        #expect(try table.check(flippingBit: 0, of: 100, isDirect: true) == .corrupted)
        let error = #expect(throws: KVError.self) { try TableCheck.verify(path: table.path) }
        #expect(error?.message.hasPrefix("\(table.path) is damaged: ") == true)
    }

    @Test func whatIsCutOffIsFound() throws {
        let directory = try TemporaryDirectory()
        let table = try Table(in: directory)
        for count in [0, 1, 52, 53, table.bytes.count / 2, table.bytes.count - 1] {
            try table.write(Array(table.bytes[..<count]))
            #expect(code { () throws(KVError) in try TableCheck.verify(path: table.path) } == .corrupted, "\(count)")
        }
    }

    @Test func aTableThatIsGoneIsNoDamage() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/000009.sst"
        for isDirect in [false, true] {
            #expect(
                code { () throws(KVError) in try TableCheck.verify(path: path, isDirect: isDirect) } == .notFound)
        }
    }

    @Test func endsWhereItIsToldTo() throws {
        let directory = try TemporaryDirectory()
        let table = try Table(in: directory)
        var reads = 0
        try TableCheck.verify(path: table.path) { _ in
            reads += 1
            return true
        }
        for last in 0..<reads {
            var left = last
            #expect(
                code { () throws(KVError) in
                    try TableCheck.verify(path: table.path) { _ in
                        left -= 1
                        return left >= 0
                    }
                } == .unavailable, "after \(last) reads")
        }
    }
}
