package import Core
import HTTPServer
import NIOCore
package import NIOHTTP1
import Shard
package import Wire

extension WriteCondition {
    /// Reads the condition of a write from its header fields; nil where it has none.
    ///
    /// - Throws: `bad-request` where `If-Match` or `If-None-Match` is neither `*` nor a list of entity tags,
    ///   `unsupported` for conditions on dates, which are refused rather than ignored: whoever sends one relies on it.
    package init?(_ headers: HTTPHeaders) throws(Problem) {
        var match: EntityTags?
        var noneMatch: EntityTags?
        for (name, value) in headers {
            switch name.utf8.count {
            case 8 where name.lowercased() == "if-match":
                try EntityTags.add(value, of: name, to: &match)
            case 13 where name.lowercased() == "if-none-match":
                try EntityTags.add(value, of: name, to: &noneMatch)
            case 17 where name.lowercased() == "if-modified-since",
                19 where name.lowercased() == "if-unmodified-since":
                throw Problem(.unsupported, "Writes take no conditions on dates: send If-Match instead of \(name).")
            default: break
            }
        }
        guard match != nil || noneMatch != nil else { return nil }
        self.init(match: match?.versions(weak: false), noneMatch: noneMatch?.versions(weak: true))
    }
}

/// The value of `If-Match` or `If-None-Match`: `*`, or entity tags between commas.
private struct EntityTags {
    private var isAny = false
    private var tags: [(isWeak: Bool, text: Substring)] = []

    /// Adds what one line of a field names.
    static func add(_ value: String, of name: String, to tags: inout EntityTags?) throws(Problem) {
        var sum = tags ?? EntityTags()
        guard sum.parse(value[...]) else {
            throw Problem(
                .badRequest, "\(name): \(value.prefix(64)) is neither * nor a list of versions, each in quotes.")
        }
        tags = sum
    }

    private mutating func parse(_ value: Substring) -> Bool {
        var rest = EntityTags.trim(value)
        if rest == "*" {
            isAny = true
            return tags.isEmpty
        }
        guard !isAny, !rest.isEmpty else { return false }
        while true {
            let isWeak = rest.hasPrefix("W/")
            if isWeak { rest = rest.dropFirst(2) }
            guard rest.first == "\"", let end = rest.dropFirst().firstIndex(of: "\"") else { return false }
            tags.append((isWeak: isWeak, text: rest[rest.index(after: rest.startIndex)..<end]))
            rest = EntityTags.trim(rest[rest.index(after: end)...])
            if rest.isEmpty { return true }
            guard rest.first == "," else { return false }
            rest = EntityTags.trim(rest.dropFirst())
        }
    }

    private static func trim(_ text: Substring) -> Substring {
        var text = text.drop { $0 == " " || $0 == "\t" }
        while let last = text.last, last == " " || last == "\t" { text = text.dropLast() }
        return text
    }

    /// The versions among them: a tag that is none matches nothing, and a weak one only in a weak comparison.
    func versions(weak: Bool) -> WriteCondition.Versions {
        if isAny { return .any }
        return .listed(tags.compactMap { $0.isWeak && !weak ? nil : Version(hexDigits: $0.text) })
    }
}

extension HTTPExchange {
    /// Answers a write that is made.
    /// - Parameter number: what a counter stands at now; nil for other writes.
    func respond(made version: Version, number: Int64?) {
        guard let number else {
            return respond(status: 204, contentLength: nil) { $0.writeVersionFields(version) }
        }
        let text = String(number)
        respond(status: 200, contentLength: text.utf8.count) { buffer in
            buffer.writeStaticString("content-type: text/plain\r\n")
            buffer.writeVersionFields(version)
        } body: { buffer in
            buffer.writeString(text)
        }
    }
}
