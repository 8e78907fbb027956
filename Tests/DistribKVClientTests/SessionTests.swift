import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

private let key = Array("k".utf8)

/// What the requests of a method about keys carried as the least version, in order.
private func minVersions(_ cluster: FakeCluster, _ node: Int, _ method: HTTPMethod = .GET) -> [String?] {
    cluster.requests(node, path: "/kv/").filter { $0.method == method }.map {
        $0.headers.first(name: KVHeader.minVersion)
    }
}

private func refusal(_ status: Int, _ kind: Problem.Kind, _ headers: [(String, String)] = []) -> ScriptedServer.Action {
    .answer(.init(status, headers, body: Problem(kind, "because").json))
}

@Suite struct SessionTests {
    @Test func aReadCarriesTheNewestVersionOfItsShard() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 2)
        let keys = (0..<100).map { Array("key-\($0)".utf8) }
        let here = try #require(keys.first { HashSlot(key: $0).rawValue < 8_192 })
        let there = try #require(keys.first { HashSlot(key: $0).rawValue >= 8_192 })
        try await withClient(seeds: cluster.addresses) { client in
            _ = try await client.get(here)
            let first = try await client.put(here, bytes("1"))
            _ = try await client.get(here)
            _ = try await client.get(there)
            let second = try await client.delete(here)
            _ = try await client.get(here)
            #expect(minVersions(cluster, 0) == [nil, first.hexDigits, nil, second.hexDigits])
            _ = try await client.head(here)
            #expect(minVersions(cluster, 0, .HEAD) == [second.hexDigits])
        }
    }

    @Test func whatWasReadCountsToo() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        var written = Version.zero
        try await withClient(seeds: cluster.addresses) { written = try await $0.put(key, bytes("v")) }
        try await withClient(seeds: cluster.addresses) { client in
            _ = try await client.get(key)
            _ = try await client.get(key)
        }
        #expect(minVersions(cluster, 0) == [nil, written.hexDigits])
    }

    @Test func aBatchCountsToo() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        try await withClient(seeds: cluster.addresses) { client in
            let writes = (0..<50).map { KVWrite(key: Array("k\($0)".utf8), value: $0 % 2 == 0 ? bytes("v") : nil) }
            let newest = try await client.writeAll(writes).map { try $0.get() }.max()
            _ = try await client.get(key)
            #expect(minVersions(cluster, 0) == [newest?.hexDigits])
        }
        #expect(cluster.keys.count == 25, "the others are removals")
    }

    @Test func withoutASessionOnlyWhatTheCallerAsksFor() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        try await withClient(seeds: cluster.addresses) {
            $0.session = .none
        } _: { client in
            let version = try await client.put(key, bytes("v"))
            _ = try await client.get(key)
            _ = try await client.get(key, options: ReadOptions(minVersion: version))
            #expect(minVersions(cluster, 0) == [nil, version.hexDigits])
        }
    }

    @Test func theHigherOfSessionAndCallerCounts() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        try await withClient(seeds: cluster.addresses) { client in
            let version = try await client.put(key, bytes("v"))
            let higher = Version(rawValue: version.rawValue + 1)
            _ = try await client.get(key, options: ReadOptions(minVersion: higher))
            _ = try await client.get(key, options: ReadOptions(minVersion: Version(rawValue: 1)))
            #expect(minVersions(cluster, 0) == [higher.hexDigits, version.hexDigits])
        }
    }

    @Test func aFollowerThatLacksTheVersionSendsTheReadToTheLeaderWithIt() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        let leader = cluster.addresses[0]
        cluster.override { node, request in
            guard node == 1, request.method == .GET, request.target.hasPrefix("/kv/") else { return nil }
            return .answer(.init(307, [("location", "http://\(leader)\(request.target)?hops=1")]))
        }
        try await withClient(seeds: cluster.addresses) {
            $0.readPreference = .spread
        } _: { client in
            let version = try await client.put(key, bytes("v"))
            try await eventually("a read is redirected") {
                _ = try await client.get(key)
                return cluster.requests(0, path: "/kv/").contains { $0.target.hasSuffix("hops=1") }
            }
            #expect(Set(minVersions(cluster, 0) + minVersions(cluster, 1)) == [version.hexDigits])
        }
    }

    @Test func aChangeOfTheTopologyKeepsIt() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        try await withClient(seeds: cluster.addresses) { client in
            let version = try await client.put(key, bytes("v"))
            cluster.adopt(try cluster.topology(epoch: 2, shards: 1) { _ in 1 })
            try await client.refreshTopology()
            _ = try await client.get(key)
            #expect(minVersions(cluster, 1) == [version.hexDigits])
        }
    }

    @Test(arguments: [HTTPMethod.GET, .HEAD]) func aLostVersionIsToldOnceAndForgotten(method: HTTPMethod) async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in
            guard request.headers.contains(name: KVHeader.minVersion) else { return nil }
            return refusal(409, .versionUnknown)
        }
        try await withClient(seeds: cluster.addresses) { client in
            func read() async throws(KVError) {
                if method == .GET { _ = try await client.get(key) } else { _ = try await client.head(key) }
            }
            let version = try await client.put(key, bytes("v"))
            let error = try await failure { () throws(KVError) in try await read() }
            #expect(error.code == .versionUnknown)
            #expect(error.version == version)
            #expect(error.message.contains("shard-0 has no version \(version)"))
            try await read()
            #expect(minVersions(cluster, 0, method) == [version.hexDigits, version.hexDigits, nil])
        }
    }

    @Test func aDeposedLeaderIsNotBelieved() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        try await withClient(seeds: [cluster.addresses[0]]) { client in
            let version = try await client.put(key, bytes("v"))
            cluster.adopt(try cluster.topology(epoch: 2, shards: 1) { _ in 1 }, nodes: [1])
            cluster.override { node, request in
                node == 0 && request.method == .GET && request.target.hasPrefix("/kv/")
                    ? refusal(409, .versionUnknown) : nil
            }
            let entry = try await client.get(key, options: ReadOptions(consistency: .leader))
            #expect(entry?.version == version)
            #expect(minVersions(cluster, 1) == [version.hexDigits])
        }
    }
}

@Suite struct RequestOptionsTests {
    @Test func writesSayWhatTheyWaitFor() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        try await withClient(seeds: cluster.addresses) { client in
            try await client.put(key, bytes("v"), options: WriteOptions(ack: .all, ackTimeout: .milliseconds(1_500)))
            try await client.put(key, bytes("v"), options: WriteOptions(ack: .replicas(2)))
            try await client.put(key, bytes("v"), options: WriteOptions(ackTimeout: .microseconds(1)))
            try await client.delete(key, options: WriteOptions(ack: .quorum))
            try await client.delete(key)
        }
        #expect(
            cluster.requests(0, path: "/kv/").map(\.target) == [
                "/kv/k?ack=all&timeout=1500ms", "/kv/k?ack=2", "/kv/k?timeout=1ms", "/kv/k?ack=quorum", "/kv/k",
            ])
    }

    @Test func readsSayHowNewTheAnswerHasToBe() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        try await withClient(seeds: cluster.addresses) { client in
            _ = try await client.get(key, options: ReadOptions(consistency: .leader))
            _ = try await client.head(key, options: ReadOptions(maxStaleness: .seconds(2)))
            _ = try await client.get(key, options: ReadOptions(consistency: .leader, maxStaleness: .seconds(1)))
            _ = try await client.get(key)
        }
        #expect(
            cluster.requests(0, path: "/kv/").map(\.target) == [
                "/kv/k?consistency=leader", "/kv/k?max_staleness=2000ms",
                "/kv/k?consistency=leader&max_staleness=1000ms", "/kv/k",
            ])
    }

    @Test func aReadThatNeedsTheLeaderIsNotSpread() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        try await withClient(seeds: cluster.addresses) {
            $0.readPreference = .spread
        } _: { client in
            for _ in 0..<40 { _ = try await client.get(key, options: ReadOptions(consistency: .leader)) }
        }
        #expect(cluster.requests(0, path: "/kv/").count == 40)
        #expect(cluster.requests(1, path: "/kv/").isEmpty)
    }

    @Test func anAckTimeoutCarriesTheVersionAndIsNotRepeated() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        let version = Version(rawValue: 0x1234_0000)
        cluster.override { _, request in
            guard request.method == .PUT else { return nil }
            return refusal(504, .ackTimeout, [(KVHeader.version, version.hexDigits)])
        }
        try await withClient(seeds: cluster.addresses) { client in
            let error = try await failure { () throws(KVError) in
                try await client.put(key, bytes("v"), options: WriteOptions(ack: .all))
            }
            #expect(error.code == .ackTimeout)
            #expect(error.version == version)
            #expect(error.message == "because")
            #expect(cluster.requests(0, path: "/kv/").count == 1)
            _ = try await client.get(key)
            #expect(minVersions(cluster, 0) == [version.hexDigits], "the leader has it, so reads have to include it")
        }
    }
}
