import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    @Suite struct CRUD {
        /// Two shards on two nodes without followers: every request for the other shard is in the wrong place.
        @Test(.timeLimit(.minutes(3)))
        func oneNode() async throws {
            try await TestCluster.running(.single(), router: false, replicator: false) { cluster in
                let node = cluster.nodes[0]
                for (number, key) in Keys.awkward.enumerated() {
                    let path = APIPath.key(key)
                    let value = Keys.value(number)
                    let missing = try await HTTP.get(path, from: node)
                    #expect(missing.status == 404)
                    #expect(missing.problem == "not-found")
                    let put = try await HTTP.send(.PUT, path, to: node, body: value)
                    #expect(put.status == 204)
                    let version = try #require(put.version)
                    #expect(put.headers.first(name: "etag") == "\"\(version.hexDigits)\"")
                    #expect(put.epoch == 1)
                    let get = try await HTTP.get(path, from: node)
                    #expect(get.status == 200)
                    #expect(get.bytes == value)
                    #expect(get.version == version)
                    let head = try await HTTP.send(.HEAD, path, to: node)
                    #expect(head.status == 200)
                    #expect(head.bytes.isEmpty)
                    #expect(head.headers.first(name: "content-length") == "\(value.count)")
                    #expect(head.version == version)
                    let conditional = try await HTTP.send(
                        .GET, path, to: node, headers: [("if-none-match", "\"\(version.hexDigits)\"")])
                    #expect(conditional.status == 304)
                    let again = try await HTTP.send(.PUT, path, to: node, body: [1])
                    #expect(try #require(again.version) > version)
                    let delete = try await HTTP.send(.DELETE, path, to: node)
                    #expect(delete.status == 204)
                    #expect(try #require(delete.version) > #require(again.version))
                    #expect(try await HTTP.send(.HEAD, path, to: node).status == 404)
                    #expect(try await HTTP.send(.DELETE, path, to: node).status == 204)
                }
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func redirects() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 3, replicas: 2)) { cluster in
                for number in 0..<12 {
                    let key = Array("redirect/\(number)".utf8)
                    let shard = cluster.shard(of: key)
                    let path = APIPath.key(key)
                    let value = Keys.value(number)

                    // Router → leader.
                    let first = try await HTTP.send(.PUT, path, to: cluster.router, body: value)
                    try expectRedirect(first, 307, to: [shard.leader])
                    // Follower → leader, and from a node that holds no replica to where the key belongs.
                    let follower = try #require(shard.followers.first)
                    try expectRedirect(
                        try await HTTP.send(.PUT, path, to: follower, body: value), 307, to: [shard.leader])
                    try expectRedirect(try await HTTP.send(.DELETE, path, to: follower), 307, to: [shard.leader])
                    for stranger in cluster.nodes where !shard.replicas.contains(stranger) {
                        let write = try await HTTP.send(.PUT, path, to: stranger, body: value)
                        try expectRedirect(write, 308, to: [shard.leader])
                        let read = try await HTTP.get(path, from: stranger)
                        try expectRedirect(read, 308, to: shard.replicas)
                    }
                    // Followed, the request ends at the leader, with method and body.
                    let put = try await HTTP.following(.PUT, path, to: cluster.router, body: value)
                    #expect(put.response.status == 204)
                    #expect(put.path.last?.address == shard.leader)
                    let get = try await HTTP.get(path, from: shard.leader)
                    #expect(get.bytes == value)

                    // Router → any replica.
                    try expectRedirect(try await HTTP.get(path, from: cluster.router), 307, to: shard.replicas)
                    try await eventually("the write on the follower") {
                        try await HTTP.get(path, from: follower).bytes == value
                    }
                    let read = try await HTTP.following(.GET, path, to: cluster.router)
                    #expect(read.response.bytes == value)
                    #expect(read.response.version == put.response.version)
                    let delete = try await HTTP.following(.DELETE, path, to: follower)
                    #expect(delete.response.status == 204)
                    #expect(try await HTTP.get(path, from: shard.leader).status == 404)
                }
            }
        }

        /// A client that waits for `100 Continue` never sends a body to a node that would throw it away.
        @Test(.timeLimit(.minutes(3)))
        func redirectsBeforeTheBody() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 3, replicas: 2), replicator: false) { cluster in
                for number in 0..<6 {
                    let key = Array("early/\(number)".utf8)
                    let shard = cluster.shard(of: key)
                    for address in cluster.nodes + [cluster.router] {
                        let client = try await RawClient.connect(to: address)
                        client.send(
                            "PUT \(APIPath.key(key)) HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n"
                                + "expect: 100-continue\r\n\r\n")
                        // No byte of the body follows: what is answered now is answered without it.
                        let answer = String(decoding: try await client.bytes(12), as: UTF8.self)
                        let expected =
                            address == shard.leader
                            ? "100" : address == cluster.router || shard.replicas.contains(address) ? "307" : "308"
                        #expect(answer.hasPrefix("HTTP/1.1 \(expected)"))
                        await client.close()
                    }
                }
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func proxy() async throws {
            var layout = Layout.ring(shards: 2, nodes: 2, replicas: 1)
            layout.router.append("mode = \"proxy\"")
            try await TestCluster.running(layout, replicator: false) { cluster in
                for (number, key) in Keys.awkward.enumerated() {
                    let path = APIPath.key(key)
                    let value = Keys.value(number)
                    #expect(try await HTTP.get(path, from: cluster.router).status == 404)
                    let put = try await HTTP.send(.PUT, path, to: cluster.router, body: value)
                    #expect(put.status == 204)
                    let get = try await HTTP.get(path, from: cluster.router)
                    #expect(get.status == 200)
                    #expect(get.bytes == value)
                    #expect(get.version == put.version)
                    let head = try await HTTP.send(.HEAD, path, to: cluster.router)
                    #expect(head.status == 200)
                    #expect(head.headers.first(name: "content-length") == "\(value.count)")
                    #expect(head.version == put.version)
                    // `proxy=false` asks for a redirect in either mode.
                    let redirect = try await HTTP.get(path + "?proxy=false", from: cluster.router)
                    try expectRedirect(redirect, 307, to: [cluster.leader(of: key)])
                    #expect(try await HTTP.send(.DELETE, path, to: cluster.router).status == 204)
                    #expect(try await HTTP.send(.HEAD, path, to: cluster.router).status == 404)
                    // A node takes the parameter of a router without complaint.
                    #expect(try await HTTP.get(path + "?proxy=true", from: cluster.leader(of: key)).status == 404)
                }
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func pipelining() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 1), replicator: false) { cluster in
                let count = 60
                let node = cluster.nodes[0]
                let keys = (0..<2_000).map { Array("pipe-\($0)".utf8) }.filter { cluster.leader(of: $0) == node }
                let own = Array(keys.prefix(count))
                try #require(own.count == count)
                // Writes, reads, misses and errors in turn: some answers are at hand, some come later.
                var requests = ""
                for (number, key) in own.enumerated() {
                    let path = APIPath.key(key)
                    requests += "PUT \(path) HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n" + Keys.three(number)
                    requests += "GET \(path)-missing HTTP/1.1\r\nhost: x\r\n\r\n"
                    requests += "HEAD \(path) HTTP/1.1\r\nhost: x\r\n\r\n"
                    requests += "PATCH \(path) HTTP/1.1\r\nhost: x\r\n\r\n"
                    requests += "GET /status HTTP/1.1\r\nhost: x\r\n\r\n"
                }
                let client = try await RawClient.connect(to: node)
                client.send(requests)
                let heads = Set((0..<count).map { $0 * 5 + 2 })
                let answers = try await client.answers(count * 5, heads: heads)
                for number in 0..<count {
                    let five = answers[(number * 5)..<(number * 5 + 5)].map(\.status)
                    // The read beside a write in flight sees it or not; the one after its answer does.
                    #expect(five[0] == 204)
                    #expect([404, 308].contains(five[1]))
                    #expect([200, 404].contains(five[2]))
                    #expect(five[3] == 405)
                    #expect(five[4] == 200)
                }
                client.send(own.map { "GET \(APIPath.key($0)) HTTP/1.1\r\nhost: x\r\n\r\n" }.joined())
                let all = try await client.answers(count * 6, heads: heads)
                #expect(all.suffix(count).map(\.text) == (0..<count).map(Keys.three))
                await client.close()

                let proxied = try await RawClient.connect(to: cluster.router)
                proxied.send(
                    keys.prefix(count).map { "GET \(APIPath.key($0))?proxy=true HTTP/1.1\r\nhost: x\r\n\r\n" }.joined())
                #expect(try await proxied.answers(count).map(\.text) == (0..<count).map(Keys.three))
                await proxied.close()
            }
        }
    }
}

/// Keys and values that programs get wrong.
enum Keys {
    static let awkward: [[UInt8]] = [
        Array("plain".utf8), Array("a/b//c/".utf8), Array("../../etc/passwd".utf8), Array(".".utf8), Array("/".utf8),
        [0], Array(0...255), Array("100%".utf8), Array("%2F".utf8), Array("a+b c&d=e?f#g".utf8),
        Array("schlüssel/鍵/🔑".utf8), [0xFF, 0xFE, 0x80], Array("{tag}x".utf8), Array("{}".utf8),
        Array("\r\n: x".utf8), [UInt8](repeating: 0x41, count: 4_096), [UInt8](repeating: 0xE9, count: 4_096),
    ]

    /// Empty, small, and one that no socket takes in one piece.
    static func value(_ number: Int) -> [UInt8] {
        switch number % 6 {
        case 0: []
        case 1: Array(0...255)
        case 2: Array("value \(number)".utf8)
        case 3: [UInt8](repeating: 0, count: 70_000)
        case 4: (0..<1_500_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number) }
        default: Array("\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".utf8)
        }
    }

    static func three(_ number: Int) -> String {
        let digits = "\(number)"
        return String(repeating: "0", count: 3 - digits.count) + digits
    }
}

/// A redirect to one of `targets` that keeps the path and may not be stored.
func expectRedirect(
    _ response: NodeResponse, _ status: Int, to targets: [NodeAddress],
    sourceLocation: SourceLocation = #_sourceLocation
) throws {
    #expect(response.status == status, sourceLocation: sourceLocation)
    #expect(response.headers.first(name: "cache-control") == "no-store", sourceLocation: sourceLocation)
    let location = try #require(response.headers.first(name: "location"), sourceLocation: sourceLocation)
    let (address, _) = try #require(HTTP.parse(location), sourceLocation: sourceLocation)
    #expect(targets.contains(address), "redirected to \(location)", sourceLocation: sourceLocation)
}
