import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

/// Writes with conditions and increments: what they ask for, what they fail with, and when they are sent again.
@Suite struct ConditionTests {
    private let key = Array("k".utf8)

    @Test func conditionsAreCheckedAndVersionsFit() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 2)
        try await withClient(seeds: cluster.addresses) { client in
            let error = try await failure { () throws(KVError) in
                try await client.put(key, bytes("0"), options: WriteOptions(condition: .exists))
            }
            #expect(error.code == .preconditionFailed)
            #expect(cluster.value("k") == nil)
            let first = try await client.put(key, bytes("1"), options: WriteOptions(condition: .absent))
            let second = try await client.put(key, bytes("2"), options: WriteOptions(condition: .version(first)))
            for condition in [WriteOptions.Condition.absent, .version(first)] {
                let options = WriteOptions(condition: condition)
                let put = try await failure { () throws(KVError) in
                    try await client.put(key, bytes("3"), options: options)
                }
                #expect(put.code == .preconditionFailed)
                let delete = try await failure { () throws(KVError) in try await client.delete(key, options: options) }
                #expect(delete.code == .preconditionFailed)
                let increment = try await failure { () throws(KVError) in
                    try await client.increment(key, options: options)
                }
                #expect(increment.code == .preconditionFailed)
            }
            #expect(cluster.value("k") == "2")
            try await client.delete(key, options: WriteOptions(condition: .version(second)))
            #expect(cluster.keys.isEmpty)
        }
    }

    @Test func valuesCanBeGivenALife() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in
            guard request.method == .GET, request.target.hasPrefix("/kv/") else { return nil }
            let fields = [(KVHeader.version, "00000000000000aa"), (KVHeader.expiresIn, "29993ms")]
            return .answer(.init(200, fields, body: "v"))
        }
        try await withClient(seeds: cluster.addresses) { client in
            try await client.put(key, bytes("v"), options: WriteOptions(ttl: .microseconds(1_500_001)))
            let entry = try await client.get(key)
            #expect(
                entry
                    == KVEntry(value: bytes("v"), version: Version(rawValue: 0xAA), expiresIn: .milliseconds(29_993)))
            for ttl in [TimeAmount.nanoseconds(0), .seconds(-1), .hours(24 * 36_501)] {
                let error = try await failure { () throws(KVError) in
                    try await client.put(key, bytes("v"), options: WriteOptions(ttl: ttl))
                }
                #expect(error.code == .invalidArgument)
            }
            let options = WriteOptions(ttl: .seconds(1))
            let delete = try await failure { () throws(KVError) in try await client.delete(key, options: options) }
            let increment = try await failure { () throws(KVError) in
                try await client.increment(key, options: options)
            }
            #expect([delete.code, increment.code] == [.invalidArgument, .invalidArgument])
        }
        let writes = cluster.requests(0, path: "/kv/").filter { $0.method != .GET }.map(\.target)
        #expect(writes == ["/kv/k?ttl=1501ms"])
    }

    @Test func countersCount() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        try await withClient(seeds: cluster.addresses) { client in
            #expect(try await client.increment(key).number == 1)
            let counter = try await client.increment(key, by: -43)
            #expect(counter.number == -42)
            #expect(try await client.get(key) == KVEntry(value: bytes("-42"), version: counter.version))
            let atMin = try await client.put(key, bytes("\(Int64.min)"))
            let overflow = try await failure { () throws(KVError) in try await client.increment(key, by: -1) }
            #expect(overflow.code == .counterOverflow)
            #expect(try await client.head(key) == atMin)
            try await client.put(key, bytes("1.5"))
            let none = try await failure { () throws(KVError) in try await client.increment(key) }
            #expect(none.code == .notAnInteger)
        }
        let targets = cluster.requests(0, path: "/kv/").filter { $0.method == .POST }.map(\.target)
        #expect(targets == ["/kv/k?incr=1", "/kv/k?incr=-43", "/kv/k?incr=-1", "/kv/k?incr=1"])
    }

    /// The write is made and its answer is lost. Sent again it would be refused by its own condition, or count twice.
    @Test func whatMayHaveBeenMadeIsNotSentAgain() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        try await withClient(seeds: cluster.addresses) { client in
            try await client.put(key, bytes("7"))
            let version = try #require(try await client.head(key))
            let before = cluster.requests(0, path: "/kv/").count
            cluster.dropAnswers { $0.method != .GET }
            let put = try await failure { () throws(KVError) in
                try await client.put(key, bytes("8"), options: WriteOptions(condition: .version(version)))
            }
            #expect(put.code == .outcomeUnknown, "\(put)")
            #expect(cluster.value("k") == "8")
            let increment = try await failure { () throws(KVError) in try await client.increment(key) }
            #expect(increment.code == .outcomeUnknown)
            #expect(cluster.value("k") == "9")
            let delete = try await failure { () throws(KVError) in
                try await client.delete(key, options: WriteOptions(condition: .exists))
            }
            #expect(delete.code == .outcomeUnknown)
            #expect(cluster.keys.isEmpty)
            #expect(cluster.requests(0, path: "/kv/").count == before + 3)
            // Without a condition it does no harm.
            let drops = Counter()
            cluster.dropAnswers { $0.method != .GET && drops.next() <= 2 }
            try await client.put(key, bytes("10"))
            #expect(cluster.requests(0, path: "/kv/").count == before + 6)
        }
        #expect(cluster.requests(1, path: "/kv/").isEmpty)
    }

    @Test func anAnswerThatDoesNotComeInTimeLeavesDoubt() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        cluster.override { _, request in request.method == .POST ? .hold : nil }
        try await withClient(seeds: cluster.addresses) { client in
            // Topology and connection are there, so that the time is spent on the answer.
            _ = try await client.get(key)
            let error = try await failure { () throws(KVError) in
                try await client.increment(key, options: WriteOptions(timeout: .seconds(1)))
            }
            #expect(error.code == .outcomeUnknown)
        }
        #expect(cluster.requests(0, path: "/kv/").filter { $0.method == .POST }.count == 1)
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        var status: Int
        var kind: Problem.Kind?
        var isMade: Bool
        var code: KVError.Code?
        var testDescription: String { "\(status) \(kind?.name ?? "")" }
    }

    /// What a node says once, and what becomes of an increment.
    @Test(arguments: [
        Refusal(status: 503, kind: .unavailable, isMade: true), Refusal(status: 503, kind: .overloaded, isMade: true),
        Refusal(status: 429, isMade: true), Refusal(status: 409, kind: .notLeader, isMade: true),
        Refusal(status: 508, kind: .redirectLoop, isMade: true),
        Refusal(status: 503, isMade: false, code: .outcomeUnknown),
        Refusal(status: 500, kind: .internalError, isMade: false, code: .outcomeUnknown),
        Refusal(status: 502, kind: .badGateway, isMade: false, code: .outcomeUnknown),
        Refusal(status: 504, kind: .upstreamTimeout, isMade: false, code: .outcomeUnknown),
        Refusal(status: 507, kind: .storageFull, isMade: false, code: .storageFull),
        Refusal(status: 503, kind: .storageFailed, isMade: false, code: .storageFailed),
        Refusal(status: 504, kind: .ackTimeout, isMade: false, code: .ackTimeout),
        Refusal(status: 408, kind: .requestTimeout, isMade: false, code: .timedOut),
    ]) func onlyWhatWasTurnedAwayIsSentAgain(refusal: Refusal) async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        let attempts = Counter()
        cluster.override { _, request in
            guard request.method == .POST, attempts.next() == 1 else { return nil }
            let body = refusal.kind.map { Problem($0, "said once").json } ?? "a proxy's own words"
            return .answer(.init(refusal.status, [(KVHeader.version, "00000000000000aa")], body: body))
        }
        try await withClient(seeds: cluster.addresses) { client in
            if refusal.isMade {
                #expect(try await client.increment(key).number == 1)
                #expect(attempts.value == 2)
            } else {
                let error = try await failure { () throws(KVError) in try await client.increment(key) }
                #expect(error.code == refusal.code)
                #expect(error.version == (refusal.code == .ackTimeout ? Version(rawValue: 0xAA) : nil))
                #expect(attempts.value == 1)
            }
        }
    }

    @Test func aRedirectAndALeaderThatIsGoneAreNoDoubt() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        try await withClient(seeds: [cluster.addresses[1]]) { client in
            _ = try await client.topology()
            // Node 1 leads, and only the nodes know: node 0 redirects.
            cluster.adopt(try cluster.topology(epoch: 2, shards: 1) { _ in 1 })
            let first = try await client.put(key, bytes("1"), options: WriteOptions(condition: .absent))
            // Node 0 leads in the client's eyes no more; a third topology gives it back, and it refuses connections.
            cluster.adopt(try cluster.topology(epoch: 3, shards: 1) { _ in 0 })
            _ = try await client.refreshTopology()
            try await cluster.nodes[0].stop()
            try await eventually("its connections are closed") {
                try await client.connections.openConnections(to: cluster.addresses[0]) == 0
            }
            cluster.adopt(try cluster.topology(epoch: 4, shards: 1) { _ in 1 })
            try await client.put(key, bytes("2"), options: WriteOptions(condition: .version(first)))
            #expect(cluster.value("k") == "2")
        }
        #expect(cluster.requests(1, path: "/kv/").count == 2)
    }

    @Test func oneClientServesManyTasks() async throws {
        let cluster = try await FakeCluster.start(nodes: 3, shards: 8)
        try await withClient(seeds: cluster.addresses) {
            $0.connections.connectionsPerNodeMax = 2
        } _: { client in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for task in 0..<50 {
                    group.addTask {
                        for round in 0..<20 { try await client.increment(Array("n\((task + round) % 5)".utf8)) }
                    }
                }
                try await group.waitForAll()
            }
        }
        #expect((0..<5).map { cluster.value("n\($0)") } == Array(repeating: "200", count: 5))
    }
}
