import Core
import HTTPServer
import NIOCore
import ServiceSupport
import Sharding
import TestSupport
import Wire

/// Keys in request targets: the fast reader against the plain one, and what a redirect makes of a target.
struct KeyTargets: FuzzTarget {
    let words = [
        "/kv/", "/kv", "%", "%2", "%00", "%2f", "%2F", "%ff", "%7B", "{", "}", "{}", "?", "#", "&", "=", "+", "hops=",
        "hops=3", "hops=4",
        "proxy", "proxy=true", "proxy=false", "ack=all", "ack=2", "timeout=5s", "consistency=leader",
        "max_staleness=1ms", "//", "..", "\0",
        "é",
    ]

    let seeds: [[UInt8]] = [
        "/kv/a", "/kv/photos/2024/beach.jpg", "/kv/caf%C3%A9%20%231", "/kv/{user:7}/name?ack=all&timeout=5s",
        "/kv/%7Buser%7D/x?hops=1&proxy=true", "/kv/a?proxy=false&consistency=leader&max_staleness=500ms", "/kv/",
        "/kvx", "/status",
        "/kv/%00%ff%fe", "/kv/a?x=1&hops=2&y=%20&proxy", "/kv/a%2", "/kv/a#b",
        "/kv/" + String(repeating: "k", count: 4_096),
        "/kv/" + String(repeating: "%6b", count: 4_096), "/kv/" + String(repeating: "%6b", count: 4_097),
    ].map { Array($0.utf8) }

    func run(_ input: [UInt8]) throws {
        // Targets come as strings of the decoder, which takes ASCII only.
        let ascii = input.map { $0 & 0x7F }
        let target = String(decoding: ascii, as: UTF8.self)
        try ascii.withUnsafeBytes { bytes in
            guard let place = KeyTarget(bytes) else {
                return try expect(!target.hasPrefix("/kv/"), "\(target) is not taken for a key's")
            }
            let path = target.utf8.prefix { $0 != UInt8(ascii: "?") }.dropFirst(4)
            var expected = PercentCoding.decode(path)
            if let key = expected, key.isEmpty || key.count > Limits.keyBytesMax { expected = nil }
            if target.utf8.contains(UInt8(ascii: "#")) { expected = nil }
            let key: [UInt8]?
            do throws(Problem) {
                key = try place.withKey(in: bytes) { Array($0) }
            } catch {
                try expectClear(error.detail)
                key = nil
            }
            try expect(key == expected, "\(target) names \(key as Any), not \(expected as Any)")
            guard let key else { return }
            try expect(PercentCoding.decode(PercentCoding.encode(key).utf8) == key, "\(key) does not come back")
            let again = try KeyTargets.key(of: "/kv/" + PercentCoding.encode(key))
            try expect(again == key, "\(key) encoded names \(again as Any)")
            try KeyTargets.checkRedirect(of: target, place, bytes, key)
        }
    }

    static func key(of target: String) throws -> [UInt8]? {
        try Array(target.utf8).withUnsafeBytes { bytes in
            try KeyTarget(bytes).map { place in try place.withKey(in: bytes) { Array($0) } }
        }
    }

    /// A redirect leads to the same key, one hop on, with everything but the router's own parameters.
    private static func checkRedirect(
        of target: String, _ place: KeyTarget, _ bytes: UnsafeRawBufferPointer, _ key: [UInt8]
    ) throws {
        let query: RoutedQuery
        do throws(Problem) {
            query = try RoutedQuery(place.query, in: bytes)
        } catch {
            return try expectClear(error.detail)
        }
        var buffer = ByteBuffer()
        query.write(place, of: bytes, hops: query.hops + 1, into: &buffer)
        let onward = String(buffer: buffer)
        try expect(try KeyTargets.key(of: onward) == key, "\(target) is redirected to \(onward)")
        try Array(onward.utf8).withUnsafeBytes { bytes in
            guard let place = KeyTarget(bytes) else { throw FuzzDefect("\(onward) names no key") }
            do throws(Problem) {
                let next = try RoutedQuery(place.query, in: bytes)
                guard next.hops == query.hops + 1, next.proxy == nil, next.guarantees == query.guarantees else {
                    throw Problem(.internalError, "\(target) became \(onward)")
                }
            } catch {
                // One hop more may be one too many.
                guard error.kind == .redirectLoop, query.hops + 1 >= Limits.redirectsMax else {
                    throw FuzzDefect("\(onward) is refused: \(error.detail)")
                }
            }
        }
    }
}

/// The query as a node reads it against the query as routing reads it.
struct QueryTarget: FuzzTarget {
    let words = [
        "&", "=", "%", "%3d", "%26", "+", "hops=", "proxy=true", "ack=all", "ack=quorum", "ack=leader", "ack=2",
        "timeout=5s", "timeout=60s",
        "timeout=61s", "consistency=leader", "consistency=eventual", "max_staleness=1ms", "max_staleness=9d", "incr=1",
        "ttl=30s", "\0", "#",
    ]

    let seeds: [[UInt8]] = [
        "", "ack=all&timeout=500ms", "consistency=leader&max_staleness=5s", "incr=-9223372036854775808",
        "hops=1&proxy=false&ack=3",
        "a=b&c=d+e%20f", "ack", "ttl=30s&ack=quorum", "%61ck=all", "a=1&a=2",
    ].map { Array($0.utf8) }

    func run(_ input: [UInt8]) throws {
        let text = String(decoding: input.map { $0 & 0x7F }, as: UTF8.self)
        let parameters: QueryParameters
        do throws(Problem) {
            parameters = try QueryParameters(text[...])
        } catch {
            return try expectClear(error.detail)
        }
        for name in parameters.parameters.map(\.name) {
            do throws(Problem) {
                _ = try parameters.integer(name, in: -5...Int64.max)
                _ = try parameters.flag(name)
            } catch {
                try expectClear(error.detail)
            }
        }
        let target = "/kv/a?" + text
        try Array(target.utf8).withUnsafeBytes { bytes in
            guard let place = KeyTarget(bytes), !text.contains("#") else { return }
            let routed: RoutedQuery
            do throws(Problem) {
                routed = try RoutedQuery(place.query, in: bytes)
            } catch {
                return try expectClear(error.detail)
            }
            // What is written plainly is read by both, and in the same way.
            guard !text.contains("%") else { return }
            do throws(Problem) {
                let guarantees = try Guarantees(parameters)
                guard guarantees == routed.guarantees else {
                    throw Problem(.internalError, "\(text): \(guarantees) and \(routed.guarantees)")
                }
            } catch {
                throw FuzzDefect("a router passes on \(text), a node refuses it: \(error.detail)")
            }
        }
    }
}

/// Percent-encoding: three readers and a writer.
struct PercentTarget: FuzzTarget {
    let words = ["%", "%%", "%0", "%00", "%GG", "%25", "+", "%2b", "/", "~"]
    let seeds: [[UInt8]] = ["", "abc", "a%20b", "%E2%82%AC", "a+b", "%", "%1", "%zz"].map { Array($0.utf8) }

    func run(_ input: [UInt8]) throws {
        try expect(PercentCoding.decode(PercentCoding.encode(input).utf8) == input, "it does not come back")
        let text = PercentCoding.encode(input)
        try expect(text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 35 && $0 != 63 }, "not for a target: \(text)")
        let slow = PercentCoding.decode(input)
        let fast = input.withUnsafeBytes { bytes -> [UInt8]? in
            withUnsafeTemporaryAllocation(byteCount: bytes.count, alignment: 1) { decoded in
                PercentCoding.decode(bytes, into: decoded).map { Array(decoded[..<$0]) }
            }
        }
        try expect(slow == fast, "read as \(slow as Any) and as \(fast as Any)")
        let form = PercentCoding.decode(input, plusIsSpace: true)
        try expect((form == nil) == (slow == nil) && form?.count == slow?.count, "forms differ in more than +")
    }
}
