import FoundationEssentials
import Logging
import Testing

@testable import Observability

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

@Suite struct LogLineTests {
    private func line(_ format: LogFormat, _ message: String, _ metadata: Logger.Metadata = [:]) -> String {
        let line = LogLine(
            format: format, program: "storage-node", milliseconds: 1_795_508_751_123, level: .info,
            message: message, metadata: metadata)
        return String(decoding: line.bytes, as: UTF8.self)
    }

    @Test func textIsStable() {
        #expect(line(.text, "ready") == "2026-11-24T08:25:51.123Z info storage-node: ready\n")
        #expect(
            line(
                .text, "took \"long\"",
                [
                    "shard": "shard-0", "lsn": .stringConvertible(42), "path": "a b", "empty": "", "eq": "a=b",
                    "quote": "say \"hi\" \\", "umlaut": "größe", "list": ["x", "y z"], "map": ["k": "v"],
                ])
                == "2026-11-24T08:25:51.123Z info storage-node: took \"long\" empty=\"\" eq=\"a=b\" list=[\"x\",\"y z\"] "
                + "lsn=42 map={\"k\":\"v\"} path=\"a b\" quote=\"say \\\"hi\\\" \\\\\" shard=shard-0 umlaut=größe\n")
    }

    @Test func jsonIsStable() {
        #expect(
            line(.json, "ready", ["shard": "shard-0", "lsn": .stringConvertible(42), "level": "high"])
                == "{\"time\":\"2026-11-24T08:25:51.123Z\",\"level\":\"info\",\"program\":\"storage-node\",\"message\":\"ready\","
                + "\"_level\":\"high\",\"lsn\":42,\"shard\":\"shard-0\"}\n")
    }

    private struct Event: Decodable {
        let message: String
        let value: String
        let number: Double
        let flag: Bool
        let list: [String]
    }

    /// Nobody can forge a second line or break out of a string, whatever a key or path contains.
    @Test func anEventIsAlwaysOneLine() throws {
        let controls = String(String.UnicodeScalarView((0..<0x21).compactMap { Unicode.Scalar($0) })) + "\u{7F}"
        for text in [
            "", "a\nb", "a\r\n2026-11-24T08:25:51.123Z error fake: x", controls, "\"}{", "\\", "é\u{2028}\u{1F600}",
        ] {
            let metadata: Logger.Metadata = [
                "value": "\(text)", "number": .stringConvertible(1.5), "flag": .stringConvertible(true),
                "list": ["\(text)"],
            ]
            let json = line(.json, text, metadata)
            #expect(json.utf8.count { $0 < 0x20 } == 1)
            let event = try JSONDecoder().decode(Event.self, from: Data(json.utf8))
            #expect(event.message == text)
            #expect(event.value == text)
            #expect(event.list == [text])
            #expect(event.number == 1.5)
            #expect(event.flag)
            let plain = line(.text, text, metadata)
            #expect(plain.utf8.count { $0 < 0x20 || $0 == 0x7F } == 1)
            #expect(plain.hasSuffix("\n"))
        }
    }

    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"), (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"), (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] as [(Int64, String)])
    func timesOfTheCalendar(milliseconds: Int64, text: String) {
        #expect(LogTime.text(milliseconds: milliseconds) == text)
    }

    @Test func handlerWritesMergedMetadataToItsDescriptor() throws {
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        defer { close(ends[0]) }
        var handler = LineLogHandler(program: "router", format: .text, level: .info, descriptor: ends[1])
        handler.metadata = ["a": "handler", "b": "handler"]
        handler.metadataProvider = Logger.MetadataProvider { ["b": "provider", "c": "provider"] }
        let logger = Logger(label: "test") { _ in handler }
        logger.info("hello", metadata: ["a": "event"])
        logger.debug("not at this level")
        close(ends[1])
        var bytes = [UInt8](repeating: 0, count: 4_096)
        let count = read(ends[0], &bytes, bytes.count)
        let text = String(decoding: bytes[..<max(0, count)], as: UTF8.self)
        #expect(text.hasSuffix("Z info router: hello a=event b=handler c=provider\n"))
        #expect(text.utf8.count { $0 == UInt8(ascii: "\n") } == 1)
    }

    @Test func aDescriptorThatCannotBeWrittenIsNoFailure() {
        let logger = Logger(label: "test") { _ in
            LineLogHandler(program: "router", format: .text, level: .info, descriptor: -1)
        }
        logger.error("nobody hears this")
    }
}
