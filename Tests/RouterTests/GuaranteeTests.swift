import Core
import DistribKVClient
import HTTPServer
import NIOHTTP1
import TestSupport
import Testing
import Wire

@testable import RouterService

@Suite struct GuaranteeTests {
    private let nodes = addresses(3)

    @Test(arguments: [HTTPMethod.GET, .HEAD]) func readsOfTheLeaderGoThere(method: HTTPMethod) async throws {
        try await withRouter(try topology([nodes])) { client async throws in
            for _ in 0..<4 {
                #expect(
                    try await client.location(method, "/kv/a?consistency=leader")
                        == "http://127.0.0.1:7001/kv/a?consistency=leader&hops=1")
            }
        }
    }

    /// Whether a replica is fresh enough only it knows; it sends on what it cannot answer.
    @Test(arguments: ["consistency=eventual", "max_staleness=500ms"])
    func otherReadsGoToAnyReplica(query: String) async throws {
        try await withRouter(try topology([nodes])) { client async throws in
            var locations: Set<String> = []
            for _ in 0..<3 { locations.insert(try await client.location(.GET, "/kv/a?\(query)")) }
            #expect(locations == Set(nodes.map { "http://\($0)/kv/a?\(query)&hops=1" }))
        }
    }

    @Test func writesKeepWhatTheyDemand() async throws {
        try await withRouter(try topology([nodes])) { client async throws in
            #expect(
                try await client.location(.PUT, "/kv/a?ack=quorum&timeout=2s")
                    == "http://127.0.0.1:7001/kv/a?ack=quorum&timeout=2s&hops=1")
        }
    }

    @Test(arguments: [
        (HTTPMethod.GET, "consistency=strong", "eventual or leader"), (.GET, "consistency", "eventual or leader"),
        (.GET, "consistency=%6ceader%zz", "two hex digits"), (.HEAD, "max_staleness=now", ""),
        (.GET, "max_staleness=5", "as in 500ms"), (.GET, "ack=all", "for writes"), (.PUT, "ack=some", "quorum, all"),
        (.DELETE, "timeout=2h", "1ms to 60s"), (.PUT, "consistency=leader", "for reads"),
    ])
    func refusesWhatANodeWould(method: HTTPMethod, query: String, saying: String) async throws {
        for target in ["/kv/a?\(query)", "/kv/a?\(query)&proxy=true"] {
            try await withRouter(try topology([nodes])) { client async throws in
                let response = try await client.send(method, target)
                #expect(response.status == 400)
                guard method != .HEAD else { return }
                let problem = try problem(response)
                #expect(problem.type == "bad-request")
                #expect(problem.detail.contains(saying), "\(problem.detail)")
            }
        }
    }

    @Test func aProxiedReadOfTheLeaderGoesNowhereElse() async throws {
        let (leader, follower) = (try await FakeNode.start(), try await FakeNode.start())
        try await withRouter(try topology([[leader.address, follower.address]])) { client async throws in
            for _ in 0..<4 {
                let response = try await client.send(
                    .GET, "/kv/a?consistency=%6Ceader&proxy=true",
                    headers: [(name: "kv-min-version", value: "00000000000000aa")])
                #expect(response.status == 200)
            }
            #expect(leader.received.count == 4)
            #expect(leader.received.allSatisfy { $0.target == "/kv/a?consistency=%6Ceader" })
            #expect(leader.received.allSatisfy { $0.headers["kv-min-version"] == ["00000000000000aa"] })
            #expect(follower.received.isEmpty)
        }
        await leader.stop()
        await follower.stop()
    }

    /// Nobody else may answer for it, so the failure is the answer.
    @Test func aProxiedReadOfADeadLeaderFails() async throws {
        let dead = try DeafPort()
        let follower = try await FakeNode.start()
        try await withRouter(try topology([[dead.address, follower.address]])) { client async throws in
            #expect(try await client.send(.GET, "/kv/a?consistency=leader&proxy=true").status == 503)
            #expect(follower.received.isEmpty)
            #expect(try await client.send(.GET, "/kv/a?proxy=true").status == 200)
        }
        await follower.stop()
    }
}
