/// One answer as it came over the wire, read as strictly as RFC 9112 has it.
public struct RawAnswer: Sendable, Equatable, CustomStringConvertible {
    public struct Malformed: Error, CustomStringConvertible {
        public let what: String
        public var description: String { "not an HTTP answer: \(what)" }

        public init(what: String) { self.what = what }
    }

    public var status: Int
    public var fields: [(name: String, value: String)]
    public var body: [UInt8]

    public static func == (one: RawAnswer, other: RawAnswer) -> Bool {
        one.status == other.status && one.body == other.body && one.fields.elementsEqual(other.fields, by: ==)
    }

    public var text: String { String(decoding: body, as: UTF8.self) }
    public var description: String { "\(status) \(fields.map { "\($0.name): \($0.value)" }) \(body.count) bytes" }
    public var closes: Bool { self["connection"] == "close" }

    /// The only value of a field; nil where it is missing or there twice.
    public subscript(name: String) -> String? {
        let values = fields.filter { $0.name == name }.map(\.value)
        return values.count == 1 ? values[0] : nil
    }

    /// The whole answers in `bytes`, and how many bytes follow them.
    /// - Parameter heads: the places of the answers to HEAD requests, which have no body; those that say so with
    ///   an `x-method` field need not be named.
    public static func parse(_ bytes: [UInt8], heads: Set<Int> = []) throws -> (answers: [RawAnswer], rest: Int) {
        var answers: [RawAnswer] = []
        var rest = bytes[...]
        while let (answer, length) = try parseFirst(rest, isHead: heads.contains(answers.count)) {
            answers.append(answer)
            rest = rest.dropFirst(length)
        }
        return (answers, rest.count)
    }

    private static func parseFirst(_ bytes: ArraySlice<UInt8>, isHead: Bool) throws -> (RawAnswer, Int)? {
        guard let headEnd = endOfHead(bytes) else { return nil }
        let head = String(decoding: bytes[bytes.startIndex..<headEnd - 4], as: UTF8.self)
        var lines = head.split(separator: "\r\n", omittingEmptySubsequences: false)[...]
        let statusLine = lines.removeFirst().split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
        guard statusLine.count == 3, statusLine[0] == "HTTP/1.1", let status = Int(statusLine[1]), status >= 100,
            status < 600, !statusLine[2].isEmpty
        else { throw Malformed(what: head) }
        var fields: [(name: String, value: String)] = []
        for line in lines {
            guard let colon = line.utf8.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex,
                line[..<colon].allSatisfy({ $0.isLowercase || $0 == "-" })
            else { throw Malformed(what: head) }
            fields.append((String(line[..<colon]), String(line[colon...].dropFirst(2))))
        }
        var answer = RawAnswer(status: status, fields: fields, body: [])
        let hasNoContent = status < 200 || status == 204 || status == 304
        guard hasNoContent == (answer["content-length"] == nil) else { throw Malformed(what: head) }
        let hasNoBody = hasNoContent || isHead || answer["x-method"] == "HEAD"
        let length = hasNoBody ? 0 : answer["content-length"].flatMap { Int($0) }
        guard let length else { throw Malformed(what: head) }
        guard bytes.endIndex - headEnd >= length else { return nil }
        answer.body = Array(bytes[headEnd..<headEnd + length])
        return (answer, headEnd - bytes.startIndex + length)
    }

    private static func endOfHead(_ bytes: ArraySlice<UInt8>) -> Int? {
        var index = bytes.startIndex
        while index + 4 <= bytes.endIndex {
            if bytes[index] == 13, bytes[index + 1] == 10, bytes[index + 2] == 13, bytes[index + 3] == 10 {
                return index + 4
            }
            index += 1
        }
        return nil
    }
}
