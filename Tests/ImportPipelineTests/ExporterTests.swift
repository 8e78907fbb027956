import Core
import DistribKVClient
import Foundation
import ImportPipeline
import NIOCore
import TestSupport
import Testing
import Wire

@Suite struct ExporterTests {
    private func line(_ record: KVRecord, _ format: ImportFormat) throws -> String {
        var buffer = ByteBuffer()
        try format.write(record, into: &buffer)
        return String(buffer: buffer)
    }

    /// Any bytes come back from ndjson, and the life with them.
    @Test func whatIsWrittenCanBeRead() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for round in 0..<300 {
            let key = random.bytes(Int.random(in: 1...20, using: &random))
            let value =
                round % 2 == 0 ? random.bytes(Int.random(in: 0...40, using: &random)) : Array("tab\t\"\\ü\n".utf8)
            let record = KVRecord(
                key: key, value: ByteBuffer(bytes: value), version: Version(rawValue: 7),
                ttl: round % 3 == 0 ? .milliseconds(1_500) : nil)
            let text = try line(record, .ndjson)
            #expect(text.last == "\n")
            let read = try RecordLine(ByteBuffer(string: String(text.dropLast())))
            #expect(Array(read.key.readableBytesView) == key && read.value == record.value, "seed \(seed)")
            #expect(read.ttlMilliseconds == (round % 3 == 0 ? 1_500 : nil))
        }
    }

    @Test func tsvRefusesWhatItsLinesCannotHold() throws {
        func record(_ key: String, _ value: String) -> KVRecord {
            KVRecord(key: Array(key.utf8), value: ByteBuffer(string: value), version: .zero)
        }
        #expect(try line(record("a", "b\tc\r"), .tsv) == "a\tb\tc\r\n")
        for (key, value) in [("a\tb", ""), ("a\nb", ""), ("a", "b\nc")] {
            let error = #expect(throws: KVError.self) { try line(record(key, value), .tsv) }
            #expect(error?.code == .invalidData && error?.message.contains("ndjson") == true)
        }
    }

    @Test func aFileTakesItsNameWhenItIsWhole() async throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/backup.ndjson"
        try Data("before".utf8).write(to: URL(filePath: path))
        let given = try ExportFile(path: path)
        try await given.write(ByteBuffer(string: "half"))
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "before")
        given.discard()
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["backup.ndjson"])
        let whole = try ExportFile(path: path)
        try await whole.write(ByteBuffer(string: "one\n"))
        try await whole.write(ByteBuffer(string: "two\n"))
        try await whole.finish()
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "one\ntwo\n")
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["backup.ndjson"])
        let error = #expect(throws: KVError.self) { try ExportFile(path: "\(directory.path)/none/x") }
        #expect(error?.code == .invalidArgument)
        // What is no regular file is written as it is.
        let device = try ExportFile(path: "/dev/null")
        try await device.write(ByteBuffer(string: "x"))
        try await device.finish()
    }
}
