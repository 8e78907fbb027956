import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import NIOPosix
import Sharding
import TestSupport
import Testing
import Wire

/// Requests end with their tasks, and with their client.
@Suite struct CancellationTests {
    private let key = Array("k".utf8)

    private func code(_ task: Task<Void, any Error>) async -> KVError.Code? {
        do {
            try await task.value
            return nil
        } catch {
            return (error as? KVError)?.code
        }
    }

    @Test func aRequestEndsWithItsTask() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in request.target.hasPrefix("/kv/") ? .hold : nil }
        try await withClient(seeds: cluster.addresses) { client in
            let requests: [@Sendable () async throws -> Void] = [
                { _ = try await client.get(Array("k".utf8)) },
                { try await client.put(Array("k".utf8), bytes("v")) },
                { try await client.increment(Array("k".utf8)) },
            ]
            for (index, request) in requests.enumerated() {
                let task = Task { try await request() }
                try await eventually("the request arrives") { cluster.requests(0, path: "/kv/").count == index + 1 }
                task.cancel()
                #expect(await code(task) == .cancelled)
            }
            // Nothing waits for those answers any more. The one that the topology came on may be open.
            try await eventually("their connections are closed") {
                try await client.connections.openConnections(to: cluster.addresses[0]) <= 1
            }
        }
        #expect(cluster.requests(0, path: "/kv/").count == 3, "nothing is tried again")
    }

    @Test func aTaskThatIsCancelledAlreadySendsNothing() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        try await withClient(seeds: cluster.addresses) { client in
            let start = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
            let task = Task {
                try await start.futureResult.get()
                _ = try await client.increment(Array("k".utf8))
            }
            task.cancel()
            start.succeed()
            #expect(await code(task) == .cancelled)
        }
        #expect(cluster.value("k") == nil)
    }

    @Test func thePauseBetweenAttemptsEndsWithTheTask() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in request.target.hasPrefix("/kv/") ? .close : nil }
        try await withClient(seeds: cluster.addresses) {
            $0.backoffMin = .seconds(20)
            $0.backoffMax = .seconds(20)
        } _: { client in
            let task = Task { try await client.put(Array("k".utf8), bytes("v")) }
            try await eventually("the first attempt") { cluster.requests(0, path: "/kv/").count == 1 }
            task.cancel()
            #expect(await code(Task { _ = try await task.value }) == .cancelled)
        }
    }

    /// Two wait for one fetch of the topology; the one that is cancelled leaves it to the other.
    @Test func waitingForTheTopologyEndsWithTheTask() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        let json = String(decoding: try cluster.topology(epoch: 1, shards: 1) { _ in 0 }.json(), as: UTF8.self)
        cluster.override { _, request in
            request.target == APIPath.topology ? .wait(gate.futureResult, .init(200, body: json)) : nil
        }
        try await withClient(seeds: cluster.addresses) { client in
            let cancelled = [
                Task { _ = try await client.topology() },
                Task { _ = try await client.put(Array("k".utf8), bytes("v")) },
            ]
            let other = Task { try await client.topology().epoch }
            try await eventually("the fetch") { cluster.requests(0, path: APIPath.topology).count == 1 }
            for task in cancelled {
                task.cancel()
                #expect(await code(task) == .cancelled)
            }
            gate.succeed()
            #expect(try await other.value == 1)
            #expect(cluster.requests(0, path: APIPath.topology).count == 1)
        }
    }

    @Test func othersOnTheSameConnectionAreAnswered() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        cluster.override { _, request in
            guard request.target == "/kv/first" else { return nil }
            return .wait(gate.futureResult, .init(200, [(KVHeader.version, "00000000000000aa")], body: "late"))
        }
        let loop = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        var configuration = KVClientConfiguration()
        configuration.connections.connectionsPerNodeMax = 1
        configuration.connections.pipeliningDepthMax = 8
        let client = KVClient(seeds: cluster.addresses, configuration: configuration, group: loop)
        _ = try await client.topology()
        let first = Task { _ = try await client.get(Array("first".utf8)) }
        try await eventually("the first request") { cluster.requests(0, path: "/kv/first").count == 1 }
        let second = Task { try await client.put(Array("second".utf8), bytes("2")) }
        try await eventually("the second request") { cluster.requests(0, path: "/kv/second").count == 1 }
        first.cancel()
        #expect(await code(first) == .cancelled)
        gate.succeed()
        _ = try await second.value
        #expect(cluster.value("second") == "2")
        #expect(cluster.requests(0, path: "/kv/second").count == 1)
        await client.shutdown()
        try await loop.shutdownGracefully()
    }

    @Test func aShutdownLetsRequestsEnd() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        cluster.override { _, request in
            guard request.method == .PUT else { return nil }
            return .wait(gate.futureResult, .init(204, [(KVHeader.version, "00000000000000aa")]))
        }
        let client = KVClient(seeds: cluster.addresses)
        let put = Task { try await client.put(Array("k".utf8), bytes("v")) }
        try await eventually("the request arrives") { cluster.requests(0, path: "/kv/").count == 1 }
        let shutdown = Task { await client.shutdown(finishingWithin: .seconds(60)) }
        try await eventually("new requests are refused") {
            do throws(KVError) {
                _ = try await client.get(Array("other".utf8))
                return false
            } catch {
                return error.code == .cancelled
            }
        }
        gate.succeed()
        #expect(try await put.value == Version(rawValue: 0xAA))
        await shutdown.value
        #expect(try await client.connections.openConnections(to: cluster.addresses[0]) == 0)
    }

    @Test func aShutdownWaitsNoLongerThanItMay() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        cluster.override { _, request in request.method == .PUT ? .hold : nil }
        let client = KVClient(seeds: cluster.addresses)
        let put = Task { _ = try await client.put(Array("k".utf8), bytes("v")) }
        try await eventually("the request arrives") { cluster.requests(0, path: "/kv/").count == 1 }
        await client.shutdown(finishingWithin: .milliseconds(20))
        #expect(await code(put) == .cancelled)
    }

    @Test func requestsUnderWayAreBounded() async throws {
        let cluster = try await FakeCluster.start(nodes: 1, shards: 1)
        let gate = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        cluster.override { _, request in
            guard request.method == .PUT else { return nil }
            return .wait(gate.futureResult, .init(204, [(KVHeader.version, "00000000000000aa")]))
        }
        try await withClient(seeds: cluster.addresses) {
            $0.requestsInFlightMax = 3
        } _: { client in
            let puts = (0..<3).map { number in Task { try await client.put(Array("k\(number)".utf8), bytes("v")) } }
            try await eventually("the requests arrive") { cluster.requests(0, path: "/kv/").count == 3 }
            let error = try await failure { () throws(KVError) in _ = try await client.get(key) }
            #expect(error.code == .overloaded)
            gate.succeed()
            for put in puts { _ = try await put.value }
            #expect(try await client.get(key) == nil)
        }
    }
}
