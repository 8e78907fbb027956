import Core
import NIOCore
import TestSupport
import Testing

@testable import Wire

/// The lines of batches, of their answers and of files of records.
@Suite struct BatchLineTests {
    private func read(_ body: String, countMax: Int = 100) throws -> [BatchOperation] {
        try BatchOperation.read(ByteBuffer(string: body), countMax: countMax).map(\.operation)
    }

    private func operation(_ key: String, _ action: BatchOperation.Action) -> BatchOperation {
        BatchOperation(key: ByteBuffer(string: key), action: action)
    }

    private func put(_ key: String, _ value: String) -> BatchOperation {
        operation(key, .put(ByteBuffer(string: value)))
    }

    @Test func operationsOfEveryKind() throws {
        let version = "0190000000000001"
        let body = """
            {"op":"get","key":"a"}

            { "value" : "x\\ny" , "op":"put","key":"ä" }\r
            {"op":"delete","key_base64":"AP8="}
            {"op":"incr","key":"n"}
            {"op":"incr","key":"n","by":-9223372036854775808}
            {"op":"put","key":"a","value_base64":"","ttl":"30s","if_match":"*"}
            {"op":"delete","key":"a","if_match":["\(version)"],"if_none_match":"\(version)"}
            """
        let one = WriteCondition.Versions.listed([try #require(Version(hexDigits: version))])
        var expiring = operation("a", .put(ByteBuffer(), ttlMilliseconds: 30_000))
        expiring.condition = WriteCondition(match: .any)
        var conditional = operation("a", .delete)
        conditional.condition = WriteCondition(match: one, noneMatch: one)
        #expect(
            try read(body) == [
                operation("a", .get), put("ä", "x\ny"),
                BatchOperation(key: ByteBuffer(bytes: [0, 255]), action: .delete), operation("n", .increment(by: 1)),
                operation("n", .increment(by: .min)), expiring, conditional,
            ])
        #expect(try read("").isEmpty)
        #expect(try read("\n\r\n\n").isEmpty)
    }

    @Test(arguments: [
        ("", "an object"), ("[]", "an object"), ("{}", "no member \"op\""), (#"{"op":"get"}"#, "no member \"key\""),
        (#"{"op":"GET","key":"a"}"#, "\"GET\" is no \"op\""),
        (#"{"op":1,"key":"a"}"#, "a string as the value of \"op\""),
        (#"{"op":"put","key":"a"}"#, "no member \"value\""),
        (#"{"op":"get","key":"a","value":"b"}"#, "a value is for put"),
        (#"{"op":"delete","key":"a","ttl":"1s"}"#, "\"ttl\" is for put"),
        (#"{"op":"put","key":"a","value":"b","by":1}"#, "\"by\" is for incr"),
        (#"{"op":"put","key":"a","value":"b","ttl":"1"}"#, "no time to live"),
        (#"{"op":"put","key":"a","value":"b","ttl":"0ms"}"#, "no time to live"),
        (#"{"op":"incr","key":"a","by":1.5}"#, "a whole number"),
        (#"{"op":"incr","key":"a","by":"1"}"#, "a whole number"),
        (#"{"op":"incr","key":"a","by":9223372036854775808}"#, "a whole number"),
        (#"{"op":"incr","key":"a","by":1e3}"#, "a whole number"),
        (#"{"op":"incr","key":"a","by":--1}"#, "a whole number"),
        (#"{"op":"incr","key":"a","by":01}"#, "a whole number"), (#"{"op":"incr","key":"a","by":}"#, "a whole number"),
        (#"{"op":"get","key":"a","if_match":"*"}"#, "no condition"),
        (#"{"op":"put","key":"a","value":"b","if_match":"x"}"#, "takes \"*\", a version"),
        (#"{"op":"put","key":"a","value":"b","if_match":["*","*"]}"#, "takes \"*\", a version"),
        (#"{"op":"put","key":"a","value":"b","if_match":["0190000000000001"}"#, "a comma or the end of the array"),
        (#"{"op":"put","key":"a","value":"b","if_match":["0190000000000001",]}"#, "a string as the value"),
        (#"{"op":"put","key":"a","value":"b","if_none_match":"*","if_none_match":"*"}"#, "already given"),
        (#"{"op":"get","op":"get","key":"a"}"#, "already given"),
        (#"{"op":"get","key":"a","keys":"b"}"#, "no member \"keys\" in a batch: use op, key"),
        (#"{"op":"get","key":"a"} {"op":"get","key":"a"}"#, "something follows"),
        (#"{"op":"get","key":"a""#, "a comma or the end"), (#"{"op":"get","key_base64":"YQ"}"#, "not base64"),
        (#"{"op":"get","key_base64":"YR=="}"#, "not base64"), (#"{"op":"get","key_base64":"=QQ="}"#, "not base64"),
    ]) func aMalformedLineIsNamed(line: String, what: String) {
        // A line alone, and between others, where empty ones count.
        for (before, number) in [("", 1), ("{\"op\":\"get\",\"key\":\"a\"}\n\n", 3)] where !line.isEmpty || number == 0
        {
            #expect {
                try read(before + line + "\n{\"op\":\"get\",\"key\":\"a\"}")
            } throws: { error in
                guard let problem = error as? Problem else { return false }
                return problem.kind == .badRequest && problem.detail.hasPrefix("Line \(number): ")
                    && problem.detail.contains(what)
            }
        }
    }

    @Test func tooManyOperationsAreRefused() throws {
        let body = String(repeating: "{\"op\":\"get\",\"key\":\"a\"}\n", count: 3)
        #expect(try read(body, countMax: 3).count == 3)
        #expect { try read(body, countMax: 2) } throws: { ($0 as? Problem)?.kind == .batchTooLarge }
        let versions = Array(repeating: "\"0190000000000001\"", count: BatchOperation.conditionVersionsMax + 1)
        let line = "{\"op\":\"delete\",\"key\":\"a\",\"if_match\":[\(versions.joined(separator: ","))]}"
        #expect { try read(line) } throws: { "\($0)".contains("more than 64 elements") }
    }

    /// Whatever is written is read as the same, and its place is where it was written.
    @Test(arguments: [1, 2, 3, 4]) func writtenOperationsAreReadAsTheyWere(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let operations = (0..<300).map { _ in BatchOperation.random(using: &generator) }
        var body = ByteBuffer()
        for operation in operations { operation.write(into: &body) }
        let read = try BatchOperation.read(body, countMax: operations.count)
        #expect(read.map(\.operation) == operations)
        for (operation, line) in read {
            var alone = ByteBuffer()
            operation.write(into: &alone)
            #expect(body.getSlice(at: line.lowerBound, length: line.count + 1) == alone)
        }
    }

    @Test(arguments: [1, 2, 3, 4]) func writtenResultsAreReadAsTheyWere(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            let version = Version(rawValue: .random(in: 0...UInt64.max, using: &generator))
            let results: [BatchResult] = [
                .written(version), .counted(.random(in: .min ... .max, using: &generator), version),
                .found(.random(bytesMax: 40, using: &generator), version),
                .found(ByteBuffer(), version, ttlMilliseconds: .random(in: 1...UInt64.max / 2, using: &generator)),
                .failed(Problem(.ackTimeout, "\"quoted\"\n"), version: version), .missing,
            ]
            for result in results {
                var line = ByteBuffer()
                result.write(into: &line)
                #expect(line.readableBytesView.last == UInt8(ascii: "\n"))
                #expect(try BatchResult(line.getSlice(at: 0, length: line.readableBytes - 1) ?? line) == result)
            }
        }
    }

    @Test(arguments: [
        "", "{}", #"{"status":204}"#, #"{"status":200,"version":"0190000000000001"}"#, #"{"status":404}"#,
        #"{"status":204,"version":"019000000000000g"}"#, #"{"status":204,"version":"0190000000000001"}x"#,
        #"{"status":99,"type":"a"}"#, #"{"status":200,"number":1}"#,
    ]) func whatIsNoResultIsRefused(line: String) {
        #expect(throws: KVError.self) { try BatchResult(ByteBuffer(string: line)) }
    }

    /// Bytes around the width of what is looked at together.
    @Test func specialBytesAreFoundWhereverTheyStand() throws {
        for length in 0..<40 {
            for place in 0...length {
                for special in ["\\u0000", "\\\"", "\\\\", "ä", "\u{7f}"] {
                    let text =
                        String(repeating: "x", count: place) + special
                        + String(repeating: "y", count: length - place)
                    let line = "{\"key\":\"\(text)\",\"value\":\"\"}"
                    let expected = text.replacingOccurrences("\\u0000", "\0").replacingOccurrences("\\\"", "\"")
                        .replacingOccurrences("\\\\", "\\")
                    #expect(String(buffer: try RecordLine(ByteBuffer(string: line)).key) == expected)
                }
                let bad =
                    Array("{\"value\":\"\",\"key\":\"".utf8) + Array(repeating: 0x78, count: place) + [0x1F]
                    + Array(repeating: 0x79, count: length - place) + Array("\"}".utf8)
                #expect(throws: KVError.self) { try RecordLine(ByteBuffer(bytes: bad)) }
            }
        }
    }

    /// Damaged lines are refused or read, and never anything else.
    @Test(arguments: [1, 2, 3, 4]) func damagedLinesAreRefused(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var refused = 0
        for _ in 0..<2_000 {
            var line = ByteBuffer()
            BatchOperation.random(using: &generator).write(into: &line)
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                line.setInteger(
                    UInt8.random(in: 0...255, using: &generator),
                    at: .random(in: 0..<line.readableBytes, using: &generator))
            }
            let cut = line.getSlice(at: 0, length: .random(in: 0...line.readableBytes, using: &generator)) ?? line
            do { _ = try BatchOperation.read(cut, countMax: 100) } catch { refused += 1 }
            _ = try? BatchResult(cut)
            _ = try? RecordLine(cut)
        }
        #expect(refused > 1_000)
    }

    @Test func base64IsReadStrictly() {
        for bytes in [[], [0], [0, 255], [1, 2, 3], [1, 2, 3, 4], Array(0...255)] as [[UInt8]] {
            var text = ByteBuffer()
            bytes.withUnsafeBytes { JSONString.writeBase64($0, into: &text) }
            #expect(Base64.decode(text).map { Array($0.readableBytesView) } == bytes)
        }
        for text in ["A", "AA", "AAA", "A===", "====", "AA=A", "AAAA=", "AB==", "AAB=", "AA==AAAA", "A A=", "AAA\n"] {
            #expect(Base64.decode(ByteBuffer(string: text)) == nil, "\(text)")
        }
    }

    @Test func recordsCarryATimeToLive() throws {
        let record = try RecordLine(ByteBuffer(string: #"{"key":"a","value":"b","ttl":"29993ms"}"#))
        #expect(record.ttlMilliseconds == 29_993)
        for line in [#"{"key":"a","value":"b","ttl":"soon"}"#, #"{"key":"a","deleted":true,"ttl":"1s"}"#] {
            #expect(throws: KVError.self) { try RecordLine(ByteBuffer(string: line)) }
        }
    }
}

extension String {
    fileprivate func replacingOccurrences(_ text: String, _ other: String) -> String {
        var (result, rest) = ("", self[...])
        while !rest.isEmpty {
            if rest.hasPrefix(text) {
                result += other
                rest = rest.dropFirst(text.count)
            } else {
                result.append(rest.removeFirst())
            }
        }
        return result
    }
}

extension ByteBuffer {
    fileprivate static func random(bytesMax: Int, using generator: inout SeededGenerator) -> ByteBuffer {
        let alphabet: [UInt8] = Bool.random(using: &generator) ? Array("ab\"\\\n/é€😀".utf8) : Array(0...255)
        return ByteBuffer(
            bytes: (0..<Int.random(in: 0...bytesMax, using: &generator)).map { _ in
                alphabet.randomElement(using: &generator) ?? 0
            })
    }
}

extension BatchOperation {
    fileprivate static func random(using generator: inout SeededGenerator) -> BatchOperation {
        let action: Action =
            switch Int.random(in: 0..<4, using: &generator) {
            case 0: .get
            case 1: .delete
            case 2: .increment(by: .random(in: .min ... .max, using: &generator))
            default:
                .put(
                    .random(bytesMax: 40, using: &generator),
                    ttlMilliseconds: Bool.random(using: &generator)
                        ? .random(in: 1...1 << 40, using: &generator) : nil)
            }
        func versions() -> WriteCondition.Versions? {
            switch Int.random(in: 0..<3, using: &generator) {
            case 0: nil
            case 1: .any
            default:
                .listed(
                    (0..<Int.random(in: 0..<3, using: &generator)).map { _ in
                        Version(rawValue: .random(in: 0...UInt64.max, using: &generator))
                    })
            }
        }
        let condition = WriteCondition(match: versions(), noneMatch: versions())
        return BatchOperation(
            key: .random(bytesMax: 20, using: &generator), action: action,
            condition: action == .get || condition == WriteCondition() ? nil : condition)
    }
}
