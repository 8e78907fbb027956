import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

@testable import RouterService

@Suite struct RedirectTests {
    private let nodes = addresses(3)

    /// Nodes that nobody can reach are alive until looked at twice, and here that is an hour away.
    private func withThreeReplicas(_ body: (RouterClient) async throws -> Void) async throws {
        try await withRouter(try topology([nodes])) { try await body($0) }
    }

    @Test(arguments: [HTTPMethod.PUT, .DELETE, .POST]) func writesGoToTheLeader(method: HTTPMethod) async throws {
        try await withThreeReplicas { client async throws in
            for _ in 0..<5 {
                let response = try await client.send(method, "/kv/a", body: method == .DELETE ? nil : "value")
                #expect(response.status == 307)
                #expect(response.headers.first(name: "location") == "http://127.0.0.1:7001/kv/a?hops=1")
                #expect(response.headers.first(name: "cache-control") == "no-store")
                #expect(response.epoch == 1)
                #expect(response.body.readableBytes == 0)
            }
        }
    }

    @Test(arguments: [HTTPMethod.GET, .HEAD]) func readsSpreadEvenlyOverReplicas(method: HTTPMethod) async throws {
        try await withThreeReplicas { client async throws in
            var counts: [String: Int] = [:]
            for _ in 0..<60 { counts[try await client.location(method, "/kv/a"), default: 0] += 1 }
            #expect(counts.count == 3)
            #expect(counts.values.allSatisfy { $0 == 20 }, "\(counts)")
        }
    }

    @Test func eachShardHasItsOwnTurn() async throws {
        // "a" and "b" in two shards whose replicas are two each: alternating keys must not freeze the choice.
        let slotOfA = HashSlot(key: "a".utf8)
        let all = HashSlot(rawValue: 0)...HashSlot(rawValue: 16_383)
        #expect(all.contains(slotOfA) && HashSlot(key: "b".utf8) != slotOfA)
        var ranges: [SlotRange] = []
        if slotOfA.rawValue > 0 {
            ranges.append(SlotRange(first: all.lowerBound, last: HashSlot(rawValue: slotOfA.rawValue - 1)))
        }
        if slotOfA.rawValue < 16_383 {
            ranges.append(SlotRange(first: HashSlot(rawValue: slotOfA.rawValue + 1), last: all.upperBound))
        }
        let topology = try Topology(
            cluster: "test", epoch: 1,
            shards: [
                ShardTopology(
                    name: "only-a", index: 0, term: 1, leader: nodes[0], followers: [nodes[1]],
                    slots: [SlotRange(first: slotOfA, last: slotOfA)]),
                ShardTopology(
                    name: "rest", index: 1, term: 1, leader: nodes[2], followers: [nodes[1]], slots: ranges),
            ])
        try await withRouter(topology) { client async throws in
            var counts: [String: Int] = [:]
            for _ in 0..<20 {
                for key in ["a", "b"] { counts[try await client.location(.GET, "/kv/\(key)"), default: 0] += 1 }
            }
            #expect(
                counts == [
                    "http://127.0.0.1:7001/kv/a?hops=1": 10, "http://127.0.0.1:7002/kv/a?hops=1": 10,
                    "http://127.0.0.1:7003/kv/b?hops=1": 10, "http://127.0.0.1:7002/kv/b?hops=1": 10,
                ])
            #expect(try await client.location(.PUT, "/kv/a") == "http://127.0.0.1:7001/kv/a?hops=1")
            #expect(try await client.location(.PUT, "/kv/b") == "http://127.0.0.1:7003/kv/b?hops=1")
            // The slot is that of the decoded key.
            #expect(try await client.location(.PUT, "/kv/%61") == "http://127.0.0.1:7001/kv/%61?hops=1")
            #expect(try await client.location(.PUT, "/kv/x%7Ba%7D") == "http://127.0.0.1:7001/kv/x%7Ba%7D?hops=1")
        }
    }

    @Test(arguments: [
        ("/kv/a", "/kv/a?hops=1"), ("/kv/a/b//c", "/kv/a/b//c?hops=1"), ("/kv/a%2Fb", "/kv/a%2Fb?hops=1"),
        ("/kv/%C3%BC%00%ff", "/kv/%C3%BC%00%ff?hops=1"), ("/kv/a?", "/kv/a?hops=1"),
        ("/kv/a?x=1&y", "/kv/a?x=1&y&hops=1"), ("/kv/a?x=%26&&z", "/kv/a?x=%26&&z&hops=1"),
        ("/kv/a?hops=1", "/kv/a?hops=2"), ("/kv/a?hops=3&x=1", "/kv/a?x=1&hops=4"),
        ("/kv/a?x=1&hops=2&y=2", "/kv/a?x=1&y=2&hops=3"), ("/kv/a?proxy=false", "/kv/a?hops=1"),
        ("/kv/a?proxy=false&x=1&hops=0", "/kv/a?x=1&hops=1"), ("/kv/a?xhops=7&proxyx", "/kv/a?xhops=7&proxyx&hops=1"),
        ("/kv/a?hopsx=7&x=hops=3", "/kv/a?hopsx=7&x=hops=3&hops=1"),
        ("/kv/{t}~!$'()*,;:@", "/kv/{t}~!$'()*,;:@?hops=1"),
        ("/kv/a?q=a?b", "/kv/a?q=a?b&hops=1"),
    ])
    func locationKeepsPathAndQuery(target: String, expected: String) async throws {
        try await withThreeReplicas { client async throws in
            let location = try await client.location(.PUT, target)
            #expect(location == "http://127.0.0.1:7001" + expected)
        }
    }

    /// A `Location` is made of the request's own bytes: what may not stand in one must not come in either.
    @Test(arguments: ["/kv/ü", "/kv/a?x=€", "/kv/a\u{1}b", "/kv/a\u{7F}"])
    func bytesThatAURLMayNotHoldAreRefused(target: String) async throws {
        try await withThreeReplicas { client async throws in
            let answer = try await client.raw("PUT \(target) HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 400 "), "\(answer)")
            #expect(!answer.contains("location:"))
        }
    }

    @Test func aClientThatAsksFirstIsSparedTheBody() async throws {
        func put(_ target: String) -> String {
            "PUT \(target) HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        }
        let node = try await FakeNode.start()
        try await withRouter(try topology([[node.address]])) { client async throws in
            for target in ["/kv/a", "/kv/a?proxy=false"] {
                let answer = try await client.raw(put(target))
                #expect(answer.hasPrefix("HTTP/1.1 307 "), "\(answer)")
                #expect(answer.contains("location: http://\(node.address)/kv/a?hops=1\r\n"))
                #expect(answer.contains("connection: close\r\n"))
            }
            #expect(try await client.raw(put("/kv/a?proxy=maybe")).hasPrefix("HTTP/1.1 400 "))
            // One that does not wait loses nothing.
            #expect(try await client.raw(put("/kv/a") + "value").hasPrefix("HTTP/1.1 307 "))
            // A proxied write needs the body, and says so.
            let proxied = try await client.raw(
                put("/kv/a?proxy=true").replacing("host", with: "connection: close\r\nhost") + "value")
            #expect(proxied.contains("HTTP/1.1 200 "), "\(proxied)")
            #expect(node.received.map(\.body) == ["value"])
        }
        await node.stop()
    }

    @Test func aLongKeyOfEveryByteKeepsItsLength() async throws {
        let key = (0..<Limits.keyBytesMax).map { UInt8(truncatingIfNeeded: $0) }
        try await withThreeReplicas { client async throws in
            let target = APIPath.key(key)
            let location = try await client.location(.DELETE, target)
            #expect(location == "http://127.0.0.1:7001\(target)?hops=1")
        }
    }

    @Test func redirectsDoNotGoOnForever() async throws {
        try await withThreeReplicas { client async throws in
            var target = "/kv/a"
            for _ in 0..<Limits.redirectsMax {
                let location = try await client.location(.GET, target)
                target = String(try #require(RedirectLocation(location)).target)
            }
            let last = try await client.send(.GET, target)
            #expect(last.status == 508)
            #expect(try problem(last).type == "redirect-loop")
            #expect(try await client.send(.GET, "/kv/a?hops=999999&proxy=true").status == 508)
        }
    }

    @Test(arguments: [
        "/kv/", "/kv/?hops=1", "/kv/%", "/kv/%zz", "/kv/a%2", "/kv/a?hops=", "/kv/a?hops", "/kv/a?hops=-1",
        "/kv/a?hops=1x", "/kv/a?hops=9999999", "/kv/a?proxy=1", "/kv/a?proxy=TRUE",
        "/kv/" + String(repeating: "k", count: Limits.keyBytesMax + 1),
        "/kv/" + String(repeating: "%41", count: Limits.keyBytesMax + 1),
    ])
    func badRequests(target: String) async throws {
        try await withThreeReplicas { client async throws in
            for method in [HTTPMethod.GET, .PUT] {
                let response = try await client.send(method, target)
                #expect(response.status == 400)
                #expect(try problem(response).type == "bad-request")
            }
        }
    }

    @Test func wrongMethodsAreToldTheRightOnes() async throws {
        try await withThreeReplicas { client async throws in
            for method in [HTTPMethod.PATCH, .OPTIONS, .TRACE] {
                let response = try await client.send(method, "/kv/a")
                #expect(response.status == 405)
                #expect(response.headers.first(name: "allow") == "GET, HEAD, PUT, DELETE, POST")
                #expect(try problem(response).type == "method-not-allowed")
            }
        }
    }

    @Test func deadReplicasAreSkippedAndADeadLeaderIsSaid() async throws {
        let alive = try await FakeNode.start()
        let dead = try DeafPort()
        try await withRouter(try topology([[dead.address, alive.address]])) {
            $0.healthInterval = .milliseconds(20)
        } _: { client async throws in
            try await eventually("the dead node is found out") { try await client.isHealthy(dead.address) == false }
            for _ in 0..<10 {
                #expect(try await client.location(.GET, "/kv/a") == "http://\(alive.address)/kv/a?hops=1")
            }
            let write = try await client.send(.PUT, "/kv/a", body: "x")
            #expect(write.status == 503)
            #expect(write.headers.first(name: "retry-after") == "1")
            #expect(try problem(write).type == "unavailable")
            #expect(try await client.send(.GET, "/readyz").status == 200)
        }
        await alive.stop()
    }

    @Test func whereNobodyLivesTheAnswerIsToComeBack() async throws {
        let dead = try [DeafPort(), DeafPort()]
        try await withRouter(try topology([dead.map(\.address)])) {
            $0.healthInterval = .milliseconds(20)
        } _: { client async throws in
            // Not /readyz: that is 503 from the start, until a node has answered.
            try await eventually("both are found out") { try await client.status().nodes.allSatisfy { !$0.healthy } }
            #expect(try await client.send(.GET, "/readyz").status == 503)
            for target in ["/kv/a", "/kv/a?proxy=true"] {
                let response = try await client.send(.GET, target)
                #expect(response.status == 503)
                #expect(response.headers.first(name: "retry-after") == "1")
                #expect(try problem(response).type == "unavailable")
            }
            #expect(try await client.send(.GET, "/healthz").status == 200)
        }
    }

    @Test func aNodeThatIsNotReadyGetsNoReads() async throws {
        let (ready, waking) = (try await FakeNode.start(), try await FakeNode.start())
        waking.isReady(false)
        try await withRouter(try topology([[waking.address, ready.address]])) {
            $0.healthInterval = .milliseconds(20)
        } _: { client async throws in
            try await eventually("reads stay away from it") {
                let locations = [try await client.location(.GET, "/kv/a"), try await client.location(.GET, "/kv/a")]
                return Set(locations) == ["http://\(ready.address)/kv/a?hops=1"]
            }
            // It is alive, and writes have nowhere else to go.
            #expect(try await client.location(.PUT, "/kv/a") == "http://\(waking.address)/kv/a?hops=1")
            waking.isReady(true)
            try await eventually("reads come back to it") {
                try await client.location(.GET, "/kv/a") == "http://\(waking.address)/kv/a?hops=1"
            }
        }
        for node in [ready, waking] { await node.stop() }
    }
}
