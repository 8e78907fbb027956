import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import NIOPosix
import Sharding
import TestSupport
import Testing
import Wire

private let key = Array("k".utf8)

/// How the client takes a change of leader.
@Suite struct FailoverTests {
    @Test func aPlannedSwitchoverOnlyTakesTime() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        let (old, new) = (cluster.addresses[0], cluster.addresses[1])
        let released = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        try await withClient(seeds: cluster.addresses) { client in
            try await client.put(key, bytes("before"))
            // The leader holds the writes back, hands over, and then sends each to the new leader.
            cluster.override { node, request in
                guard node == 0, request.method == .PUT else { return nil }
                let moved = ScriptedServer.Answer(307, [("location", "http://\(new)\(request.target)?hops=1")])
                return .wait(released.futureResult, moved)
            }
            async let writes: Void = withThrowingTaskGroup { group in
                for number in 0..<100 {
                    group.addTask { try await client.put("k\(number)".utf8, bytes("\(number)")) }
                }
                try await group.waitForAll()
            }
            try await eventually("writes are held") { !cluster.requests(0, path: "/kv/").isEmpty }
            cluster.adopt(try cluster.topology(epoch: 2, shards: 1) { _ in 1 })
            released.succeed()
            try await writes
            try await eventually("the client knows") { try await client.topology().epoch == 2 }
            let toldBefore = cluster.requests(0, path: "/kv/").count
            try await client.put(key, bytes("after"))
            #expect(cluster.requests(0, path: "/kv/").count == toldBefore, "straight to the new leader")
        }
        let taken = cluster.requests(1, path: "/kv/").map { String($0.target.prefix { $0 != "?" }) }
        #expect(Set(taken).count == taken.count, "none was sent to the new leader twice")
        #expect(cluster.keys.count == 101)
        #expect(old != new)
    }

    @Test func aLeaderThatRefusesForAMomentIsTriedAgain() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        let refusals = Counter()
        cluster.override { _, request in
            guard request.method == .PUT, refusals.next() <= 3 else { return nil }
            return .answer(.init(503, [("retry-after", "1")], body: Problem(.unavailable, "not now").json))
        }
        try await withClient(seeds: cluster.addresses) { client in
            try await client.put(key, bytes("v"))
        }
        #expect(cluster.value("k") == "v")
    }

    /// A router that was cut off tells the old topology for as long as it is.
    private func staleRouter(_ topology: Topology) async throws -> ScriptedServer {
        let json = String(decoding: try topology.json(), as: UTF8.self)
        return try await .start { _ in .answer(.init(200, body: json)) }
    }

    @Test func aNewLeaderIsFoundThoughTheSeedHasNotHeardOfIt() async throws {
        let cluster = try await FakeCluster.start(nodes: 3, shards: 1)
        let router = try await staleRouter(try cluster.topology(epoch: 1, shards: 1) { _ in 0 })
        try await cluster.nodes[0].stop()
        cluster.adopt(try cluster.topology(epoch: 2, shards: 1) { _ in 1 })
        try await withClient(seeds: [router.address]) { client in
            try await client.put(key, bytes("v"))
            #expect(try await client.topology().epoch == 2)
            _ = try await client.get(key, options: ReadOptions(consistency: .leader))
        }
        #expect(cluster.requests(1, path: "/kv/").map(\.body) == ["v", ""])
    }

    @Test func aNewLeaderIsFoundThoughTheOldOneHangs() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        try await withClient(seeds: [cluster.addresses[0]]) {
            $0.writeAttemptTimeout = .milliseconds(100)
            $0.topologySearchPatience = .milliseconds(100)
            // On a busy machine the new leader may be late as well.
            $0.attemptsMax = 100
        } _: { client in
            _ = try await client.topology()
            // Stopped with SIGSTOP: the kernel takes connections and bytes, nobody answers.
            cluster.override { node, _ in node == 0 ? .hold : nil }
            cluster.adopt(try cluster.topology(epoch: 2, shards: 1) { _ in 1 }, nodes: [1])
            try await client.put(key, bytes("1"))
            try await client.put(key, bytes("2"))
        }
        #expect(cluster.requests(0, path: "/kv/").count <= 1, "once is enough")
        #expect(Set(cluster.requests(1, path: "/kv/").map(\.body)) == ["1", "2"])
        #expect(cluster.value("k") == "2")
    }

    @Test func aNodeThatDoesNotLeadAnyMoreAndKnowsNobodyIsLeft() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        try await withClient(seeds: [cluster.addresses[0]]) { client in
            _ = try await client.topology()
            cluster.override { node, request in
                guard node == 0, request.method == .PUT else { return nil }
                return .answer(.init(409, body: Problem(.notLeader, "fenced").json))
            }
            cluster.adopt(try cluster.topology(epoch: 2, shards: 1) { _ in 1 }, nodes: [1])
            try await client.put(key, bytes("v"))
        }
        #expect(cluster.requests(1, path: "/kv/").map(\.body) == ["v"])
    }

    @Test func ofTwoTopologiesOfOneEpochEverybodyTakesTheSame() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        let one = try cluster.topology(epoch: 2, shards: 1) { _ in 0 }
        let other = try cluster.topology(epoch: 2, shards: 1) { _ in 1 }
        let (lesser, greater) = try one.supersedes(other) ? (other, one) : (one, other)
        cluster.adopt(lesser)
        try await withClient(seeds: cluster.addresses) { client in
            var seen = [try await client.topology()]
            for next in [greater, lesser] {
                cluster.adopt(next)
                seen.append(try await client.refreshTopology())
            }
            #expect(seen == [lesser, greater, greater])
        }
    }

    @Test func aQuestionToOneNodeFollowsRedirectsAndTellsRefusals() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        let addresses = cluster.addresses
        let position = PositionDocument(
            shard: "shard-0", role: .leader, position: LogPosition(term: 1, lsn: 7, version: Version(rawValue: 9)))
        let json = String(decoding: try DocumentCoding.encode(position), as: UTF8.self)
        cluster.override { node, request in
            switch (request.target, node) {
            case ("/a", 0): .answer(.init(307, [("location", "http://\(addresses[1])/b")]))
            case ("/b", 1): .answer(.init(200, [(KVHeader.epoch, "5")], body: json))
            case ("/refused", _): .answer(.init(409, body: Problem(.followerBehind, "3 batches behind").json))
            case ("/circle", _): .answer(.init(307, [("location", "/circle")]))
            default: nil
            }
        }
        cluster.adopt(try cluster.topology(epoch: 5, shards: 1) { _ in 1 }, nodes: [1])
        try await withClient(seeds: [addresses[0]]) { client in
            func ask(_ target: String) async throws(KVError) -> PositionDocument {
                let request = NodeRequest(method: .GET, target: target)
                return try await client.ask(
                    addresses[0], request, for: PositionDocument.self, timeout: .seconds(30))
            }
            #expect(try await client.topology().epoch == 1)
            #expect(try await ask("/a") == position)
            #expect(try await client.topology().epoch == 5)
            let refused = try await failure { () throws(KVError) in _ = try await ask("/refused") }
            #expect((refused.code, refused.message) == (.conflict, "3 batches behind"))
            let circle = try await failure { () throws(KVError) in _ = try await ask("/circle") }
            #expect(circle.code == .unavailable)
        }
    }
}
