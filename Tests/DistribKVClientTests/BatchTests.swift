import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

/// `KVClient.batch` against nodes in memory.
@Suite struct BatchTests {
    private func key(_ text: String) -> [UInt8] { Array(text.utf8) }

    @Test func resultsAreTypedAndInOrder() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 4)
        try await withClient(seeds: [cluster.addresses[0]]) { client in
            let results = try await client.batch([
                .get(key("a")), .put(key("a"), bytes("1")), .get(key("a")), .increment(key("n"), by: 5),
                .put(key("a"), bytes("2"), condition: .absent), .increment(key("a"), by: -3), .delete(key("a")),
                .get(key("a")), .put(key("text"), bytes("x")), .increment(key("text")), .get([]),
            ])
            let texts = results.map { result -> String in
                switch result {
                case .success(.value(let entry)): entry.map { String(buffer: $0.value) } ?? "nothing"
                case .success(.written): "written"
                case .success(.counter(let counter)): "\(counter.number)"
                case .failure(let error): error.code.description
                }
            }
            #expect(
                texts == [
                    "nothing", "written", "1", "5", "precondition-failed", "-2", "written", "nothing", "written",
                    "not-an-integer", "invalid-argument",
                ])
            #expect(try await client.batch([]).isEmpty)
        }
        for node in 0..<2 {
            #expect(cluster.requests(node, path: "/batch?forward=false").count <= 1, "one part for each leader")
        }
    }

    @Test func anAtomicBatchHasKeysOfOneShard() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 4)
        try await withClient(seeds: cluster.addresses) { client in
            let done = try await client.batch(
                [.put(key("{u}a"), bytes("1")), .put(key("{u}b"), bytes("2"))],
                options: BatchOptions(isAtomic: true, ack: .all, ackTimeout: .seconds(1)))
            for result in done { _ = try result.get() }
            let keys = (0..<20).map { KVOperation.get(key("k\($0)")) }
            await #expect {
                try await client.batch(keys, options: BatchOptions(isAtomic: true))
            } throws: { error in
                (error as? KVError)?.code == .invalidArgument && "\(error)".contains("\"k0\"")
            }
        }
        let targets = (0..<2).flatMap { cluster.requests($0, path: "/batch").map(\.target) }
        #expect(targets == ["/batch?forward=false&atomic=true&ack=all&timeout=1000ms"])
    }

    /// The leadership moves while a batch waits: its writes go to the new leader, once.
    @Test func aChangeOfLeaderTakesNothingButTime() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 1)
        cluster.adopt(try cluster.topology(epoch: 2, shards: 1) { _ in 1 }, nodes: [1])
        let asked = Counter()
        cluster.override { node, request in
            guard node == 0, request.target.hasPrefix("/batch") else { return nil }
            return asked.next() == 1
                ? .answer(.init(503, body: Problem(.unavailable, "not now").json))
                : .answer(.init(409, [(KVHeader.epoch, "2")], body: Problem(.notLeader, "another leads").json))
        }
        try await withClient(seeds: [cluster.addresses[0]]) {
            $0.backoffMin = .milliseconds(1)
            $0.backoffMax = .milliseconds(10)
        } _: { client in
            let results = try await client.batch((0..<50).map { .increment(key("k\($0)")) })
            for result in results {
                guard case .counter(let counter) = try result.get() else { throw KVError(.invalidData, "\(result)") }
                #expect(counter.number == 1)
            }
            #expect(try await client.topology().epoch == 2)
        }
    }

    /// An answer is lost: plain writes are sent again, counters are not.
    @Test func whatMayHaveBeenDoneIsRepeatedOnlyWhereThatDoesNoHarm() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        for isPlain in [true, false] {
            let dropped = Counter()
            cluster.dropAnswers { $0.target.hasPrefix("/batch") && dropped.next() == 1 }
            try await withClient(seeds: cluster.addresses) {
                $0.backoffMin = .milliseconds(1)
            } _: { client in
                let operations: [KVOperation] =
                    isPlain
                    ? [.put(key("a"), bytes("1")), .delete(key("b"))]
                    : [.put(key("c"), bytes("1")), .increment(key("n"))]
                let results = try await client.batch(operations)
                if isPlain {
                    for result in results { _ = try result.get() }
                } else {
                    let codes = results.map { result -> KVError.Code? in
                        if case .failure(let error) = result { error.code } else { nil }
                    }
                    #expect(codes == [.unavailable, .outcomeUnknown])
                }
            }
        }
        #expect(cluster.value("n") == "1", "counted once")
    }

    @Test func largeBatchesGoInSeveralParts() async throws {
        let cluster = try await FakeCluster.start(nodes: 2, shards: 2)
        try await withClient(seeds: cluster.addresses) { client in
            let value = ByteBuffer(string: String(repeating: "v", count: 1_000))
            let operations = (0..<5_000).map {
                KVOperation.put(key("k\($0 % 4_000)"), $0 < 4_000 ? value : bytes("last"))
            }
            for result in try await client.batch(operations) { _ = try result.get() }
        }
        #expect(cluster.keys.count == 4_000)
        #expect((0..<1_000).allSatisfy { cluster.value("k\($0)") == "last" }, "the order of one key is kept")
        #expect((0..<2).allSatisfy { cluster.requests($0, path: "/batch").count > 1 })
    }

    @Test func aCancelledTaskEndsItsBatch() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in request.target.hasPrefix("/batch") ? .hold : nil }
        try await withClient(seeds: cluster.addresses) { client in
            let batch = Task { try await client.batch([.get(key("a"))]) }
            try await eventually("it is sent") { !cluster.requests(0, path: "/batch").isEmpty }
            batch.cancel()
            await #expect { try await batch.value } throws: { ($0 as? KVError)?.code == .cancelled }
        }
    }
}
