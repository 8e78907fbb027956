/// One request that no server may serve, by RFC 9112 or by its limits, and the answer it has to get. Nothing behind such
/// a request is read: where one reader sees an end that another does not, what follows would be smuggled.
public struct RequestShape: Sendable, CustomStringConvertible {
    public let name: String
    public let bytes: [UInt8]
    public let status: Int
    /// The peer ends its side after these bytes.
    public let finishes: Bool

    public var description: String { name }

    public init(_ name: String, _ text: String, _ status: Int, finishes: Bool = false) {
        self.init(name, Array(text.utf8), status, finishes: finishes)
    }

    public init(_ name: String, _ bytes: [UInt8], _ status: Int, finishes: Bool = false) {
        self.name = name
        self.bytes = bytes
        self.status = status
        self.finishes = finishes
    }

    public static let requestLines: [RequestShape] = [
        RequestShape("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("empty target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("relative target", "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("tab in the target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("bare CR in the target", "GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("unknown scheme", "GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("URL without authority", "GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("* of GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("CONNECT with bytes behind it", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n\u{16}\u{3}\u{1}", 400),
        RequestShape("unknown method", "FROB / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("method in lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("space before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("no version", "GET /\r\nHost: a\r\n\r\n", 400),
        RequestShape("HTTP/0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400),
        RequestShape("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        RequestShape("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        RequestShape("HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        RequestShape("http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("another protocol", "GET / ICE/1.0\r\nHost: a\r\n\r\n", 400),
        RequestShape("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        RequestShape(
            "TLS hello", [0x16, 3, 1, 0, 0xa5, 1, 0, 0, 0xa1, 3, 3] + Array(repeating: 0x5c, count: 150), 400),
        RequestShape("SSH banner", "SSH-2.0-OpenSSH_9.6\r\n", 400),
        RequestShape("a RESP command", "*1\r\n$4\r\nPING\r\n", 400),
        RequestShape("zeroes", Array(repeating: 0, count: 100), 400),
        RequestShape("high bytes", Array(repeating: 0xff, count: 100), 400),
        RequestShape("a line of text", "hello, is this thing on?\r\n\r\n", 400),
        RequestShape("an answer", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 400),
        RequestShape("a target and a blank line", "GET /\r\n\r\n", 400),
        RequestShape("* of PUT", "PUT * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 400),
        RequestShape("authority as target", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("URL of https", "GET https://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("URL with user information", "GET http://u@a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("URL with a list of hosts", "GET http://a,b/c HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("URL with a query for authority", "GET http://?a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("backslash as target", "GET \\a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("DEL in the target", "GET /a\u{7f}b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("form feed in the target", "GET /a\u{c}b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("high bytes in the target", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("tab behind the method", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("tab before the version", "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("space behind the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        RequestShape("word behind the version", "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
        RequestShape("HTTP/1", "GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
        RequestShape("HTTP/01.1", "GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("HTTP/1.", "GET / HTTP/1.\r\nHost: a\r\n\r\n", 400),
        RequestShape("HTTP/-1.1", "GET / HTTP/-1.1\r\nHost: a\r\n\r\n", 400),
        RequestShape("a proxy's hello (PROXY protocol)", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", 400),
        RequestShape("two CRs behind the request line", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
        RequestShape("LF behind the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        RequestShape("CR behind the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
        RequestShape("method with a colon", "GET: / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ]

    public static let fields: [RequestShape] = [
        RequestShape("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        RequestShape("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        RequestShape("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        RequestShape("host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        RequestShape("host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        RequestShape("host with user information", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        RequestShape("folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
        RequestShape("fold before any field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        RequestShape("space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
        RequestShape("no colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400),
        RequestShape("no name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
        RequestShape("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", 400),
        RequestShape("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
        RequestShape("control byte in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{1}c\r\n\r\n", 400),
        RequestShape("bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", 400),
        RequestShape("bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400),
        RequestShape("bare LF behind a field", "GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n", 400),
        RequestShape("unknown expectation", put("/", "b", "Expect: 200-ok\r\n"), 417),
        RequestShape("two expectations", put("/", "b", "Expect: 100-continue, x\r\n"), 417),
        RequestShape("host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        RequestShape("bad host of HTTP/1.0", "GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", 400),
        RequestShape("two hosts of HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        RequestShape("URL and no host", "GET http://a/ HTTP/1.1\r\n\r\n", 400),
        RequestShape("fold by a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", 400),
        RequestShape("folded host", "GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", 400),
        RequestShape("fold of nothing", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n \r\n\r\n", 400),
        RequestShape("tab before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", 400),
        RequestShape("space in a name", "GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", 400),
        RequestShape("bracket in a name", "GET / HTTP/1.1\r\nHost: a\r\nX(Y: b\r\n\r\n", 400),
        RequestShape("@ in a name", "GET / HTTP/1.1\r\nHost: a\r\nX@: b\r\n\r\n", 400),
        RequestShape("quote in a name", "GET / HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n", 400),
        RequestShape("high byte in a name", "GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: b\r\n\r\n", 400),
        RequestShape("DEL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\u{7f}: b\r\n\r\n", 400),
        RequestShape("DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{7f}c\r\n\r\n", 400),
        RequestShape("vertical tab in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{b}c\r\n\r\n", 400),
        RequestShape("escape in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \u{1b}[0m\r\n\r\n", 400),
        RequestShape("two CRs behind a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n", 400),
        RequestShape("CR before the blank line", "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", 400),
        RequestShape("LF for the blank line", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        RequestShape("bare CR for the blank line", "GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n", 400),
        RequestShape("two fields of expectation", put("/", "b", "Expect: x\r\nExpect: 100-continue\r\n"), 417),
        RequestShape("expectation in another order", put("/", "b", "Expect: 100-continue\r\nExpect: x\r\n"), 417),
    ]

    /// How long the body is, said twice, wrongly, or in a way that others may read otherwise.
    public static func framing(target: String) -> [RequestShape] {
        func framed(_ fields: String) -> String { RequestShape.framed(target, fields) }
        func chunked(_ body: String) -> String { RequestShape.chunked(target, body) }
        return [
            RequestShape("content-length -1", framed("Content-Length: -1"), 400),
            RequestShape("content-length -0", framed("Content-Length: -0"), 400),
            RequestShape("content-length +1", framed("Content-Length: +1"), 400),
            RequestShape("content-length 1.0", framed("Content-Length: 1.0"), 400),
            RequestShape("content-length 0x1", framed("Content-Length: 0x1"), 400),
            RequestShape("content-length of a letter", framed("Content-Length: a"), 400),
            RequestShape("no content-length", framed("Content-Length:"), 400),
            RequestShape("content-length 1 1", framed("Content-Length: 1 1"), 400),
            RequestShape("content-length 1, 1", framed("Content-Length: 1, 1"), 400),
            RequestShape("content-length over 64 bits", framed("Content-Length: 18446744073709551617"), 400),
            RequestShape("content-length over 63 bits", framed("Content-Length: 9223372036854775808"), 400),
            RequestShape("content-length twice", framed("Content-Length: 1\r\nContent-Length: 1"), 400),
            RequestShape("two content-lengths", framed("Content-Length: 1\r\nContent-Length: 2"), 400),
            RequestShape("both lengths", framed("Content-Length: 1\r\nTransfer-Encoding: chunked"), 400),
            RequestShape("both lengths, turned round", framed("Transfer-Encoding: chunked\r\nContent-Length: 1"), 400),
            RequestShape("transfer-encoding gzip", framed("Transfer-Encoding: gzip"), 400),
            RequestShape("transfer-encoding gzip, chunked", framed("Transfer-Encoding: gzip, chunked"), 501),
            RequestShape("transfer-encoding identity, chunked", framed("Transfer-Encoding: identity, chunked"), 501),
            RequestShape(
                "gzip and chunked in two fields", framed("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"), 501),
            RequestShape("transfer-encoding gzip,\tchunked", framed("Transfer-Encoding: gzip,\tchunked"), 501),
            RequestShape("transfer-encoding chunked, gzip", framed("Transfer-Encoding: chunked, gzip"), 400),
            RequestShape("transfer-encoding chunked, chunked", framed("Transfer-Encoding: chunked, chunked"), 400),
            RequestShape(
                "transfer-encoding twice", framed("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
            RequestShape("transfer-encoding xchunked", framed("Transfer-Encoding: xchunked"), 400),
            RequestShape("transfer-encoding identity", framed("Transfer-Encoding: identity"), 400),
            RequestShape("transfer-encoding \"chunked\"", framed("Transfer-Encoding: \"chunked\""), 400),
            RequestShape("space before transfer-encoding's colon", framed("Transfer-Encoding : chunked"), 400),
            RequestShape(
                "transfer-encoding of HTTP/1.0",
                "PUT \(target) HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            RequestShape("chunk size of a letter", chunked("g\r\n"), 400),
            RequestShape("chunk size -1", chunked("-1\r\n"), 400),
            RequestShape("chunk size 0x1", chunked("0x1\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("no chunk size", chunked("\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk size over 64 bits", chunked("10000000000000001\r\na"), 400),
            RequestShape("chunk size with a space before it", chunked(" 1\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk longer than its size", chunked("1\r\nab\r\n0\r\n\r\n"), 400),
            RequestShape("chunk size ended by LF", chunked("1\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk ended by LF", chunked("1\r\na\n0\r\n\r\n"), 400),
            RequestShape("trailer with no colon", chunked("1\r\na\r\n0\r\nnonsense\r\n\r\n"), 400),
            RequestShape("content-length of a sign", framed("Content-Length: +"), 400),
            RequestShape("content-length in other digits", framed("Content-Length: \u{ff11}"), 400),
            RequestShape("content-length with an underscore", framed("Content-Length: 1_0"), 400),
            RequestShape("content-length 1;", framed("Content-Length: 1;"), 400),
            RequestShape("content-length of a quoted number", framed("Content-Length: \"1\""), 400),
            RequestShape("content-length , 1", framed("Content-Length: , 1"), 400),
            RequestShape("content-length 1,2", framed("Content-Length: 1,2"), 400),
            RequestShape("content-length with a form feed", framed("Content-Length: 1\u{c}"), 400),
            RequestShape("content-length with a NUL", framed("Content-Length: 1\0"), 400),
            RequestShape("folded content-length", framed("Content-Length:\r\n 1"), 400),
            RequestShape("space before content-length's colon", framed("Content-Length : 1"), 400),
            RequestShape("an empty content-length beside another", framed("Content-Length: 1\r\nContent-Length:"), 400),
            RequestShape("content-length in two cases", framed("Content-Length: 1\r\ncontent-length: 2"), 400),
            RequestShape(
                "two content-lengths of HTTP/1.0",
                "PUT \(target) HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n1",
                400),
            RequestShape(
                "both lengths, transfer-encoding identity", framed("Content-Length: 1\r\nTransfer-Encoding: identity"),
                400),
            RequestShape(
                "both lengths, transfer-encoding unknown", framed("Content-Length: 1\r\nTransfer-Encoding: xchunked"),
                400),
            RequestShape(
                "both lengths, empty transfer-encoding", framed("Content-Length: 1\r\nTransfer-Encoding:"), 400),
            RequestShape("empty transfer-encoding", framed("Transfer-Encoding:"), 400),
            RequestShape("transfer-encoding , chunked", framed("Transfer-Encoding: , chunked"), 400),
            RequestShape("transfer-encoding chunked,", framed("Transfer-Encoding: chunked,"), 400),
            RequestShape("transfer-encoding chunked;q=1", framed("Transfer-Encoding: chunked;q=1"), 400),
            RequestShape("transfer-encoding with a vertical tab", framed("Transfer-Encoding: chunked\u{b}"), 400),
            RequestShape("transfer-encoding with a NUL", framed("Transfer-Encoding: chunked\0"), 400),
            RequestShape("folded transfer-encoding", framed("Transfer-Encoding:\r\n chunked"), 400),
            RequestShape("transfer-encoding behind a bare LF", framed("X: a\nTransfer-Encoding: chunked"), 400),
            RequestShape("transfer-encoding behind a bare CR", framed("X: a\rTransfer-Encoding: chunked"), 400),
            RequestShape(
                "identity and chunked in two fields",
                framed("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"), 501),
            RequestShape(
                "chunked and identity in two fields",
                framed("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), 400),
            RequestShape(
                "both lengths of HTTP/1.0",
                "PUT \(target) HTTP/1.0\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                400),
            RequestShape("chunk size +1", chunked("+1\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk size 1_0", chunked("1_0\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk size that comes round", chunked("10000000000000005\r\nabcde\r\n0\r\n\r\n"), 400),
            RequestShape("chunk size with a NUL", chunked("1\0\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk size with a tab behind it", chunked("1\t\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk size ended by CR", chunked("1\ra\r\n0\r\n\r\n"), 400),
            RequestShape("chunk size ended by CR CR LF", chunked("1\r\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk extension ended by LF", chunked("1;x\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk extension with a bare CR", chunked("1;x\ry\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk extension with a NUL", chunked("1;x\0\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("line end in a quoted chunk extension", chunked("1;x=\"\r\n\"\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk shorter than its size", chunked("3\r\na\r\n0\r\n\r\n"), 400),
            RequestShape("chunk with nothing behind it but a size", chunked("1\r\na0\r\n\r\n"), 400),
            RequestShape("last chunk ended by LF", chunked("1\r\na\r\n0\n\r\n"), 400),
            RequestShape("body ended by LF", chunked("1\r\na\r\n0\r\n\n"), 400),
            RequestShape("trailer ended by LF", chunked("0\r\nX: a\n\r\n"), 400),
            RequestShape("trailer content-length", chunked("0\r\nContent-Length: 5\r\n\r\n"), 400),
            RequestShape("trailer transfer-encoding", chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
            RequestShape("folded trailer", chunked("0\r\nX: a\r\n b\r\n\r\n"), 400),
            RequestShape("trailer with a space before its colon", chunked("0\r\nX : a\r\n\r\n"), 400),
            RequestShape("trailer with a NUL", chunked("0\r\nX: \0\r\n\r\n"), 400),
        ]
    }

    /// For a server that takes 1,000 bytes of target and of body, and 4,000 of header fields.
    public static let overLimits: [RequestShape] = [
        RequestShape("target over the limit", get("/" + String(repeating: "t", count: 2_000)), 414),
        RequestShape("target over every limit", get("/" + String(repeating: "t", count: 500_000)), 414),
        RequestShape("URL over every limit", get("http://a/" + String(repeating: "t", count: 500_000)), 414),
        RequestShape("target over every limit, never ended", "GET /" + String(repeating: "t", count: 500_000), 414),
        RequestShape("fields over the limit", get("/", "X: \(String(repeating: "v", count: 5_000))\r\n"), 431),
        RequestShape(
            "many fields over the limit", get("/", String(repeating: "X: vvvvvvvvvvvvv\r\n", count: 250)), 431),
        RequestShape("field over every limit", get("/", "X: \(String(repeating: "v", count: 500_000))\r\n"), 431),
        RequestShape("name over every limit", get("/", "\(String(repeating: "X", count: 500_000)): v\r\n"), 431),
        RequestShape("more fields than the limit", get("/", String(repeating: "X:\r\n", count: 300)), 431),
        RequestShape("field never ended", "GET / HTTP/1.1\r\nX: " + String(repeating: "v", count: 500_000), 431),
        RequestShape("content-length 2^63-1", RequestShape.framed("/", "Content-Length: 9223372036854775807"), 413),
        RequestShape(
            "trailers over the limit",
            RequestShape.chunked("/", "0\r\nX: \(String(repeating: "v", count: 500_000))\r\n\r\n"), 431),
        RequestShape("body over the limit", put("/", String(repeating: "b", count: 1_001)), 413),
        RequestShape("body over the limit, not sent", RequestShape.framed("/", "Content-Length: 1001"), 413),
        RequestShape(
            "chunk over the limit",
            RequestShape.chunked("/", "3e9\r\n" + String(repeating: "b", count: 1_001) + "\r\n0\r\n\r\n"), 413),
        RequestShape(
            "chunks over the limit",
            RequestShape.chunked("/", String(repeating: "1\r\nb\r\n", count: 1_001) + "0\r\n\r\n"), 413),
        RequestShape(
            "chunk of 2^64 - 1 bytes",
            RequestShape.chunked("/", "ffffffffffffffff\r\n" + String(repeating: "b", count: 1_001)), 413),
        RequestShape(
            "chunk that never ends", RequestShape.chunked("/", "ffffffff\r\n" + String(repeating: "b", count: 5_000)),
            413),
        RequestShape("huge body over the limit", put("/", String(repeating: "b", count: 8_000_000)), 413),
        RequestShape(
            "expectation with a body over the limit",
            RequestShape.framed("/", "Content-Length: 1001\r\nExpect: 100-continue"), 413),
        RequestShape(
            "more trailers than the limit",
            RequestShape.chunked("/", "0\r\n" + String(repeating: "X: y\r\n", count: 300) + "\r\n"), 431),
    ]

    public static let unfinished: [RequestShape] = [
        RequestShape("HTTP/0.9", "GET /\r\n", 400, finishes: true),
        RequestShape("end in the method", "GE", 400, finishes: true),
        RequestShape("end in the target", "GET /abc", 400, finishes: true),
        RequestShape("end in a name", "GET / HTTP/1.1\r\nHo", 400, finishes: true),
        RequestShape("end in a value", "GET / HTTP/1.1\r\nHost: a", 400, finishes: true),
        RequestShape("end before the blank line", "GET / HTTP/1.1\r\nHost: a\r\n", 400, finishes: true),
        RequestShape("end in a body", RequestShape.framed("/", "Content-Length: 10"), 400, finishes: true),
        RequestShape("end in a chunk size", RequestShape.chunked("/", "1"), 400, finishes: true),
        RequestShape("end in a chunk", RequestShape.chunked("/", "5\r\nab"), 400, finishes: true),
        RequestShape("end before the last chunk", RequestShape.chunked("/", "1\r\na\r\n"), 400, finishes: true),
        RequestShape("end in the trailers", RequestShape.chunked("/", "1\r\na\r\n0\r\nX: a\r\n"), 400, finishes: true),
    ]

    private static func framed(_ target: String, _ fields: String) -> String {
        "PUT \(target) HTTP/1.1\r\nHost: a\r\n\(fields)\r\n\r\n1"
    }

    private static func chunked(_ target: String, _ body: String) -> String {
        "PUT \(target) HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\(body)"
    }
}

public func get(_ target: String, _ fields: String = "") -> String {
    "GET \(target) HTTP/1.1\r\nHost: a\r\n\(fields)\r\n"
}

public func put(_ target: String, _ body: String, _ fields: String = "") -> String {
    "PUT \(target) HTTP/1.1\r\nHost: a\r\nContent-Length: \(body.utf8.count)\r\n\(fields)\r\n\(body)"
}
