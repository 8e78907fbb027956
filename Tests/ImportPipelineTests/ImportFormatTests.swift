import Core
import DistribKVClient
import ImportPipeline
import NIOCore
import Testing

@Suite struct ImportFormatTests {
    @Test(arguments: [
        ("a\tb", "a", "b"), ("a\t", "a", ""), ("a\tb\tc", "a", "b\tc"), ("a b\t c ", "a b", " c "),
        ("ä\t€", "ä", "€"), ("a\tb\r", "a", "b\r"), ("a\\tb\t\\n", "a\\tb", "\\n"), ("\"a\"\t\"b\"", "\"a\"", "\"b\""),
    ]) func goodTSV(line: String, key: String, value: String) throws {
        let pair = try ImportFormat.tsv.parse(ByteBuffer(string: line))
        #expect(pair == KVWrite(key: Array(key.utf8), value: ByteBuffer(string: value)))
    }

    @Test func tsvTakesAnyBytes() throws {
        let pair = try ImportFormat.tsv.parse(ByteBuffer(bytes: [0, 255, 9, 254, 0]))
        #expect(pair == KVWrite(key: [0, 255], value: ByteBuffer(bytes: [254, 0])))
    }

    @Test(arguments: [
        ("a", "no tab"), ("\tb", "key is empty"), ("\t", "key is empty"),
        (String(repeating: "k", count: 4_097) + "\tv", "4097 bytes, at most 4096"),
    ]) func badTSV(line: String, what: String) {
        refused(.tsv, line, what)
    }

    @Test(arguments: [
        (#"{"key":"a","value":"b"}"#, "a", "b"), (#" { "value" : "b" , "key" : "a" } "#, "a", "b"),
        (#"{"key":"a","value":""}"#, "a", ""), (#"{"key_base64":"YQ==","value_base64":"Yg=="}"#, "a", "b"),
        (#"{"key":"a","value_base64":""}"#, "a", ""),
        (#"{"key":"\"\\\/\b\f\n\r\t","value":"x"}"#, "\"\\/\u{8}\u{c}\n\r\t", "x"),
        (#"{"key":"\u00e4\u20AC","value":"\ud83d\ude00"}"#, "ä€", "😀"), ("{\"key\":\"ä\",\"value\":\"😀\"}\r", "ä", "😀"),
        (#"{"k\u0065y":"a","value":"\u0000"}"#, "a", "\u{0}"),
    ]) func goodNDJSON(line: String, key: String, value: String) throws {
        let pair = try ImportFormat.ndjson.parse(ByteBuffer(string: line))
        #expect(pair == KVWrite(key: Array(key.utf8), value: ByteBuffer(string: value)))
    }

    @Test(arguments: [
        (#"{"key":"a","value":"b","version":"0190000000000000"}"#, "a", "b"),
        (#"{"version":"","key":"a","value":"b"}"#, "a", "b"),
        (#"{"key":"a","deleted":true,"version":"0190000000000000"}"#, "a", nil),
        (#"{"deleted" : true , "key_base64":"YQ=="}"#, "a", nil),
    ]) func linesThatANodeSaved(line: String, key: String, value: String?) throws {
        let write = try ImportFormat.ndjson.parse(ByteBuffer(string: line))
        #expect(write == KVWrite(key: Array(key.utf8), value: value.map { ByteBuffer(string: $0) }))
    }

    @Test func livesAreKept() throws {
        let line = #"{"key":"a","value":"b","version":"0190000000000000","ttl":"29993ms"}"#
        let write = try ImportFormat.ndjson.parse(ByteBuffer(string: line))
        #expect(write == KVWrite(key: [0x61], value: ByteBuffer(string: "b"), ttl: .milliseconds(29_993)))
    }

    @Test func base64CarriesAnyBytes() throws {
        let pair = try ImportFormat.ndjson.parse(ByteBuffer(string: #"{"key_base64":"AP8=","value_base64":"/v8A"}"#))
        #expect(pair == KVWrite(key: [0, 255], value: ByteBuffer(bytes: [254, 255, 0])))
    }

    @Test(arguments: [
        ("", "an object"), ("a\tb", "an object"), ("[]", "an object"), ("{}", "no member \"key\""),
        (#"{"key":"a"}"#, "no member \"value\""), (#"{"value":"a"}"#, "no member \"key\""),
        (#"{"key":"a","value":1}"#, "a string as the value of \"value\""),
        (#"{"key":"a","value":null}"#, "a string as the value of \"value\""),
        (#"{"key":"a","value":"b"} x"#, "something follows"), (#"{"key":"a","value":"b","#, "name of a member"),
        (#"{"key":"a","value":"b",}"#, "name of a member"), (#"{"key":"a" "value":"b"}"#, "a comma"),
        (#"{"key" "a","value":"b"}"#, "a colon"), (#"{"key":"a","value":"b"#, "does not end"),
        (#"{"key":"a","value":"b\"#, "does not end"), (#"{"key":"a","value":"b\x"}"#, "unknown escape"),
        (#"{"key":"a","value":"\u12"}"#, "four hex digits"), (#"{"key":"a","value":"\ud83d"}"#, "surrogate"),
        (#"{"key":"a","value":"\ud83d\u0041"}"#, "surrogate"), (#"{"key":"a","value":"\ude00"}"#, "surrogate"),
        ("{\"key\":\"a\",\"value\":\"b\u{1}\"}", "control character"), (#"{"key":"","value":"b"}"#, "key is empty"),
        (#"{"key":"a","key":"b","value":"c"}"#, "already given"),
        (#"{"key":"a","deleted":true,"value":"c"}"#, "exclude each other"),
        (#"{"key":"a","deleted":false}"#, "true as the value of \"deleted\""),
        (#"{"key":"a","deleted":"true"}"#, "true as the value of \"deleted\""),
        (#"{"deleted":true}"#, "no member \"key\""), (#"{"key":"a","deleted":truely}"#, "a comma"),
        (#"{"key":"a","value":"b","version":7}"#, "a string as the value of \"version\""),
        (#"{"key":"a","key_base64":"YQ==","value":"c"}"#, "already given"),
        (#"{"key":"a","val":"c"}"#, "no member \"val\" in an import"),
        (#"{"key_base64":"Y","value":"c"}"#, "not base64"),
        (#"{"key_base64":"YQ","value":"c"}"#, "not base64"), (#"{"key_base64":"Y?==","value":"c"}"#, "not base64"),
        (#"{"key":"a","value":"b"}{"key":"a","value":"b"}"#, "something follows"),
    ]) func badNDJSON(line: String, what: String) {
        refused(.ndjson, line, what)
    }

    @Test func ndjsonTextMustBeUTF8() {
        let line = Array(#"{"key":"a","value":""#.utf8) + [0xFF] + Array(#""}"#.utf8)
        #expect { try ImportFormat.ndjson.parse(ByteBuffer(bytes: line)) } throws: { "\($0)".contains("not UTF-8") }
    }

    @Test func everyPrefixOfAGoodLineIsBad() {
        let line = #"{"key":"a\u00e4","value_base64":"Yg=="}"#
        for length in 0..<line.utf8.count {
            #expect(throws: KVError.self) { try ImportFormat.ndjson.parse(ByteBuffer(bytes: line.utf8.prefix(length))) }
        }
    }

    @Test func formatsByName() {
        let cases: [(String, ImportFormat?)] = [
            ("a.tsv", .tsv), ("a/b.TSV", .tsv), ("a.ndjson", .ndjson), ("a.jsonl", .ndjson), ("a.tar.json", .ndjson),
            ("-", nil), ("a", nil), ("a.csv", nil), ("a.tsv/b", nil), ("", nil),
        ]
        for (path, format) in cases { #expect(ImportFormat(path: path) == format, "\(path)") }
    }

    private func refused(_ format: ImportFormat, _ line: String, _ what: String) {
        #expect {
            try format.parse(ByteBuffer(string: line))
        } throws: { error in
            (error as? KVError)?.code == .invalidData && "\(error)".contains(what)
        }
    }
}
