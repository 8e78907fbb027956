/// A second reader of requests, written from RFC 9112 alone, for comparison: simple, slow, and lenient where the RFC leaves a
/// choice, so that all that a server may serve is in what it reads.
enum ReferenceParser {
    struct Request: Equatable, CustomStringConvertible {
        var method: String
        var target: String
        var body: [UInt8]
        var description: String { "\(method) \(target) \(String(decoding: body, as: UTF8.self).debugDescription)" }
    }

    /// The requests up to the first that is not whole or not right, or that ends the connection.
    static func requests(in input: [UInt8]) -> [Request] {
        var reader = Reader(rest: input[...])
        var requests: [Request] = []
        while let (request, isLast) = reader.request() {
            requests.append(request)
            if isLast { break }
        }
        return requests
    }

    private struct Head {
        var method: String
        var target: String
        var isOld: Bool
        var fields: [(name: String, value: String)] = []

        func values(_ name: String) -> [String] { fields.filter { $0.name == name }.map(\.value) }

        var isLast: Bool {
            let connection = values("connection").joined(separator: ",").lowercased().split(separator: ",").map {
                String($0.drop { $0 == " " || $0 == "\t" }.prefix { $0 != " " && $0 != "\t" })
            }
            if connection.contains("close") || !values("upgrade").isEmpty { return true }
            return isOld && !connection.contains("keep-alive")
        }
    }

    private struct Reader {
        var rest: ArraySlice<UInt8>

        mutating func request() -> (Request, isLast: Bool)? {
            // Section 2.2: empty lines before a request line may be read over, a lone LF for one too.
            while let first = rest.first, first == 13 || first == 10 { rest = rest.dropFirst() }
            guard let head = head() else { return nil }
            let hosts = head.values("host").count
            guard hosts == 1 || hosts == 0 && head.isOld, let body = body(of: head) else { return nil }
            return (Request(method: head.method, target: head.target, body: body), head.isLast)
        }

        private mutating func head() -> Head? {
            guard let line = self.line() else { return nil }
            var parts = line.split(separator: 32, omittingEmptySubsequences: false).map {
                String(decoding: $0, as: UTF8.self)
            }
            // Section 3: several spaces may be taken for one; the server does around the target.
            while parts.count > 3, let empty = parts.dropFirst().dropLast().firstIndex(of: "") {
                parts.remove(at: empty)
            }
            guard parts.count == 3, !parts[0].isEmpty, parts[2] == "HTTP/1.1" || parts[2] == "HTTP/1.0",
                let target = target(parts[1], method: parts[0])
            else { return nil }
            var head = Head(method: parts[0], target: target, isOld: parts[2] == "HTTP/1.0")
            while true {
                guard let line = self.line() else { return nil }
                if line.isEmpty { return head }
                guard let colon = line.firstIndex(of: 58), colon > line.startIndex,
                    line[..<colon].allSatisfy(ReferenceParser.isToken)
                else { return nil }
                let value = line[(colon + 1)...].trimmed
                guard value.allSatisfy({ ($0 >= 32 && $0 != 127) || $0 == 9 }) else { return nil }
                let name = String(decoding: line[..<colon], as: UTF8.self).lowercased()
                head.fields.append((name, String(decoding: value, as: UTF8.self)))
            }
        }

        /// Up to CR LF; nil where there is no such line, or a CR or LF stands alone in it.
        private mutating func line() -> ArraySlice<UInt8>? {
            guard let end = rest.firstIndex(of: 10), end > rest.startIndex, rest[end - 1] == 13 else { return nil }
            let line = rest[rest.startIndex..<end - 1]
            guard !line.contains(13), !line.contains(0) else { return nil }
            rest = rest[(end + 1)...]
            return line
        }

        private func target(_ target: String, method: String) -> String? {
            if target.hasPrefix("/") || (target == "*" && method == "OPTIONS") { return target }
            guard target.lowercased().hasPrefix("http://") else { return nil }
            let authority = target.dropFirst(7).prefix { $0 != "/" && $0 != "?" }
            guard !authority.isEmpty else { return nil }
            let path = target.dropFirst(7 + authority.count)
            return path.hasPrefix("/") ? String(path) : "/" + path
        }

        private mutating func body(of head: Head) -> [UInt8]? {
            let (lengths, codings) = (head.values("content-length"), head.values("transfer-encoding"))
            if !codings.isEmpty {
                guard lengths.isEmpty, !head.isOld, codings.count == 1, codings[0].lowercased() == "chunked" else {
                    return nil
                }
                return chunks()
            }
            guard let first = lengths.first else { return [] }
            guard lengths.count == 1, !first.isEmpty, first.utf8.allSatisfy({ $0 >= 48 && $0 < 58 }),
                let length = Int(first)
            else { return nil }
            return take(length)
        }

        private mutating func take(_ count: Int) -> [UInt8]? {
            guard rest.count >= count else { return nil }
            defer { rest = rest.dropFirst(count) }
            return Array(rest.prefix(count))
        }

        private mutating func chunks() -> [UInt8]? {
            var body: [UInt8] = []
            while true {
                guard let line = self.line() else { return nil }
                let digits = line.prefix { ($0 >= 48 && $0 < 58) || ($0 | 32 >= 97 && $0 | 32 < 103) }
                let behind = line[digits.endIndex...]
                guard !digits.isEmpty, let size = Int(String(decoding: digits, as: UTF8.self), radix: 16),
                    behind.isEmpty || behind.trimmed.first == 59
                else { return nil }
                if size == 0 { break }
                guard let chunk = take(size), let end = take(2), end == [13, 10] else { return nil }
                body += chunk
            }
            // Trailers.
            while true {
                guard let line = self.line() else { return nil }
                if line.isEmpty { return body }
                guard let colon = line.firstIndex(of: 58), line[..<colon].allSatisfy(ReferenceParser.isToken) else {
                    return nil
                }
            }
        }
    }

    private static func isToken(_ byte: UInt8) -> Bool {
        (byte >= 48 && byte < 58) || (byte | 32 >= 97 && byte | 32 <= 122) || "!#$%&'*+-.^_`|~".utf8.contains(byte)
    }
}

extension ArraySlice<UInt8> {
    fileprivate var trimmed: ArraySlice<UInt8> {
        let start = drop { $0 == 32 || $0 == 9 }
        guard let last = start.lastIndex(where: { $0 != 32 && $0 != 9 }) else { return [] }
        return start[...last]
    }
}
