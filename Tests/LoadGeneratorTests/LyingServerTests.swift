import HTTPServer
import NIOHTTP1
import Testing

@testable import LoadGenerator

/// Verification against servers that are wrong in one way.
@Suite struct LyingServerTests {
    private func verify(_ override: @escaping MemoryServer.Override) async throws -> Verification {
        var found: Verification?
        try await MemoryServer.run(override) { server in
            var settings = LoadSettings(
                workload: try #require(Workload.named("mixed")), records: 20, seeds: [server.address], seed: 3)
            settings.connections = 4
            settings.operations = 1_000
            settings.isVerified = true
            _ = try await LoadRun(settings, .load, topology: server.topology()).run()
            let result = try await LoadRun(settings, .run, topology: server.topology()).run()
            found = result.verification
        }
        return try #require(found)
    }

    /// Every tenth read.
    private static func lie(_ answer: MemoryServer.Answer) -> MemoryServer.Override {
        { request, server in request.method == .GET && server.requests(.GET) % 10 == 0 ? answer : nil }
    }

    @Test func honest() async throws {
        let found = try await verify { _, _ in nil }
        #expect(found.checked > 400)
        #expect(found.wrong + found.stale + found.missing == 0, "\(found.examples)")
    }

    @Test func anotherKeysValue() async throws {
        let found = try await verify(Self.lie(.other))
        #expect(found.wrong == found.checked / 10 && found.stale + found.missing == 0)
        #expect(found.examples.count == Verification.examplesMax)
        #expect(found.examples[0].contains("has the value of user"))
    }

    @Test func damage() async throws {
        let found = try await verify(Self.lie(.damaged))
        #expect(found.wrong == found.checked / 10 && found.stale + found.missing == 0)
    }

    @Test func nothing() async throws {
        let found = try await verify(Self.lie(.response(.init(status: 404))))
        #expect(found.missing == found.checked / 10 && found.stale + found.wrong == 0)
    }

    /// The value of the load phase, where a newer one was acknowledged meanwhile for most keys.
    @Test func oldValues() async throws {
        let found = try await verify(Self.lie(.first))
        #expect((1...found.checked / 10).contains(found.stale) && found.wrong + found.missing == 0)
        #expect(found.examples[0].contains("had been acknowledged"))
    }

    @Test func forgottenWrites() async throws {
        let found = try await verify { request, server in
            // Those of the load are made.
            let count = server.requests(.PUT)
            return request.method == .PUT && count > 20 && count % 10 == 0 ? .forgotten : nil
        }
        #expect(found.stale > 0 && found.wrong + found.missing == 0)
    }
}
