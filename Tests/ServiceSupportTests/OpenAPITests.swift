import Core
import FoundationEssentials
import HTTPServer
import NIOCore
import Testing
import Wire

@testable import ServiceSupport

@Suite struct OpenAPITests {
    private struct Document: Decodable {
        struct Info: Decodable { var version: String }
        struct Schema: Decodable {
            var names: [String]?
            enum CodingKeys: String, CodingKey { case names = "enum" }
        }
        struct Components: Decodable { var schemas: [String: Schema] }
        var openapi: String
        var info: Info
        var components: Components
    }

    private static let repository = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }

    private static func source(_ path: String) throws -> String {
        try String(contentsOfFile: "\(repository)/\(path)", encoding: .utf8)
    }

    /// Name and status of every kind of problem there is, as the source has them.
    private static func kinds() throws -> [(name: String, status: Int)] {
        let kinds = try source("Sources/Shared/Wire/Problem.swift")
            .matches(of: /Self\(\s*"([a-z-]+)", (\d+)/)
            .map { (String($0.output.1), Int($0.output.2) ?? 0) }
        try #require(kinds.count > 30 && kinds.contains { $0.0 == Problem.Kind.notFound.name })
        return kinds
    }

    @Test func saysWhatThisBuildIs() throws {
        let document = try JSONDecoder().decode(Document.self, from: Data(buffer: OpenAPI.response.body))
        #expect(document.openapi.hasPrefix("3.1."))
        #expect(document.info.version == BuildInformation.version)
        let names = try #require(document.components.schemas["ProblemType"]?.names)
        #expect(try Self.kinds().map(\.name).sorted() == names.sorted())
    }

    /// The table of errors in the documentation has every problem, each with its status.
    @Test func theDocumentationKnowsEveryProblem() throws {
        let rows = try Self.source("docs/http-api.md").split(separator: "\n").filter { $0.starts(with: /\| \d{3}/) }
        for (name, status) in try Self.kinds() {
            let isListed = rows.contains { row in
                let cells = row.split(separator: "|")
                return cells.count > 1 && cells[0].contains("\(status)") && cells[1].contains("`\(name)`")
            }
            #expect(isListed, "\(status) \(name) has no row in docs/http-api.md")
        }
    }
}

extension Data {
    init(buffer: ByteBuffer) { self.init(buffer.readableBytesView) }
}
