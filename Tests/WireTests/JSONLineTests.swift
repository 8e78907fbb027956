import Core
import Foundation
import NIOCore
import TestSupport
import Testing
import Wire

@Suite struct JSONLineTests {
    private func record(
        _ key: [UInt8], _ value: [UInt8]?, version: UInt64 = 0x01a2_0d6f_120e_0000, ttl: UInt64? = nil
    ) -> String {
        var buffer = ByteBuffer()
        key.withUnsafeBytes { key in
            if let value {
                value.withUnsafeBytes { value in
                    JSONLine.writeRecord(
                        key: key, value: value, version: Version(rawValue: version), ttlMilliseconds: ttl,
                        into: &buffer)
                }
            } else {
                JSONLine.writeRecord(
                    key: key, value: nil, version: Version(rawValue: version), ttlMilliseconds: ttl, into: &buffer)
            }
        }
        return String(buffer: buffer)
    }

    @Test func writesRecords() {
        #expect(
            record(Array("a".utf8), Array("1".utf8)) == #"{"key":"a","value":"1","version":"01a20d6f120e0000"}"# + "\n")
        #expect(
            record(Array("a".utf8), nil, version: 0xF, ttl: 29_993)
                == #"{"key":"a","version":"000000000000000f","ttl":"29993ms"}"# + "\n")
        #expect(
            record([0xFF], [], ttl: 0)
                == #"{"key_base64":"/w==","value":"","version":"01a20d6f120e0000","ttl":"0ms"}"# + "\n")
    }

    @Test func writesEveryKindOfMember() {
        var buffer = ByteBuffer()
        var line = JSONLine(into: &buffer)
        line.integer("status", 204, into: &buffer)
        line.integer("least", .min, into: &buffer)
        line.text("detail", "a \"b\"\n\u{1}ü", into: &buffer)
        line.flag("deleted", true, into: &buffer)
        line.bytes("value", ByteBuffer(string: "x"), into: &buffer)
        line.version(Version(rawValue: .max), into: &buffer)
        line.ttl(milliseconds: .max, into: &buffer)
        line.end(into: &buffer)
        #expect(
            String(buffer: buffer)
                == #"{"status":204,"least":-9223372036854775808,"detail":"a \"b\"\n\u0001ü","deleted":true,"value":"x","#
                + #""version":"ffffffffffffffff","ttl":"18446744073709551615ms"}"# + "\n")
    }

    /// Every pair of a byte at every offset of a word: what Foundation reads is what was written.
    @Test func foundationReadsBackWhatWasWritten() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for round in 0..<3_000 {
            let length = Int.random(in: 0...40, using: &random)
            var bytes = (0..<length).map { _ in UInt8.random(in: 0x20...0x7E, using: &random) }
            for _ in 0..<Int.random(in: 0...3, using: &random) where !bytes.isEmpty {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                let odd = ["\"", "\\", "\n", "\r", "\t", "\0", "\u{1F}", "\u{7F}", "ü", "€", "😀"].randomElement(
                    using: &random)
                bytes.replaceSubrange(place...place, with: Array((odd ?? "").utf8))
            }
            if round % 3 == 0, !bytes.isEmpty {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0x80...0xFF, using: &random)
            }
            let text = record(bytes, bytes)
            let object = try #require(
                JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: String], "seed \(seed), \(bytes)")
            if let known = String(validating: bytes, as: UTF8.self) {
                #expect(object["key"].map { Array($0.utf8) } == Array(known.utf8), "seed \(seed), \(bytes)")
                #expect(object["value"] == object["key"])
                #expect(object["key_base64"] == nil)
            } else {
                #expect(object["key_base64"] == Data(bytes).base64EncodedString(), "seed \(seed), \(bytes)")
                #expect(object["key"] == nil)
            }
            #expect(text.utf8.count { $0 == UInt8(ascii: "\n") } == 1)
        }
    }

    @Test(
        arguments: [
            [0x80], [0xC1, 0x80], [0xC2], [0xC2, 0x7F], [0xE0, 0x9F, 0x80], [0xE1, 0x80], [0xED, 0xA0, 0x80],
            [0xE2, 0x82, 0x7F], [0xF0, 0x8F, 0x80, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xF5, 0x80, 0x80, 0x80],
            [0xF1, 0x80, 0x80], [0x61, 0x62, 0xFF],
        ] as [[UInt8]])
    func givesWhatIsNotUTF8AsBase64(bytes: [UInt8]) {
        #expect(record(bytes, nil).contains("\"key_base64\":\"\(Data(bytes).base64EncodedString())\""))
    }

    @Test func boundsWhatEscapesAddToLongText() {
        let short = [UInt8](repeating: 1, count: 1_000)
        #expect(record([0x61], short).utf8.count > 6_000)
        let long = [UInt8](repeating: 1, count: JSONString.escapedFreelyBytesMax + 1)
        let line = record([0x61], long)
        #expect(line.contains("value_base64"))
        #expect(line.utf8.count < 2 * long.count)
        let quotes = [UInt8](repeating: UInt8(ascii: "\""), count: JSONString.escapedFreelyBytesMax + 1)
        #expect(!record([0x61], quotes).contains("value_base64"))
    }
}
