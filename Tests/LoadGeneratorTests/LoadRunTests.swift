import Core
import HTTPServer
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing

@testable import LoadGenerator

/// The engine against a server in this process.
@Suite struct LoadRunTests {
    private func settings(
        _ workload: String, _ server: MemoryServer, records: UInt64 = 50, operations: UInt64? = 500
    ) throws -> LoadSettings {
        var settings = LoadSettings(
            workload: try #require(Workload.named(workload)), records: records, seeds: [server.address], seed: 1)
        settings.connections = 4
        settings.operations = operations
        settings.timeout = 20_000_000_000
        return settings
    }

    private func load(_ settings: LoadSettings, _ server: MemoryServer) async throws -> LoadResult {
        try await LoadRun(settings, .load, topology: settings.via == .direct ? server.topology() : nil).run()
    }

    private func run(_ settings: LoadSettings, _ server: MemoryServer) async throws -> LoadResult {
        try await LoadRun(settings, .run, topology: settings.via == .direct ? server.topology() : nil).run()
    }

    @Test(arguments: [(1, 1), (4, 1), (1, 2), (8, 4)]) func everyOperationEndsOnce(depth: Int, threads: Int)
        async throws
    {
        try await MemoryServer.run { server in
            var settings = try settings("mixed", server)
            settings.pipelineDepth = depth
            settings.threads = threads
            let loaded = try await load(settings, server)
            #expect(loaded.answered == 50 && loaded.errors == 0)
            #expect(server.keys == Set((0..<50).map { "/kv/" + settings.names.name(of: $0) }))
            let result = try await run(settings, server)
            #expect(result.answered == 500 && result.errors == 0 && result.requests == 500)
            #expect(server.requests(.GET) == result.operations[.read]?.count)
            #expect(server.requests(.PUT) == 50 + (result.operations[.update]?.count ?? 0))
            #expect(result.operations.values.reduce(0) { $0 + $1.buckets.reduce(0) { $0 + $1.count } } == 500)
            #expect(result.seconds > 0 && result.timeline.count >= 1)
            #expect(server.requests.allSatisfy { $0.method == .GET || $0.body.readableBytes == 100 })
        }
    }

    @Test func insertsAreReadAfterTheyEnded() async throws {
        try await MemoryServer.run { server in
            var settings = try settings("d", server, operations: 2_000)
            settings.isVerified = true
            _ = try await load(settings, server)
            let result = try await run(settings, server)
            #expect(result.errors == 0)
            #expect(server.keys.count == 50 + (result.operations[.insert]?.count ?? 0))
            #expect((result.operations[.insert]?.count ?? 0) > 20)
            let verification = try #require(result.verification)
            #expect(verification.checked == result.operations[.read]?.count)
            #expect(verification.wrong + verification.stale + verification.missing == 0, "\(verification.examples)")
        }
    }

    @Test func readModifyWriteIsOneOperation() async throws {
        try await MemoryServer.run { server in
            let settings = try settings("f", server)
            _ = try await load(settings, server)
            let result = try await run(settings, server)
            let both = try #require(result.operations[.readModifyWrite]?.count)
            #expect(both > 100 && result.answered == 500 && result.requests == 500 + both)
            #expect(server.requests(.PUT) == 50 + both)
        }
    }

    @Test func optionsArePassedOn() async throws {
        try await MemoryServer.run { server in
            var settings = try settings("mixed", server, operations: 50)
            settings.via = .proxy
            settings.ack = .quorum
            settings.ackTimeout = 700
            settings.isConsistent = true
            _ = try await run(settings, server)
            for request in server.requests {
                let query =
                    request.method == .PUT ? "ack=quorum&timeout=700ms&proxy=true" : "consistency=leader&proxy=true"
                #expect(request.query.map(String.init) == query)
            }
        }
    }

    @Test func redirectsAreFollowedAndLearned() async throws {
        try await MemoryServer.run { target in
            let address = target.address
            let override: MemoryServer.Override = { request, _ in
                let location = "http://\(address)\(request.target)?hops=1"
                return .response(HTTPResponse(status: 307, headers: [("location", location)]))
            }
            try await MemoryServer.run(override) { origin in
                var settings = try settings("put", origin, operations: 100)
                settings.via = .router
                var result = try await run(settings, origin)
                #expect(result.answered == 100 && result.redirects == 100 && result.requests == 200)
                #expect(origin.requests.count == 100 && target.requests.count == 100)
                #expect(target.requests.allSatisfy { $0.query == "hops=1" && $0.body.readableBytes == 100 })
                // By the topology it asks the right one after the first.
                settings.via = .direct
                result = try await run(settings, origin)
                #expect(result.answered == 100 && (1...4).contains(result.redirects))
            }
        }
    }

    @Test func redirectsInCirclesEnd() async throws {
        let override: MemoryServer.Override = { request, _ in
            .response(HTTPResponse(status: 308, headers: [("location", request.target)]))
        }
        try await MemoryServer.run(override) { server in
            let result = try await run(try settings("get", server, operations: 10), server)
            #expect(result.operations[.read]?.failures == [.redirectLoop: 10])
            #expect(server.requests.count == 10 * (1 + Limits.redirectsMax))
        }
    }

    @Test func errorsAreCountedByType() async throws {
        // Of ten requests one is answered 503, two 404, as no value is there.
        let override: MemoryServer.Override = { _, server in
            switch server.requests.count % 10 {
            case 0: .response(HTTPResponse(status: 503))
            case 1, 2: nil
            default: .response(HTTPResponse(status: 200))
            }
        }
        try await MemoryServer.run(override) { server in
            let result = try await run(try settings("get", server, operations: 100), server)
            let read = try #require(result.operations[.read])
            #expect(read.failures == [.status(503): 10, .status(404): 20])
            #expect(read.count == 100 && read.errors == 30 && read.answered == 70)
            #expect(read.buckets.reduce(0) { $0 + $1.count } == 70)
        }
    }

    @Test func nobodyThere() async throws {
        let deaf = try DeafPort()
        var settings = LoadSettings(workload: Workload.all[2], records: 10, seeds: [deaf.address], seed: 1)
        settings.via = .proxy
        settings.connections = 2
        settings.operations = 6
        let result = try await LoadRun(settings, .run, topology: nil).run()
        #expect(result.operations[.read]?.failures == [.refused: 6])
    }

    /// On most machines the name is of ::1 as well, where this server does not listen.
    @Test func aNameOfSeveralAddresses() async throws {
        try await MemoryServer.run { server in
            var settings = try settings("put", server, operations: 10)
            settings.via = .proxy
            settings.seeds = [NodeAddress(host: "localhost", port: server.address.port)]
            #expect(try await run(settings, server).answered == 10)
            settings.seeds = [NodeAddress(host: "no.such.host.invalid", port: 1)]
            await #expect(throws: KVError.self) { try await run(settings, server) }
        }
    }

    @Test func silenceIsATimeOut() async throws {
        try await MemoryServer.run({ _, _ in .silence }) { server in
            var settings = try settings("get", server, operations: 4)
            settings.timeout = 50_000_000
            let result = try await run(settings, server)
            #expect(result.operations[.read]?.failures == [.timeout: 4])
        }
    }

    @Test func whatIsNoHTTPIsABadAnswer() async throws {
        let server = try await ScriptedServer.start { _ in .raw("SSH-2.0\r\n") }
        var settings = LoadSettings(workload: Workload.all[2], records: 10, seeds: [server.address], seed: 1)
        settings.via = .proxy
        settings.connections = 1
        settings.operations = 2
        let result = try await LoadRun(settings, .run, topology: nil).run()
        #expect(result.operations[.read]?.failures == [.badAnswer: 2])
        try await server.stop()
    }

    @Test func aLoadSendsAgainWhatFailed() async throws {
        let override: MemoryServer.Override = { _, server in
            server.requests.count % 7 == 0 ? .response(HTTPResponse(status: 503)) : nil
        }
        try await MemoryServer.run(override) { server in
            let result = try await load(try settings("get", server), server)
            #expect(server.keys.count == 50)
            #expect(result.answered == 50 && result.errors >= 7)
        }
    }

    @Test func aLoadThatIsRefusedEnds() async throws {
        try await MemoryServer.run({ _, _ in .response(HTTPResponse(status: 413)) }) { server in
            let settings = try settings("get", server)
            await #expect(throws: KVError.self) { try await load(settings, server) }
        }
    }

    @Test func aRunIsEndedEarly() async throws {
        try await MemoryServer.run { server in
            var settings = try settings("put", server, operations: nil)
            settings.duration = LoadSettings.durationMax
            let run = LoadRun(settings, .run, topology: try server.topology())
            async let result = run.run()
            try await wait { server.requests.count > 100 }
            run.stop()
            let ended = try await result
            #expect(ended.wasInterrupted && ended.answered >= 100)
        }
    }

    @Test func anOpenLoopBeginsAtItsRate() async throws {
        try await MemoryServer.run { server in
            var settings = try settings("put", server, operations: 200)
            settings.rate = 1_000
            let result = try await run(settings, server)
            #expect(result.answered == 200 && result.errors == 0)
            // The last one is not due before.
            #expect(result.seconds >= 0.199)
        }
    }

    /// More is due than its two clients can do: what the number of operations leaves out is no failure.
    @Test func anOpenLoopOfANumberOfOperations() async throws {
        try await MemoryServer.run { server in
            var settings = try settings("put", server, operations: 300)
            settings.rate = 1_000_000
            settings.connections = 2
            let result = try await run(settings, server)
            #expect(result.answered == 300 && result.errors == 0 && server.requests.count == 300)
        }
    }

    @Test func anOpenLoopBeginsAllThatIsDueBeforeItsEnd() async throws {
        try await MemoryServer.run { server in
            var settings = try settings("put", server, operations: nil)
            settings.rate = 1_000
            settings.warmUp = 50_000_000
            settings.duration = 200_000_000
            settings.timeout = 60_000_000_000
            settings.connections = 300
            let result = try await run(settings, server)
            #expect(result.operations[.update]?.failures == [:])
            #expect(result.answered == 200 && result.seconds == 0.2 && server.requests.count == 250)
        }
    }

    private func wait(_ condition: () -> Bool) async throws {
        let deadline = ContinuousClock.now + .seconds(60)
        while !condition() {
            try #require(ContinuousClock.now < deadline)
            try await Task.sleep(for: .milliseconds(1))
        }
    }
}
