import NIOHTTP1
import Testing
import Wire

@testable import ServiceSupport

@Suite struct RecentQueriesTests {
    private final class Reader {
        private(set) var reads: [String] = []
        private var recent = RecentQueries<String>()

        func value(_ query: String, _ method: HTTPMethod = .GET) throws(Problem) -> String {
            let bytes = Array(query.utf8)
            let result = bytes.withUnsafeBytes { bytes in
                Result<String, Problem> { () throws(Problem) in
                    try recent.value(of: bytes, method) { () throws(Problem) in
                        reads.append(query)
                        if query == "bad" { throw Problem(.badRequest, "bad") }
                        return "\(method) \(query)"
                    }
                }
            }
            return try result.get()
        }
    }

    @Test func aQueryIsReadOnceForEachMethod() throws {
        let reader = Reader()
        for _ in 0..<3 {
            try #expect(reader.value("hops=1") == "GET hops=1")
            try #expect(reader.value("hops=1", .PUT) == "PUT hops=1")
            try #expect(reader.value("hops=2") == "GET hops=2")
            try #expect(reader.value("") == "GET ")
        }
        #expect(reader.reads == ["hops=1", "hops=1", "hops=2", ""])
    }

    @Test func whatCannotBeReadIsReadAgain() throws {
        let reader = Reader()
        for _ in 0..<3 { #expect(throws: Problem.self) { try reader.value("bad") } }
        #expect(reader.reads.count == 3)
    }

    @Test func fewShortOnesAreKept() throws {
        let reader = Reader()
        let long = String(repeating: "x", count: 1_000)
        for _ in 0..<2 { _ = try reader.value(long) }
        #expect(reader.reads.count == 2)
        for number in 0..<100 { _ = try reader.value("\(number)") }
        // The last one is still there, the first gave way to others.
        _ = try reader.value("99")
        #expect(reader.reads.count == 102)
        try #expect(reader.value("0") == "GET 0")
        #expect(reader.reads.count == 103)
    }
}
