import Core
import LSM
import Shard
import TestSupport

/// Files in the format of RocksDB's write-ahead log and manifest, as a disk may give them back.
struct LogFileTarget: FuzzTarget {
    let words = ["\0\0\0\0\0\0\0", "\u{1}", "\u{2}", "\u{3}", "\u{4}", String(repeating: "\0", count: 512)]

    let seeds: [[UInt8]] = {
        var random = SeededGenerator(seed: 2)
        return [[], [20], [40_000], [5, 70_000, 300, 32_761, 1]].map { lengths in
            lengths.reduce(into: []) { LogFileTarget.append(random.bytes($1), to: &$0) }
        }
    }()

    /// A record as RocksDB writes it.
    private static func append(_ record: [UInt8], to file: inout [UInt8]) {
        var rest = record[...]
        var isFirst = true
        repeat {
            let room = 32_768 - file.count % 32_768
            if room < 7 { file += [UInt8](repeating: 0, count: room) }
            let data = rest.prefix(32_768 - file.count % 32_768 - 7)
            rest = rest.dropFirst(data.count)
            let type: UInt8 = isFirst ? (rest.isEmpty ? 1 : 2) : (rest.isEmpty ? 4 : 3)
            isFirst = false
            let crc = ([type] + data).withUnsafeBytes { CRC32C.checksum($0) }
            let masked = (crc >> 15 | crc << 17) &+ 0xA282_EAD8
            file += withUnsafeBytes(of: masked.littleEndian) { Array($0) }
            file += [UInt8(data.count & 0xFF), UInt8(data.count >> 8), type] + data
        } while !rest.isEmpty
    }

    func run(_ input: [UInt8]) throws {
        let (check, records) = try LogFileTarget.check(input[...])
        try expect(check.fileBytes == UInt64(input.count), "it has another size")
        try expect(check.soundBytes <= check.fileBytes, "more is sound than there is")
        try expect(check.ending != .clean || check.soundBytes == check.fileBytes, "a clean file ends early")
        // What is sound is sound by itself, and holds the same.
        let (again, same) = try LogFileTarget.check(input.prefix(Int(check.soundBytes)))
        try expect(again.ending == .clean, "cut off where it is sound it ends \(again.ending)")
        try expect(same == records, "cut off where it is sound it holds other records")
    }

    private static func check(_ bytes: ArraySlice<UInt8>) throws -> (LogFileCheck, [[UInt8]]) {
        var records: [[UInt8]] = []
        let check = try bytes.withUnsafeBytes { bytes in
            try LogFileCheck.run(contents: bytes) { record in
                records.append(Array(record))
                return true
            }
        }
        return (check, records)
    }
}

/// The file `SYNCED`.
struct MarkTarget: FuzzTarget {
    let words = ["lsn = ", "term = ", "crc32c = ", "\n", "logs = 000004.log 000007.log", "always", "os"]

    let seeds: [[UInt8]] = [
        Array(
            SyncedMark(
                database: "a-b-c", position: LogPosition(term: 3, lsn: 77, version: Version(rawValue: 1 << 40)),
                tablesLsn: 5, durability: .interval, boot: "x", logs: ["000004.log"]
            ).text.utf8), [],
    ]

    func run(_ input: [UInt8]) throws {
        let text = String(decoding: input, as: UTF8.self)
        guard let mark = SyncedMark(text: text) else { return }
        try expect(SyncedMark(text: mark.text) == mark, "it is not read as it is written")
    }
}
