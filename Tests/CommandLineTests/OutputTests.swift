import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import FoundationEssentials
import NIOCore
import Testing
import Wire

@testable import kv

@Suite struct OutputTests {
    @Test func optionsStandBeforeTheCommandOrBehindIt() throws {
        for arguments in [
            ["--output", "json", "--router", "a:1", "--timeout", "250ms", "get", "k"],
            ["get", "--output", "json", "k", "--router", "a:1", "--timeout", "250ms"],
            ["--json", "get", "k", "--router", "a:1", "--timeout", "0.25"],
        ] {
            let get = try #require(try KV.parseAsRoot(arguments) as? GetCommand)
            #expect(get.output.format(default: .raw) == .json)
            #expect(get.cluster.router == "a:1")
            #expect(get.cluster.timeout == .milliseconds(250))
        }
        let nested = try #require(try KV.parseAsRoot(["--output", "raw", "replica", "list"]) as? ListReplicas)
        #expect(nested.output.format() == .raw)
        let plain = try #require(try KV.parseAsRoot(["get", "k"]) as? GetCommand)
        #expect(plain.output.format(default: .raw) == .raw)
        #expect(plain.output.format() == .table)
    }

    @Test func recordsAsJSON() {
        let version = Version(rawValue: 0xAB)
        let cases: [(DataRecord, String)] = [
            (
                DataRecord(
                    key: Array("a/\"b".utf8),
                    KVEntry(value: ByteBuffer(string: "ü\n"), version: version, expiresIn: .milliseconds(29_993))),
                #"{"key":"a/\"b","value":"ü\n","version":"00000000000000ab","ttl":"29993ms"}"#
            ),
            (
                DataRecord(key: [0xFF, 0], KVEntry(value: ByteBuffer(bytes: [0xC3]), version: version)),
                #"{"key_base64":"/wA=","value_base64":"ww==","version":"00000000000000ab"}"#
            ),
            (
                DataRecord(key: Array("n".utf8), number: -7, version: version),
                #"{"key":"n","number":-7,"version":"00000000000000ab"}"#
            ),
        ]
        for (record, json) in cases { #expect(String(buffer: record.json) == json + "\n") }
    }

    @Test func cellsShowBytes() {
        let cases: [([UInt8], String)] = [
            (Array("grün, \\ and\ttab\n".utf8), #"grün, \\ and\ttab\n"#), ([0x61, 0xFF, 0x07, 0x5C], #"a\xff\x07\\"#),
            ([0x1B, 0x5B], #"\x1b["#), ([], ""),
        ]
        for (bytes, cell) in cases { #expect(TextTable.cell(bytes) == cell) }
        let long = [UInt8](repeating: UInt8(ascii: "x"), count: 101)
        #expect(TextTable.cell(long) == String(repeating: "x", count: 100) + "… (101 bytes)")
    }

    @Test func rawRowsHaveOneLineEach() {
        #expect(TextTable.raw([["a", "b\tc\nd"], ["", "-"]]) == ByteBuffer(string: "a\tb c d\n\t-\n"))
    }

    @Test(arguments: [["put"], ["get", "k", "--output", "xml"], ["nonsense"], ["put", "k", "v", "--ack", "0"]])
    func aWrongCommandLineIsToldInOneLine(arguments: [String]) throws {
        do {
            _ = try KV.parseAsRoot(arguments)
        } catch {
            let failure = KV.failure(for: error)
            #expect(failure.status == .usage)
            let message = try #require(failure.message)
            #expect(!message.contains("\n"))
            #expect(message.hasSuffix(" --help)"), "\(message)")
        }
    }

    /// What `kv --help` prints and what the documentation says are one list.
    @Test func exitStatusesAreDocumented() throws {
        let path = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let document = try #require(FileManager.default.contents(atPath: "/\(path)/docs/client.md"))
        let text = String(decoding: document, as: UTF8.self)
        for status in CommandStatus.allCases {
            #expect(text.contains("\n| \(status.rawValue) | \(status.meaning) |\n"))
            #expect(KV.helpMessage().contains("  \(status.rawValue)"))
        }
    }
}
