import Core
import FoundationEssentials
import Testing
import Wire

@Suite struct ProblemTests {
    private struct Document: Decodable {
        let type: String
        let title: String
        let status: Int
        let detail: String
    }

    @Test func documentIsStable() {
        let problem = Problem(.notLeader, "write to the leader", members: ["leader": "127.0.0.1:7001", "term": "3"])
        #expect(
            problem.json == """
                {"type":"not-leader","title":"This node does not lead the shard","status":409,\
                "detail":"write to the leader","leader":"127.0.0.1:7001","term":"3"}
                """)
    }

    /// An independent parser has to read back what was written, whatever stands in the text.
    @Test func anyTextSurvives() throws {
        let controls = String(String.UnicodeScalarView((0..<0x21).compactMap { Unicode.Scalar($0) }))
        for detail in ["", "\"\\/", controls, "\u{7F}\u{2028}é\u{1F600}", "</script>", "a\r\nb"] {
            let json = Problem(.badRequest, detail).json
            let document = try JSONDecoder().decode(Document.self, from: Data(json.utf8))
            // Control characters are held back: a detail is shown in one line.
            #expect(document.detail == ShownText.of(detail, charactersMax: 1_000))
            #expect(document.type == "bad-request")
            #expect(document.status == 400)
            #expect(document.title == Problem.Kind.badRequest.title)
            #expect(!json.utf8.contains { $0 < 0x20 })
        }
    }

    @Test func namesAreUniqueAndStatusesAreErrors() {
        let kinds: [Problem.Kind] = [
            .badRequest, .notFound, .unknownPath, .unknownShard, .methodNotAllowed, .requestTimeout, .notLeader,
            .staleTerm, .logMismatch, .diverged, .logTruncated, .preconditionFailed, .notAnInteger, .counterOverflow,
            .valueTooLarge, .targetTooLong, .expectationFailed,
            .headersTooLarge, .internalError, .unsupported, .badGateway, .overloaded, .unavailable, .storageFailed,
            .upstreamTimeout, .storageFull, .redirectLoop,
        ]
        #expect(Set(kinds.map(\.name)).count == kinds.count)
        for kind in kinds {
            #expect((400...599).contains(kind.status))
            #expect(
                kind.name.utf8.allSatisfy {
                    $0 == UInt8(ascii: "-") || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
                })
        }
    }
}
