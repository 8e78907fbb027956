import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

@Suite struct KVClientTests {
    @Test func aValueGoesInAndComesOut() async throws {
        let cluster = try await FakeCluster.start(nodes: 3, shards: 4)
        try await withClient(seeds: [cluster.addresses[0]]) { client in
            let key = Array("a key/with ünicode & ?#%".utf8)
            #expect(try await client.get(key) == nil)
            let version = try await client.put(key, bytes("one"))
            let entry = try #require(try await client.get(key))
            #expect(entry.value == bytes("one"))
            #expect(entry.version == version)
            #expect(try await client.head(key) == version)
            let removed = try await client.delete(key)
            #expect(removed > version)
            #expect(try await client.get(key) == nil)
            #expect(try await client.head(key) == nil)
        }
    }

    @Test func eachKeyGoesStraightToItsLeader() async throws {
        let cluster = try await FakeCluster.start(nodes: 3, shards: 7)
        let topology = try cluster.topology(epoch: 1, shards: 7) { $0 % 3 }
        try await withClient(seeds: [cluster.addresses[2]]) { client in
            for index in 0..<200 { try await client.put(Array("key-\(index)".utf8), bytes("\(index)")) }
        }
        var seen = 0
        for node in 0..<3 {
            for request in cluster.requests(node, path: "/kv/") {
                let shard = topology.shard(of: HashSlot(key: request.target.utf8.dropFirst(4)))
                #expect(shard.leader == cluster.addresses[node])
                seen += 1
            }
        }
        #expect(seen == 200)
        #expect((0..<3).map { cluster.requests($0, path: "/topology").count } == [0, 0, 1])
    }

    @Test func spreadReadsUseEveryReplicaAndLeaderReadsOnlyTheLeader() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        try await withClient(seeds: cluster.addresses) { client in
            try await client.put(Array("k".utf8), bytes("v"))
            for _ in 0..<40 { _ = try await client.get(Array("k".utf8)) }
        }
        #expect(cluster.requests(1, path: "/kv/").isEmpty)
        try await withClient(seeds: cluster.addresses) {
            $0.readPreference = .spread
        } _: { client in
            for _ in 0..<80 { _ = try await client.get(Array("k".utf8)) }
        }
        // 80 coin throws: fewer than 10 of a side is less likely than 1 in 10^11.
        #expect(cluster.requests(1, path: "/kv/").count >= 10)
        #expect(cluster.requests(0, path: "/kv/").count >= 41 + 10)
    }

    @Test func aHigherEpochInAnAnswerIsFetched() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 2)
        try await withClient(seeds: [cluster.addresses[0]]) { client in
            try await client.put(Array("k".utf8), bytes("v"))
            #expect(try await client.topology().epoch == 1)
            cluster.adopt(try cluster.topology(epoch: 5, shards: 2) { $0 })
            try await eventually("the client has epoch 5") {
                try await client.put(Array("k".utf8), bytes("w"))
                return try await client.topology().epoch == 5
            }
        }
    }

    @Test func aNodeThatKnowsMoreThanTheSeedIsAsked() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 2)
        try await withClient(seeds: [cluster.addresses[0]]) { client in
            _ = try await client.topology()
            // Only node 1 has heard of the change; the seed answers with the old document.
            cluster.adopt(try cluster.topology(epoch: 2, shards: 2) { $0 }, nodes: [1])
            let key = try #require((0..<100).map { "k\($0)" }.first { HashSlot(key: $0.utf8).rawValue >= 8_192 })
            try await eventually("the client has epoch 2") {
                try await client.put(Array(key.utf8), bytes("v"))
                return try await client.topology().epoch == 2
            }
            #expect(try await client.refreshTopology().epoch == 2, "the older document of the seed is not taken")
        }
    }

    @Test func aMovedLeaderIsFollowedAndRemembered() async throws {
        let cluster = try await FakeCluster.start(nodes: 3, shards: 1)
        try await withClient(seeds: [cluster.addresses[0]]) { client in
            try await client.put(Array("k".utf8), bytes("1"))
            cluster.adopt(try cluster.topology(epoch: 2, shards: 1) { _ in 2 })
            try await client.put(Array("k".utf8), bytes("2"))
            try await eventually("the client knows") { try await client.topology().epoch == 2 }
            try await client.put(Array("k".utf8), bytes("3"))
            #expect(cluster.requests(0, path: "/kv/").map(\.body) == ["1", "2"])
            #expect(cluster.requests(2, path: "/kv/").map(\.body) == ["2", "3"])
        }
    }

    @Test func aRedirectLoopEndsWithAClearError() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        let addresses = cluster.addresses
        cluster.override { node, request in
            guard request.target.hasPrefix("/kv/") else { return nil }
            return .answer(.init(307, [("location", "http://\(addresses[1 - node])\(request.target)")]))
        }
        try await withClient(seeds: addresses) {
            $0.attemptsMax = 2
            $0.redirectsMax = 3
        } _: { client in
            let error = try await failure { () throws(KVError) in try await client.put(Array("k".utf8), bytes("v")) }
            #expect(error.code == .unavailable)
            #expect(error.message.contains("redirected more than 3 times"))
            #expect(error.message.contains("\(addresses[0]) → \(addresses[1])"))
        }
        let requests = (0..<2).map { cluster.requests($0, path: "/kv/").count }
        #expect(requests == [4, 4], "two attempts of one request and three redirects")
    }

    @Test(arguments: ["", "ftp://127.0.0.1:1/kv/k", "//127.0.0.1:1/", "nonsense"])
    func aRedirectToNowhereIsAnError(location: String) async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in
            request.target.hasPrefix("/kv/") ? .answer(.init(307, [("location", location)])) : nil
        }
        try await withClient(seeds: cluster.addresses) { client in
            let error = try await failure { () throws(KVError) in try await client.put(Array("k".utf8), bytes("v")) }
            #expect(error.code == .invalidData)
        }
    }

    @Test func aWriteWhoseAnswerGotLostIsRepeated() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        let attempts = Counter()
        cluster.override { _, request in
            request.method == .PUT && attempts.next() <= 2 ? .close : nil
        }
        try await withClient(seeds: cluster.addresses) { client in
            try await client.put(Array("k".utf8), bytes("v"))
        }
        #expect(attempts.value == 3)
        #expect(cluster.value("k") == "v")
    }

    @Test(arguments: [429, 502, 503, 504, 508]) func aPassingRefusalIsTriedAgain(status: Int) async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        let attempts = Counter()
        cluster.override { _, request in
            guard request.target.hasPrefix("/kv/"), attempts.next() <= 2 else { return nil }
            return .answer(.init(status, [("retry-after", "0")], body: Problem(.unavailable, "not now").json))
        }
        try await withClient(seeds: cluster.addresses) { client in
            try await client.put(Array("k".utf8), bytes("v"))
        }
        #expect(attempts.value == 3)
    }

    @Test(arguments: [
        (Problem.Kind.valueTooLarge, KVError.Code.invalidArgument), (.storageFull, .storageFull),
        (.internalError, .internalError), (.badRequest, .invalidArgument),
    ])
    func aLastingRefusalIsNot(kind: Problem.Kind, code: KVError.Code) async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in
            request.target.hasPrefix("/kv/")
                ? .answer(.init(kind.status, body: Problem(kind, "because").json)) : nil
        }
        try await withClient(seeds: cluster.addresses) { client in
            let error = try await failure { () throws(KVError) in try await client.put(Array("k".utf8), bytes("v")) }
            #expect(error.code == code)
            #expect(error.message == "because")
        }
        #expect(cluster.requests(0, path: "/kv/").count == 1)
    }

    @Test func attemptsAreBounded() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in request.target.hasPrefix("/kv/") ? .close : nil }
        try await withClient(seeds: cluster.addresses) {
            $0.attemptsMax = 4
        } _: { client in
            let error = try await failure { () throws(KVError) in try await client.put(Array("k".utf8), bytes("v")) }
            #expect(error.code == .unavailable)
            #expect(error.message.contains("4 attempts"))
        }
        #expect(cluster.requests(0, path: "/kv/").count == 4)
    }

    @Test func aReadGoesToAFollowerWhenTheLeaderIsGone() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        try await withClient(seeds: [cluster.addresses[1]]) { client in
            try await client.put(Array("k".utf8), bytes("v"))
            try await cluster.nodes[0].stop()
            #expect(try await client.get(Array("k".utf8))?.value == bytes("v"))
        }
    }

    @Test func aReadGoesToAFollowerWhenTheLeaderDoesNotAnswer() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        try await withClient(seeds: [cluster.addresses[1]]) {
            $0.readAttemptTimeout = .milliseconds(100)
            // On a busy machine the follower may be late as well.
            $0.attemptsMax = 100
        } _: { client in
            try await client.put(Array("k".utf8), bytes("v"))
            cluster.override { node, request in node == 0 && request.method == .GET ? .hold : nil }
            #expect(try await client.get(Array("k".utf8))?.value == bytes("v"))
        }
    }

    @Test func aSeedThatIsDownIsPassedOver() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 2)
        let port = try DeafPort()
        for seeds in [[port.address, cluster.addresses[1]], [cluster.addresses[1], port.address]] {
            try await withClient(seeds: seeds) { client in
                try await client.put(Array("k".utf8), bytes("v"))
            }
        }
    }

    @Test func theSeedMayDieOnceTheTopologyIsKnown() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        let topology = try #require(
            String(validating: cluster.topology(epoch: 1, shards: 1) { _ in 0 }.json(), as: UTF8.self))
        let router = try await ScriptedServer.start { _ in .answer(.init(200, body: topology)) }
        try await withClient(seeds: [router.address]) { client in
            try await client.put(Array("k".utf8), bytes("1"))
            try await router.stop()
            cluster.adopt(try cluster.topology(epoch: 2, shards: 1) { _ in 1 })
            try await cluster.nodes[0].stop()
            try await client.put(Array("k".utf8), bytes("2"))
            #expect(cluster.requests(1, path: "/kv/").map(\.body) == ["2"])
        }
    }

    @Test func nobodyAnswers() async throws {
        let port = try DeafPort()
        try await withClient(seeds: [port.address]) {
            $0.attemptsMax = 3
        } _: { client in
            let error = try await failure { () throws(KVError) in try await client.put(Array("k".utf8), bytes("v")) }
            #expect(error.code == .unavailable)
            #expect(error.message.contains("\(port.address): cannot connect"))
        }
    }

    @Test func aServerThatIsNoNodeIsToldFromAMissingKey() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in
            request.target.hasPrefix("/kv/") ? .answer(.init(404, body: "<html>")) : nil
        }
        try await withClient(seeds: cluster.addresses) { client in
            let error = try await failure { () throws(KVError) in _ = try await client.get(Array("k".utf8)) }
            #expect(error.code == .invalidData)
        }
    }

    @Test func manyRequestsShareOneFetchOfTheTopology() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 2)
        try await withClient(seeds: [cluster.addresses[0]]) { client in
            try await withThrowingTaskGroup { group in
                for index in 0..<50 {
                    group.addTask { _ = try await client.get(Array("k\(index)".utf8)) }
                }
                try await group.waitForAll()
            }
        }
        #expect(cluster.requests(0, path: "/topology").count == 1)
    }

    @Test(arguments: [0, 4_097]) func aKeyOfAWrongSizeIsRefusedHere(size: Int) async throws {
        try await withClient(seeds: [NodeAddress(host: "127.0.0.1", port: 1)]) { client in
            let key = [UInt8](repeating: 97, count: size)
            let error = try await failure { () throws(KVError) in _ = try await client.get(key) }
            #expect(error.code == .invalidArgument)
        }
    }

    @Test func aBatchHasOneResultPerPair() async throws {
        let cluster = try await FakeCluster.start(nodes: 3, shards: 5)
        cluster.refuse("key-13", Problem(.valueTooLarge, "big"))
        let pairs = (0..<3_000).map { KVWrite(key: Array("key-\($0)".utf8), value: bytes("value-\($0)")) }
        try await withClient(seeds: [cluster.addresses[0]]) {
            $0.connections.pipeliningDepthMax = 64
            $0.connections.connectionsPerNodeMax = 2
        } _: { client in
            let results = await client.writeAll(pairs + [KVWrite(key: [], value: bytes(""))])
            #expect(results.count == 3_001)
            for (index, result) in results.enumerated() {
                switch index {
                case 13, 3_000:
                    #expect(throws: KVError.self) { try result.get() }
                default: _ = try result.get()
                }
            }
            #expect(cluster.keys.count == 2_999)
            #expect(cluster.value("key-2999") == "value-2999")
            #expect(await client.writeAll([]).isEmpty)
        }
    }
}
