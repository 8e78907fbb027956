import HTTPServer
import NIOCore
import ServiceSupport
import Testing
import Wire

@Suite struct QueryParametersTests {
    @Test func splitsAndDecodes() throws {
        let query = try QueryParameters("a=1&b=x+y%26z&flag&empty=&c=p=q&&")
        #expect(query.parameters.map(\.name) == ["a", "b", "flag", "empty", "c"])
        #expect(try query.integer("a") == 1)
        #expect(try query.text("b") == "x y&z")
        #expect(try query.text("c") == "p=q")
        #expect(try query.flag("flag") == true)
        #expect(query.bytes("empty") == [])
        #expect(query.bytes("other") == nil)
        #expect(try QueryParameters(nil).parameters.isEmpty)
    }

    @Test(arguments: ["a=%", "a=%4", "%zz=1", "a=1&a=2", "%FF=1"])
    func refused(query: String) {
        let thrown = #expect(throws: Problem.self) { try QueryParameters(query[...]) }
        #expect(thrown?.kind == .badRequest)
    }

    @Test func valuesAreChecked() throws {
        let query = try QueryParameters("n=10&big=300&plus=%2B1&word=x&bytes=%FF&yes=true&no=false")
        #expect(try query.integer("n", in: 1...10) == 10)
        #expect(try query.integer("missing", in: 1...10) == nil)
        #expect(try query.flag("yes") == true)
        #expect(try query.flag("no") == false)
        #expect(throws: Problem.self) { try query.integer("n", in: 1...9) }
        #expect(throws: Problem.self) { try query.integer("big") as UInt8? }
        #expect(throws: Problem.self) { try query.integer("plus") as Int? }
        #expect(throws: Problem.self) { try query.integer("word") as Int? }
        #expect(throws: Problem.self) { try query.flag("word") }
        #expect(throws: Problem.self) { try query.text("bytes") }
        #expect(query.bytes("bytes") == [0xFF])
        #expect(throws: Problem.self) { try query.allowOnly(["n"]) }
        #expect(throws: Never.self) { try QueryParameters("n=1").allowOnly(["n"]) }
    }
}

@Suite struct ResponseTests {
    private func header(_ name: String, _ response: HTTPResponse) -> String? {
        response.headers.first { $0.name == name }?.value
    }

    @Test func problemDocument() {
        let response = HTTPResponse(problem: Problem(.notFound, "There is no \"x\"."))
        #expect(response.status == 404)
        #expect(header("content-type", response) == "application/problem+json")
        #expect(header("retry-after", response) == nil)
        #expect(String(buffer: response.body) == Problem(.notFound, "There is no \"x\".").json + "\n")
    }

    @Test(arguments: [Problem.Kind.overloaded, .unavailable, .storageFailed])
    func unavailableSaysWhenToComeBack(kind: Problem.Kind) {
        #expect(header("retry-after", HTTPResponse(problem: Problem(kind, "Later."))) == "1")
    }

    @Test func wrongMethodSaysWhatIsAllowed() {
        let response = HTTPResponse(methodNotAllowed: "PATCH", allowed: "GET, HEAD")
        #expect(response.status == 405)
        #expect(header("allow", response) == "GET, HEAD")
    }

    @Test func unknownPathIsShownInPart() {
        let response = HTTPResponse(unknownPath: "/" + String(repeating: "x", count: 1_000))
        #expect(response.status == 404)
        #expect(response.body.readableBytes < 300)
        #expect(String(buffer: response.body).contains("unknown-path"))
    }

    @Test(arguments: [
        (HTTPRejection.malformed("x"), 400), (.timedOut, 408), (.bodyTooLarge(limit: 1), 413),
        (.targetTooLong(limit: 1), 414), (.unknownExpectation("x"), 417), (.headersTooLarge(limit: 1), 431),
        (.overloaded, 503),
    ])
    func everyRejectionHasItsStatus(rejection: HTTPRejection, status: Int) {
        #expect(Problem(rejection).kind.status == status)
    }

    @Test func documents() {
        let response = HTTPResponse(
            document: RouterStatus(version: "1", mode: "redirect", epoch: 1, uptimeSeconds: 1, nodes: []))
        #expect(response.status == 200)
        #expect(header("content-type", response) == "application/json")
        #expect(String(buffer: response.body).hasSuffix("}\n"))
    }
}
