import Core
import Foundation
import NIOCore
import TestSupport
import Wire

/// Lines of imports and exports, against Foundation's reader of JSON.
struct RecordTarget: FuzzTarget {
    let words = [
        "{", "}", "[", "]", ":", ",", "\"", "\\", "\\u0000", "\\ud800", "\\udc00", "\\u00e9", "\\n", "\\\"", "true",
        "false", "null", "1", "-1",
        "1e9", "\"key\":", "\"value\":", "\"key_base64\":", "\"value_base64\":", "\"version\":", "\"ttl\":",
        "\"deleted\":true", "\"30s\"",
        "\"AAEC\"", "\"/w==\"", "=", " ", "\t", "\r", "\n", "\u{feff}", "é", "😀",
    ]

    let seeds: [[UInt8]] = [
        #"{"key":"a","value":"b"}"#, #"{"key":"a","value":"b","version":"01a20d6f120e0000","ttl":"29993ms"}"#,
        #"{"key_base64":"/w==","value_base64":"AAEC"}"#, #"{"key":"é\u00e9\n\ud83d\ude00","value":""}"#,
        #"{"key":"a","deleted":true}"#,
        #" { "key" : "a" , "value" : "b\\c\"d\/" } "#, #"{"version":"0","value":"b","key":"a"}"#, #"{}"#,
    ].map { Array($0.utf8) }

    func run(_ input: [UInt8]) throws {
        let record: RecordLine
        do throws(KVError) {
            record = try RecordLine(ByteBuffer(bytes: input))
        } catch {
            return try expectClear(error.message)
        }
        // Foundation takes a byte order mark and other encodings besides UTF-8; what is read here, it reads the same.
        guard let object = try? JSONSerialization.jsonObject(with: Data(input)) as? [String: Any] else {
            throw FuzzDefect("read as \(record), though it is not JSON")
        }
        func bytes(_ name: String) -> [UInt8]? {
            if let text = object[name] as? String { return Array(text.utf8) }
            return (object[name + "_base64"] as? String).flatMap { Data(base64Encoded: $0) }.map { Array($0) }
        }
        let (key, value) = (Array(record.key.readableBytesView), record.value.map { Array($0.readableBytesView) })
        try expect(
            unmarked(key) == bytes("key").map(unmarked) && value.map(unmarked) == bytes("value").map(unmarked),
            "read as \(key) = \(value as Any), Foundation differs")
        guard let stored = record.value else { return }
        var line = ByteBuffer()
        record.key.withUnsafeReadableBytes { key in
            stored.withUnsafeReadableBytes { value in
                JSONLine.writeRecord(
                    key: key, value: value, version: Version(rawValue: 7), ttlMilliseconds: record.ttlMilliseconds,
                    into: &line)
            }
        }
        try expect(
            line.readableBytesView.last == 10 && line.readableBytesView.count { $0 == 10 } == 1, "no line of its own")
        let again = try RecordLine(line.getSlice(at: line.readerIndex, length: line.readableBytes - 1) ?? line)
        try expect(again == record, "\(record) comes back as \(again)")
    }
}

/// The bytes without byte order marks: Foundation drops those at the start of a string and behind escapes, here they belong
/// to the value.
private func unmarked(_ bytes: [UInt8]) -> [UInt8] {
    var kept: [UInt8] = []
    for byte in bytes {
        kept.append(byte)
        if kept.suffix(3).elementsEqual("\u{feff}".utf8) { kept.removeLast(3) }
    }
    return kept
}

/// Bodies of batches.
struct BatchTarget: FuzzTarget {
    let words =
        RecordTarget().words + [
            "\"op\":", "\"put\"", "\"get\"", "\"delete\"", "\"incr\"", "\"by\":", "\"if_match\":", "\"if_none_match\":",
            "\"*\"",
            "[\"01a20d6f120e0000\"]", "9223372036854775807", "-9223372036854775808", "9223372036854775808",
        ]

    let seeds: [[UInt8]] = [
        #"{"op":"put","key":"a","value":"b"}"#,
        #"{"op":"get","key":"a"}"# + "\n" + #"{"op":"delete","key":"b"}"# + "\n",
        #"{"op":"put","key":"a","value":"b","ttl":"30s","if_match":"*"}"#,
        #"{"op":"put","key":"a","value_base64":"AAEC","if_none_match":["01a20d6f120e0000","01a20d6f120e0001"]}"#,
        #"{"op":"incr","key":"n","by":-5,"if_match":"01a20d6f120e0000"}"#,
        #"{"op":"incr","key_base64":"/w=="}"# + "\r\n\n\n",
    ].map { Array($0.utf8) }

    func run(_ input: [UInt8]) throws {
        let operations: [(operation: BatchOperation, line: Range<Int>)]
        do throws(Problem) {
            operations = try BatchOperation.read(ByteBuffer(bytes: input), countMax: 1_000)
        } catch {
            return try expectClear(error.detail)
        }
        var written = ByteBuffer()
        for (operation, line) in operations {
            try expect(line.lowerBound >= 0 && line.upperBound <= input.count, "line \(line) is not in the body")
            operation.write(into: &written)
        }
        let again = try BatchOperation.read(written, countMax: 1_000)
        try expect(again.map(\.operation) == operations.map(\.operation), "\(operations) come back as \(again)")
    }
}
