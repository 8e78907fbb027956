import Core
import FoundationEssentials
import HTTPServer
import NIOCore
import NIOHTTP1
import ServiceSupport
import Synchronization
import TestSupport
import Testing
import Wire

@testable import DistribKVClient
@testable import RouterService

/// The router's scans, over nodes that answer as a test says.
@Suite(.timeLimit(.minutes(2))) struct ScanTests {
    /// A page of one shard.
    private func page(_ keys: [String], next: String? = nil, value: String? = "v") -> HTTPResponse {
        var frames = ByteBuffer()
        for key in keys {
            Array(key.utf8).withUnsafeBytes { key in
                Array((value ?? "").utf8).withUnsafeBytes { bytes in
                    ScanFrame.write(
                        key: key, value == nil ? .keyOnly : .value(bytes), version: Version(rawValue: 0xA),
                        ttlMilliseconds: nil, into: &frames)
                }
            }
        }
        var headers = [(name: "content-type", value: MediaType.scanFrames)]
        if let next { headers.append((name: KVHeader.next, value: next)) }
        return HTTPResponse(status: 200, headers: headers, body: frames)
    }

    private func keys(_ response: NodeResponse) throws -> [String] {
        try response.body.readableBytesView.split(separator: UInt8(ascii: "\n")).map {
            struct Line: Decodable { var key: String }
            return try JSONDecoder().decode(Line.self, from: Data($0)).key
        }
    }

    private func value(_ name: String, in target: String) -> String? {
        target.split(separator: "?").last?.split(separator: "&").first { $0.hasPrefix("\(name)=") }
            .map { String($0.dropFirst(name.count + 1)) }
    }

    @Test func pagesOfAllShardsAreMerged() async throws {
        let nodes = [try await FakeNode.start(), try await FakeNode.start()]
        nodes[0].answers { _ in .answer(page(["a", "c", "e"], next: "g")) }
        nodes[1].answers { _ in .answer(page(["b", "f", "h"])) }
        let topology = try topology([[nodes[0].address], [nodes[1].address]])
        for node in nodes { node.knows(topology) }
        try await withRouter(topology) { client async throws in
            let response = try await client.send(.GET, "/kv?limit=300&max_staleness=5s&start=%00%2B")
            #expect(response.status == 200)
            #expect(response.headers.first(name: "content-type") == MediaType.ndjson)
            // What shard-0 has behind e is not known from g on.
            #expect(try keys(response) == ["a", "b", "c", "e", "f"])
            #expect(response.headers.first(name: "kv-next") == "g")
            #expect(response.headers.first(name: "kv-missing-shards") == nil)
            #expect(String(buffer: response.body).hasPrefix(#"{"key":"a","value":"v","version":"000000000000000a"}"#))
            for (number, node) in nodes.enumerated() {
                let asked = try #require(node.received.first)
                #expect(value("shard", in: asked.target) == "shard-\(number)")
                #expect(value("start", in: asked.target) == "%00%2B")
                #expect(value("max_staleness", in: asked.target) == "5000ms")
                #expect(asked.headers.first(name: "accept") == MediaType.scanFrames)
                let part = try #require(value("limit", in: asked.target).flatMap { Int($0) })
                #expect(part > 150 && part < 300)
            }
            let limited = try await client.send(.GET, "/kv?limit=2&keys_only=true")
            #expect(try keys(limited) == ["a", "b"])
            #expect(limited.headers.first(name: "kv-next") == "b%00")
            #expect(value("keys_only", in: nodes[0].received.last?.target ?? "") == "true")
            let head = try await client.send(.HEAD, "/kv?limit=300")
            #expect(head.body.readableBytes == 0 && head.headers.first(name: "kv-next") == "g")
            #expect(try await client.metric("distribkv_router_scans_total") == 3)
        }
        for node in nodes { await node.stop() }
    }

    @Test func aTagAsksOneShard() async throws {
        let nodes = [try await FakeNode.start(), try await FakeNode.start()]
        let topology = try topology([[nodes[0].address], [nodes[1].address]])
        for node in nodes {
            node.answers { _ in .answer(page(["{t}1"])) }
            node.knows(topology)
        }
        try await withRouter(topology) { client async throws in
            #expect(try keys(try await client.send(.GET, "/kv?prefix=%7Bt%7D")) == ["{t}1"])
            #expect(nodes[0].received.count + nodes[1].received.count == 1)
        }
        for node in nodes { await node.stop() }
    }

    @Test(arguments: [false, true]) func aShardThatDoesNotAnswer(refuses: Bool) async throws {
        let alive = try await FakeNode.start()
        alive.answers { _ in .answer(page(["a"])) }
        let dead = try await FakeNode.start()
        if refuses { await dead.stop() } else { dead.answers { _ in .never } }
        let topology = try topology([[alive.address], [dead.address]])
        alive.knows(topology)
        try await withRouter(topology) {
            $0.proxyTimeout = .milliseconds(300)
        } _: { client async throws in
            let failed = try await client.send(.GET, "/kv")
            #expect(failed.status == 503 && failed.headers.first(name: "retry-after") != nil)
            let problem = try problem(failed)
            #expect(problem.type == "unavailable")
            #expect(problem.detail.contains("shard-1"), "\(problem.detail)")
            let partial = try await client.send(.GET, "/kv?partial=true")
            #expect(partial.status == 200)
            #expect(try keys(partial) == ["a"])
            #expect(partial.headers.first(name: "kv-missing-shards") == "shard-1")
        }
        await alive.stop()
        if !refuses { await dead.stop() }
    }

    @Test func anotherReplicaAnswers() async throws {
        let bad = try await FakeNode.start { _ in .answer(HTTPResponse(problem: Problem(.storageFailed, "broken"))) }
        let silent = try await FakeNode.start { _ in .never }
        let good = try await FakeNode.start()
        let moved = try await FakeNode.start()
        moved.answers { _ in .answer(page(["a"])) }
        good.answers { received in
            .answer(
                HTTPResponse(
                    status: 307,
                    headers: [(name: "location", value: "http://\(moved.address)\(received.target)&hops=1")]))
        }
        try await withRouter(try topology([[bad.address, silent.address, good.address]])) {
            $0.proxyTimeout = .seconds(2)
        } _: { client async throws in
            for _ in 0..<3 { #expect(try keys(try await client.send(.GET, "/kv")) == ["a"]) }
            #expect(moved.received.allSatisfy { $0.target.hasSuffix("&hops=1") } && moved.received.count == 3)
            // Only the leader will do, and it is broken.
            #expect(try await client.send(.GET, "/kv?consistency=leader").status == 503)
        }
        for node in [bad, silent, good, moved] { await node.stop() }
    }

    @Test func recordsThatAreTooLargeComeByThemselves() async throws {
        let node = try await FakeNode.start()
        let whole = page(["big"], value: "all of it")
        var frames = ByteBuffer()
        Array("big".utf8).withUnsafeBytes { key in
            ScanFrame.write(key: key, .oversized, version: .zero, ttlMilliseconds: nil, into: &frames)
        }
        let cut = HTTPResponse(
            status: 200,
            headers: [(name: "content-type", value: MediaType.scanFrames), (name: KVHeader.next, value: "big%00")],
            body: frames)
        node.answers { $0.target.contains("prefix=big") ? .answer(whole) : .answer(cut) }
        try await withRouter(try topology([[node.address]])) { client async throws in
            let response = try await client.send(.GET, "/kv?limit=5")
            #expect(String(buffer: response.body).contains("all of it"))
            #expect(response.headers.first(name: "kv-next") == "big%00")
            #expect(node.received.count == 2)
            // It was removed meanwhile: the page is empty, and there may be more.
            node.answers { [self] in $0.target.contains("prefix=big") ? .answer(page(["bigger"])) : .answer(cut) }
            let gone = try await client.send(.GET, "/kv?limit=5")
            #expect(gone.status == 200 && gone.body.readableBytes == 0)
            #expect(gone.headers.first(name: "kv-next") == "big%00")
        }
        await node.stop()
    }

    @Test func anAnswerThatIsNoPageIsAFailure() async throws {
        let node = try await FakeNode.start { _ in .answer(HTTPResponse(text: "hello")) }
        try await withRouter(try topology([[node.address]])) { client async throws in
            let response = try await client.send(.GET, "/kv")
            #expect(response.status == 503)
            #expect(try problem(response).detail.contains("answered wrongly"))
        }
        await node.stop()
    }

    @Test func whatARouterDoesNotTake() async throws {
        let node = try await FakeNode.start()
        try await withRouter(try topology([[node.address]])) { client async throws in
            for query in ["limit=0", "limit=10001", "x=1", "prefix=%", "limit=1&limit=1", "shard=shard-0"] {
                #expect(try problem(try await client.send(.GET, "/kv?\(query)")).type == "bad-request", "\(query)")
            }
            for method in [HTTPMethod.PUT, .POST, .DELETE] {
                let response = try await client.send(method, "/kv")
                #expect(response.status == 405 && response.headers.first(name: "allow") == "GET, HEAD")
            }
            let version = [(name: "KV-Min-Version", value: "0000000000000001")]
            #expect(try await client.send(.GET, "/kv", headers: version).status == 400)
            #expect(node.received.isEmpty)
        }
        await node.stop()
    }
}
