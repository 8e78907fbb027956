import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

@testable import RouterService

@Suite struct ResourceTests {
    @Test func theTopologyIsServed() async throws {
        let topology = try topology(epoch: 7, [addresses(3)])
        try await withRouter(topology) { client async throws in
            let response = try await client.send(.GET, "/topology")
            #expect(response.status == 200)
            #expect(response.headers.first(name: "content-type") == "application/json")
            #expect(response.epoch == 7)
            #expect(try Topology(json: response.body.readableBytesView) == topology)
        }
    }

    @Test func aHigherEpochIsLearntFromALookAtANode() async throws {
        let node = try await FakeNode.start()
        let next = try topology(epoch: 5, [[node.address, NodeAddress(host: "127.0.0.1", port: 1)]])
        node.knows(next)
        try await withRouter(try topology([[node.address]])) { client async throws in
            try await eventually("the router goes by it") { try await client.send(.GET, "/healthz").epoch == 5 }
            let response = try await client.send(.GET, "/topology")
            #expect(try Topology(json: response.body.readableBytesView) == next)
            #expect(try await client.status().epoch == 5)
            // A node that is behind changes nothing.
            node.knows(try topology(epoch: 4, [[node.address]]))
            #expect(try await client.send(.GET, "/kv/a?proxy=true").epoch == 5)
            #expect(try await client.status().epoch == 5)
        }
        await node.stop()
    }

    @Test func aHigherEpochIsLearntFromAProxiedAnswer() async throws {
        let node = try await FakeNode.start()
        node.knows(try topology(epoch: 1, [[node.address]]))
        try await withRouter(try topology([[node.address]])) { client async throws in
            try await eventually("the first look is over") { try await client.status().nodes[0].epoch == 1 }
            node.knows(try topology(epoch: 2, [[node.address]]))
            #expect(try await client.send(.GET, "/kv/a?proxy=true").status == 200)
            try await eventually("the router goes by it") { try await client.send(.GET, "/healthz").epoch == 2 }
        }
        await node.stop()
    }

    @Test func statusShowsEveryNode() async throws {
        let (node, dead) = (try await FakeNode.start(), try DeafPort())
        node.knows(try topology([[node.address, dead.address]]))
        try await withRouter(try topology([[node.address, dead.address]])) {
            $0.healthInterval = .milliseconds(20)
        } _: { client async throws in
            try await eventually("both are known") {
                let nodes = try await client.status().nodes
                return nodes.contains { $0.epoch == 1 } && nodes.contains { !$0.healthy }
            }
            let status = try await client.status()
            #expect(status.role == "router")
            #expect(status.mode == "redirect")
            #expect(status.epoch == 1)
            #expect(status.version == BuildInformation.version)
            #expect(status.uptimeSeconds >= 0)
            #expect(status.nodes.map(\.address) == [node.address, dead.address].sorted())
            let alive = try #require(status.nodes.first { $0.address == node.address })
            #expect(alive.healthy)
            #expect(alive.lastAnswerSecondsAgo != nil)
            #expect(alive.lastError == nil)
            let other = try #require(status.nodes.first { $0.address == dead.address })
            #expect(other.lastError?.contains("cannot connect") == true)
            #expect(other.lastAnswerSecondsAgo == nil)
        }
        await node.stop()
    }

    @Test(arguments: ["/", "/kvx", "/status/", "/healthzz", "/KV/a", "/topology.json"])
    func unknownPaths(target: String) async throws {
        try await withRouter(try topology([addresses(1)])) { client async throws in
            let response = try await client.send(.GET, target)
            #expect(response.status == 404)
            #expect(try problem(response).type == "unknown-path")
        }
    }

    @Test(arguments: ["/topology", "/status", "/healthz", "/readyz", "/metrics"])
    func resourcesAreForReading(target: String) async throws {
        let node = try await FakeNode.start()
        try await withRouter(try topology([[node.address]])) { client async throws in
            try await eventually("the router is ready") { try await client.send(.GET, "/readyz").status == 200 }
            let head = try await client.send(.HEAD, target)
            #expect(head.status == 200)
            #expect(head.body.readableBytes == 0)
            for method in [HTTPMethod.POST, .PUT, .DELETE] {
                let response = try await client.send(method, target, body: method == .DELETE ? nil : "x")
                #expect(response.status == 405)
                #expect(response.headers.first(name: "allow") == "GET, HEAD")
                #expect(try problem(response).type == "method-not-allowed")
            }
        }
        await node.stop()
    }

    @Test func aRouterIsReadyOnceEachShardHasAnswered() async throws {
        let (node, dead) = (try await FakeNode.start(), try DeafPort())
        try await withRouter(try topology([[node.address], [dead.address, node.address]])) { client async throws in
            try await eventually("one replica of each will do") { try await client.send(.GET, "/readyz").status == 200 }
        }
        try await withRouter(try topology([[node.address], [dead.address]])) { client async throws in
            try await eventually("the node has answered") {
                try await client.status().nodes.contains { $0.lastAnswerSecondsAgo != nil }
            }
            let response = try await client.send(.GET, "/readyz")
            #expect(response.status == 503)
            #expect(try problem(response).detail.contains("shard-1"))
            // Requests are not held back by that: what is not known dead may live.
            #expect(try await client.send(.GET, "/kv/a").status == 307)
        }
        await node.stop()
    }

    @Test func metricsCountWhatHappened() async throws {
        try await withRouter(try topology([addresses(1)])) { client async throws in
            for _ in 0..<3 { _ = try await client.location(.GET, "/kv/a") }
            _ = try await client.send(.GET, "/kv/")
            let text = String(buffer: try await client.send(.GET, "/metrics").body)
            #expect(text.contains("distribkv_router_redirects_total{loop=\"0\"} 3\n"))
            #expect(text.contains("distribkv_router_refused_total 1\n"))
            #expect(text.contains("distribkv_router_nodes 1\n"))
        }
    }

    @Test func aPortInUseIsSaidClearly() async throws {
        try await withRouter(try topology([addresses(1)])) { client async throws in
            let configuration = RouterConfiguration(
                topology: try topology([addresses(1)]), listen: client.router.localAddress, logger: quiet)
            let error = await #expect(throws: KVError.self) { try await Router.start(configuration) }
            #expect(error?.code == .unavailable)
            #expect(error?.message.contains("\(client.router.localAddress)") == true)
        }
    }
}
