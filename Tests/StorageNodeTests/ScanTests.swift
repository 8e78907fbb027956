import Core
import DistribKVClient
import FoundationEssentials
import NIOCore
import NIOHTTP1
import NIOPosix
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// Scans of one node that hosts a shard.
@Suite(.timeLimit(.minutes(2))) struct ScanTests {
    private func lines(_ response: NodeResponse) -> [String] {
        String(buffer: response.body).split(separator: "\n").map(String.init)
    }

    private func keys(_ response: NodeResponse) throws -> [[UInt8]] {
        try response.body.readableBytesView.split(separator: UInt8(ascii: "\n")).map {
            struct Line: Decodable {
                var key: String?
                var keyBase64: Data?
                enum CodingKeys: String, CodingKey {
                    case key
                    case keyBase64 = "key_base64"
                }
            }
            let line = try JSONDecoder().decode(Line.self, from: Data($0))
            return try line.key.map { Array($0.utf8) } ?? Array(#require(line.keyBase64))
        }
    }

    private func texts(_ response: NodeResponse) throws -> [String] {
        try keys(response).map { String(decoding: $0, as: UTF8.self) }
    }

    @Test func aPageAndTheNext() async throws {
        try await ScriptedShard(replicas: 1).withNode(0) { client async throws in
            let empty = try await client.get("/kv")
            #expect(empty.status == 200 && empty.body.readableBytes == 0 && empty.field("kv-next") == nil)
            #expect(empty.field("content-type") == "application/x-ndjson")
            for key in ["b/1", "a", "b/3", "b/2", "c", "%FF%00", "b"] {
                _ = try await client.put("/kv/\(key)", "v\(key)")
            }
            let all = try await client.get("/kv")
            #expect(
                try keys(all).map(Array.init) == ["a", "b", "b/1", "b/2", "b/3", "c"].map { Array($0.utf8) } + [
                    [0xFF, 0]
                ])
            let version = try #require(try await client.get("/kv/a").version)
            #expect(lines(all)[0] == #"{"key":"a","value":"va","version":"\#(version.hexDigits)"}"#)
            #expect(lines(all)[6].hasPrefix(#"{"key_base64":"/wA=","value":"v%FF%00","version":""#))
            #expect(all.field("kv-next") == nil)

            let first = try await client.get("/kv?prefix=b&limit=2&keys_only=true")
            #expect(try keys(first) == ["b", "b/1"].map { Array($0.utf8) })
            #expect(!String(buffer: first.body).contains("value"))
            let next = try #require(first.field("kv-next"))
            #expect(next == "b/1%00")
            #expect(try texts(try await client.get("/kv?prefix=b&limit=2&start=\(next)")) == ["b/2", "b/3"])
            #expect(try await client.get("/kv?prefix=b&limit=4").field("kv-next") == nil)
            #expect(try texts(try await client.get("/kv?start=b/2&end=c")) == ["b/2", "b/3"])
            #expect(try texts(try await client.get("/kv?start=c&end=b")) == [])
            #expect(try keys(try await client.get("/kv?prefix=%FF")) == [[0xFF, 0]])
            #expect(try keys(try await client.get("/kv?start=%FF%00%00")) == [])
        }
    }

    @Test func downwards() async throws {
        try await ScriptedShard(replicas: 1).withNode(0) { client async throws in
            for key in ["a", "b", "b/1", "b/2", "c"] { _ = try await client.put("/kv/\(key)") }
            #expect(try texts(try await client.get("/kv?reverse=true")) == ["c", "b/2", "b/1", "b", "a"])
            let first = try await client.get("/kv?prefix=b&reverse=true&limit=2")
            #expect(try texts(first) == ["b/2", "b/1"])
            #expect(first.field("kv-next") == "b/1")
            #expect(try texts(try await client.get("/kv?prefix=b&reverse&limit=2&start=b/1")) == ["b"])
            // The start does not belong to it, the end does.
            #expect(try texts(try await client.get("/kv?reverse=true&start=c&end=b/1")) == ["b/2", "b/1"])
        }
    }

    @Test(arguments: [
        "limit=0", "limit=10001", "limit=x", "limit=", "limit=-1", "limit=+5", "reverse=1", "keys_only=yes", "prefix=%",
        "start=%0", "end=%GG", "limit=1&limit=2", "prefix=a&prefix=a", "prefx=a", "ack=all", "timeout=1s",
        "consistency=all", "max_staleness=5", "partial=maybe", "bytes=100", "shard=s0&partial=true", "proxy=2",
        "hops=x",
        "shard=s0&bytes=0",
    ])
    func whatCannotBeReadIsRefused(query: String) async throws {
        try await ScriptedShard(replicas: 1).withNode(0) { client async throws in
            let response = try await client.get("/kv?\(query)")
            #expect(response.status == 400 && response.problem.type == "bad-request", "\(response)")
            #expect(!response.problem.detail.isEmpty)
        }
    }

    @Test func methodsAndBounds() async throws {
        try await ScriptedShard(replicas: 1).withNode(0) { client async throws in
            for method in [HTTPMethod.PUT, .POST, .DELETE, .PATCH, .OPTIONS] {
                let response = try await client.send(method, "/kv?prefix=a")
                #expect(response.status == 405 && response.field("allow") == "GET, HEAD")
            }
            _ = try await client.put("/kv/a", "12345")
            let get = try await client.get("/kv?prefix=a")
            let head = try await client.send(.HEAD, "/kv?prefix=a")
            #expect(head.status == 200 && head.body.readableBytes == 0)
            #expect(head.field("content-length") == "\(get.body.readableBytes)")
            let longest = String(repeating: "k", count: 4_096)
            #expect(try await client.put("/kv/\(longest)").status == 204)
            _ = try await client.put("/kv/l")
            let page = try await client.get("/kv?limit=1&start=\(longest)&keys_only=true")
            #expect(try texts(page) == [longest])
            let next = try #require(page.field("kv-next"))
            #expect(try texts(try await client.get("/kv?start=\(next)")) == ["l"])
            #expect(try await client.get("/kv?prefix=\(longest)k").status == 400)
            #expect(try await client.get("/kv?start=\(longest)kk").status == 400)
            let minimum = try await client.get("/kv", minVersion: Version(rawValue: 1))
            #expect(minimum.status == 400 && minimum.problem.detail.contains("consistency=leader"))
        }
    }

    /// Values of 3 MiB: a page of 4 MiB has one of them, and each comes whole.
    @Test func aPageEndsAtItsBytes() async throws {
        try await ScriptedShard(replicas: 1).withNode(0) { client async throws in
            for (key, count) in [("a", 3 << 20), ("b", 3 << 20), ("c", 9 << 20), ("d", 10), ("e", 10)] {
                let value = ByteBuffer(repeating: UInt8(ascii: "x"), count: count)
                #expect(try await client.send(.PUT, "/kv/\(key)", body: value).status == 204)
            }
            var start = ""
            var pages: [[String]] = []
            while pages.count < 10 {
                let page = try await client.large("/kv?limit=10&start=\(start)")
                #expect(page.status == 200)
                pages.append(try texts(page))
                if pages.last == ["c"] { #expect(page.body.readableBytes > 9 << 20) }
                guard let next = page.field("kv-next") else { break }
                start = next
            }
            #expect(pages == [["a"], ["b"], ["c"], ["d", "e"]])
        }
    }

    @Test func framesOfOneShard() async throws {
        try await ScriptedShard(replicas: 1).withNode(0) { client async throws in
            for key in ["a", "b", "c"] { _ = try await client.put("/kv/\(key)", "value-\(key)") }
            let fields = [(name: "accept", value: MediaType.scanFrames)]
            let response = try await client.send(.GET, "/kv?shard=s0&limit=2&bytes=1000", fields)
            let page = try ScanPage(response)
            #expect(page.next == Array("c".utf8))
            #expect(response.version == (try await client.get("/kv/b").version))
            let small = try ScanPage(try await client.send(.GET, "/kv?shard=s0&limit=2&bytes=20", fields))
            let frame = small.frames.withUnsafeReadableBytes { ScanFrame(in: $0, at: 0) }
            #expect(frame?.isOversized == true && small.next == Array("a\0".utf8))
            #expect(lines(try await client.get("/kv?shard=s0&limit=2")).count == 2)
            let unknown = try await client.get("/kv?shard=s9")
            #expect(unknown.status == 404 && unknown.problem.type == "unknown-shard")
            // A version of the shard is demanded as from GET.
            let newest = try #require(response.version)
            #expect(try await client.get("/kv?shard=s0", minVersion: newest).status == 200)
            let missing = try await client.get("/kv?shard=s0", minVersion: Version(rawValue: .max))
            #expect(missing.status == 409 && missing.problem.type == "version-unknown")
        }
    }

    @Test func aFollowerThatMayNotAnswerRedirects() async throws {
        let shard = try ScriptedShard(replicas: 2)
        try await shard.withNode(1) { client async throws in
            let response = try await client.get("/kv?shard=s0&consistency=leader&prefix=%2B")
            #expect(response.status == 307)
            #expect(
                response.field("location")
                    == "http://\(shard.replicas[0])/kv?shard=s0&consistency=leader&prefix=%2B&hops=1")
            #expect(try await client.get("/kv?shard=s0&consistency=leader&hops=4").status == 508)
            // Over all shards it asks the leader itself, who is not there.
            let all = try await client.get("/kv?consistency=leader")
            #expect(all.status == 503 && all.problem.type == "unavailable")
            #expect(all.problem.detail.contains("s0") && all.problem.detail.contains("\(shard.replicas[0])"))
            #expect(all.field("retry-after") != nil)
            // Nobody is left for a page of the others.
            #expect(try await client.get("/kv?consistency=leader&partial=true").status == 503)
        }
    }
}

extension NodeClient {
    /// A GET whose answer may be of any size.
    fileprivate func large(_ target: String) async throws -> NodeResponse {
        var configuration = NodeConnectionsConfiguration()
        configuration.responseBodyBytesMax = 64 << 20
        let large = NodeConnections(group: MultiThreadedEventLoopGroup.singleton, configuration: configuration)
        let result: Result<NodeResponse, any Error>
        do {
            result = .success(
                try await large.execute(
                    NodeRequest(method: .GET, target: target), to: address, deadline: .now() + .seconds(60)))
        } catch {
            result = .failure(error)
        }
        await large.shutdown()
        return try result.get()
    }
}
