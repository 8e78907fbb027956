import Core
import Curl
import Logging
import NIOCore
import Sharding
import Synchronization
import Testing
import Wire

@testable import ReplicatorService

@Suite struct ReplicatorServiceTests {
    private static func topology(epoch: UInt64 = 1, leader: Int, followers: [Int]) throws -> Topology {
        func node(_ port: Int) -> NodeAddress { NodeAddress(host: "127.0.0.1", port: port) }
        let slots = [SlotRange(first: HashSlot(rawValue: 0), last: HashSlot(rawValue: 16_383))]
        return try Topology(
            cluster: "test", epoch: epoch,
            shards: [
                ShardTopology(
                    name: "shard-0", index: 0, term: 1, leader: node(leader), followers: followers.map(node),
                    slots: slots)
            ])
    }

    /// Runs a replicator over `topology` while `body` runs, then stops it.
    private static func withReplicator(
        _ topology: Topology, limits: ReplicationLimits = ReplicationLimits(),
        _ body: (_ port: Int, _ status: @Sendable () async throws -> ReplicatorStatus) async throws -> Void
    ) async throws {
        var logger = Logger(label: "replicator-test")
        logger.logLevel = .critical
        var configuration = ReplicatorConfiguration(
            topology: topology, listen: NodeAddress(host: "127.0.0.1", port: 0), version: "1.2.3", logger: logger)
        configuration.limits = limits
        let replicator = try Replicator(configuration: configuration)
        let client = try CurlClient()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await replicator.run() }
            try await eventually { replicator.port != nil }
            let port = try #require(replicator.port)
            try await body(port) {
                let response = try await get(client, port, "/status")
                return try DocumentCoding.decode(ReplicatorStatus.self, from: response.body.readableBytesView)
            }
            group.cancelAll()
            try await group.waitForAll()
        }
        await client.shutdown()
    }

    private static func get(
        _ client: CurlClient, _ port: Int, _ path: String, _ method: CurlRequest.Method = .get
    ) async throws -> CurlResponse {
        try await client.perform(
            CurlRequest(
                method, "http://127.0.0.1:\(port)\(path)", responseBytesMax: 1 << 20, timeout: .seconds(10),
                connectTimeout: .seconds(5)))
    }

    @Test func writesReachEveryFollower() async throws {
        let leader = FakeLeader()
        let followers = [FakeFollower(), FakeFollower()]
        let servers = [
            try await TestServer.start { await leader.answer($0) },
            try await TestServer.start { await followers[0].answer($0) },
            try await TestServer.start { await followers[1].answer($0) },
        ]
        leader.append(100)
        let topology = try Self.topology(leader: servers[0].port, followers: [servers[1].port, servers[2].port])
        try await Self.withReplicator(topology) { _, status in
            for _ in 0..<20 {
                try await eventually { followers.allSatisfy { $0.applied == leader.history } }
                leader.append()
            }
            try await eventually {
                let shard = try await status().shards[0]
                return shard.leaderLsn == 120 && shard.leaderError == nil
                    && shard.followers.allSatisfy {
                        $0.state == .replicate && $0.lsn == 120 && $0.lagBatches == 0 && $0.bytesInFlight == 0
                            && $0.lastError == nil
                    }
            }
        }
        for follower in followers { follower.state.withLock { #expect($0.gapCount == 0 && $0.wrongTermCount == 0) } }
        // Connections are kept: one for positions and pushes to a follower, perhaps a second at the start.
        #expect(servers[1].connectionsTotal <= 2)
        for server in servers { await server.stop() }
    }

    @Test func aSilentFollowerDoesNotHoldTheOther() async throws {
        let leader = FakeLeader()
        let followers = [FakeFollower(), FakeFollower()]
        let servers = [
            try await TestServer.start { await leader.answer($0) },
            try await TestServer.start { await followers[0].answer($0) },
            try await TestServer.start { await followers[1].answer($0) },
        ]
        leader.append()
        let topology = try Self.topology(leader: servers[0].port, followers: [servers[1].port, servers[2].port])
        var limits = ReplicationLimits()
        // Far beyond the test: what it shows is that nobody waits for the answer.
        limits.pushTimeout = .seconds(600)
        try await Self.withReplicator(topology, limits: limits) { _, status in
            try await eventually { followers.allSatisfy { $0.applied == leader.history } }
            followers[0].state.withLock { $0.isSilent = true }
            for _ in 0..<200 {
                leader.append(3, batchBytes: 30_000)
                try await eventually { followers[1].applied == leader.history }
            }
            let shard = try await status().shards[0]
            #expect(shard.followers[0].lsn == 1 && shard.followers[0].bytesInFlight <= limits.inFlightBytesMax)
            #expect(followers[0].state.withLock { $0.pushCount } <= 2)
        }
        for server in servers { await server.stop() }
    }

    @Test func leaderAndFollowerMayRestart() async throws {
        let leader = FakeLeader()
        let follower = FakeFollower()
        var leaderServer = try await TestServer.start { await leader.answer($0) }
        var followerServer = try await TestServer.start { await follower.answer($0) }
        leader.append(10)
        let topology = try Self.topology(leader: leaderServer.port, followers: [followerServer.port])
        try await Self.withReplicator(topology) { _, status in
            for _ in 0..<3 {
                try await eventually { follower.applied == leader.history }
                await leaderServer.stop()
                try await eventually { try await status().shards[0].leaderError != nil }
                leader.state.withLock { $0.term += 1 }
                leader.append(10)
                let leaderPort = leaderServer.port
                leaderServer = try await TestServer.start(port: leaderPort) { await leader.answer($0) }
                try await eventually { follower.applied == leader.history }

                await followerServer.stop()
                leader.append(5)
                try await eventually { try await status().shards[0].followers[0].lastError != nil }
                // It comes back with less than it had said.
                follower.state.withLock { $0.applied.removeLast(7) }
                let followerPort = followerServer.port
                followerServer = try await TestServer.start(port: followerPort) { await follower.answer($0) }
                try await eventually { follower.applied == leader.history }
            }
            try await eventually { try await status().shards[0].leaderError == nil }
        }
        await leaderServer.stop()
        await followerServer.stop()
    }

    @Test func whereTheLeaderGivesNoSnapshotThatIsShownAndTheFollowerWatched() async throws {
        let leader = FakeLeader()
        let follower = FakeFollower()
        let servers = [
            try await TestServer.start { await leader.answer($0) },
            try await TestServer.start { await follower.answer($0) },
        ]
        leader.append(50)
        leader.state.withLock { $0.firstRetained = 20 }
        let topology = try Self.topology(leader: servers[0].port, followers: [servers[1].port])
        try await Self.withReplicator(topology) { _, status in
            try await eventually {
                let follower = try await status().shards[0].followers[0]
                return follower.state == .snapshot
                    && follower.lastError?.hasPrefix("opening a snapshot at the leader: ") == true
            }
            #expect(follower.applied.isEmpty)
            follower.state.withLock { $0.applied = Array(leader.history[..<30]) }
            try await eventually { follower.applied == leader.history }
            try await eventually { try await status().shards[0].followers[0].state == .replicate }
        }
        for server in servers { await server.stop() }
    }

    @Test func aBacklogOfManyBatchesAndOfLargeOnesArrives() async throws {
        let leader = FakeLeader()
        let follower = FakeFollower()
        let servers = [
            try await TestServer.start { await leader.answer($0) },
            try await TestServer.start { await follower.answer($0) },
        ]
        var limits = ReplicationLimits()
        limits.batchBytesMax = 64 << 10
        limits.inFlightBytesMax = 128 << 10
        limits.windowBytesMax = 256 << 10
        leader.append(2_000, batchBytes: 200)
        leader.append(3, batchBytes: 700_000)
        leader.append(10)
        let topology = try Self.topology(leader: servers[0].port, followers: [servers[1].port])
        try await Self.withReplicator(topology, limits: limits) { _, status in
            try await eventually { follower.applied == leader.history }
            // Once more through the feed.
            leader.append(2, batchBytes: 700_000)
            leader.append(500, batchBytes: 200)
            try await eventually { follower.applied == leader.history }
            #expect(try await status().shards[0].followers[0].state == .replicate)
        }
        #expect(follower.state.withLock { $0.gapCount } == 0)
        for server in servers { await server.stop() }
    }

    @Test func followersThatHangDoNotHoldUpOneThatCatchesUp() async throws {
        let leader = FakeLeader()
        let hanging = (0..<4).map { _ in FakeFollower() }
        for follower in hanging { follower.state.withLock { $0.ignoresPushes = true } }
        let follower = FakeFollower()
        let leaderServer = try await TestServer.start { await leader.answer($0) }
        var servers: [TestServer] = []
        for each in hanging + [follower] { servers.append(try await TestServer.start { await each.answer($0) }) }
        var limits = ReplicationLimits()
        limits.batchBytesMin = 10_000
        limits.followersBytesMax = 100_000
        limits.pushTimeout = .milliseconds(300)
        leader.append(1_000, batchBytes: 200)
        leader.append(5, batchBytes: 100_000)
        leader.append(1_000, batchBytes: 200)
        let topology = try Self.topology(leader: leaderServer.port, followers: servers.map(\.port))
        try await Self.withReplicator(topology, limits: limits) { _, status in
            try await eventually { follower.applied == leader.history }
            #expect(try await status().shards[0].followers[..<4].allSatisfy { $0.lsn == 0 })
        }
        #expect(hanging.allSatisfy { $0.applied.isEmpty })
        for server in servers + [leaderServer] { await server.stop() }
    }

    @Test func corruptAnswersAndOverloadsAreTriedAgain() async throws {
        let leader = FakeLeader()
        let follower = FakeFollower()
        let servers = [
            try await TestServer.start { await leader.answer($0) },
            try await TestServer.start { await follower.answer($0) },
        ]
        leader.append(5)
        leader.state.withLock { $0.corruptAnswers = 2 }
        follower.state.withLock { $0.overloads = 2 }
        let topology = try Self.topology(leader: servers[0].port, followers: [servers[1].port])
        try await Self.withReplicator(topology) { _, _ in
            try await eventually { follower.applied == leader.history }
            leader.state.withLock { $0.corruptAnswers = 2 }
            leader.append(5)
            try await eventually { follower.applied == leader.history }
        }
        follower.state.withLock { #expect($0.gapCount == 0) }
        for server in servers { await server.stop() }
    }

    @Test func aHigherEpochIsFetchedAndTheNewFollowerFed() async throws {
        let leader = FakeLeader()
        let followers = [FakeFollower(), FakeFollower()]
        let servers = [
            try await TestServer.start { await leader.answer($0) },
            try await TestServer.start { await followers[0].answer($0) },
            try await TestServer.start { await followers[1].answer($0) },
        ]
        leader.append(10)
        let topology = try Self.topology(leader: servers[0].port, followers: [servers[1].port])
        let next = try Self.topology(epoch: 5, leader: servers[0].port, followers: [servers[2].port])
        try await Self.withReplicator(topology) { port, status in
            try await eventually { followers[0].applied == leader.history }
            leader.state.withLock {
                $0.epoch = 5
                $0.topology = next
            }
            try await eventually { followers[1].applied == leader.history }
            let document = try await status()
            #expect(document.epoch == 5)
            #expect(document.shards[0].followers.map(\.address.port) == [servers[2].port])
            leader.append(10)
            try await eventually { followers[1].applied == leader.history }
            #expect(followers[0].applied.count == 10)
        }
        for server in servers { await server.stop() }
    }

    @Test func ownEndpoints() async throws {
        // Nobody listens on port 1: the replicator runs all the same.
        let topology = try Self.topology(leader: 1, followers: [2])
        let client = try CurlClient()
        try await Self.withReplicator(topology) { port, status in
            #expect(try await Self.get(client, port, "/healthz").status == 200)
            try await eventually { try await Self.get(client, port, "/readyz").status == 200 }
            let document = try await Self.get(client, port, "/topology")
            #expect(try Topology(json: document.body.readableBytesView) == topology)
            #expect(document.header("kv-epoch") == "1")
            #expect(document.header("content-type") == "application/json")

            try await eventually { try await status().shards.first?.leaderError != nil }
            let reported = try await status()
            #expect(reported.role == "replicator" && reported.version == "1.2.3" && reported.epoch == 1)
            #expect(reported.shards[0].followers[0].state == .probe)

            let metrics = try await Self.get(client, port, "/metrics")
            let text = String(buffer: metrics.body)
            #expect(text.contains("distribkv_replicator_leader_up{shard=\"shard-0\"} 0\n"))
            #expect(text.contains("distribkv_replicator_lag_batches{follower=\"127.0.0.1:2\",shard=\"shard-0\"} 0\n"))
            #expect(text.contains("# TYPE distribkv_replicator_pushed_batches_total counter\n"))

            let unknown = try await Self.get(client, port, "/kv/a")
            #expect(unknown.status == 404 && unknown.header("content-type") == "application/problem+json")
            let wrong = try await Self.get(client, port, "/status", .post)
            #expect(wrong.status == 405 && wrong.header("allow") == "GET, HEAD")
            #expect(wrong.header("kv-epoch") == "1")
        }
        await client.shutdown()
    }

    @Test func anAddressInUseIsOneClearError() async throws {
        let server = try await TestServer.start { _ in nil }
        var logger = Logger(label: "replicator-test")
        logger.logLevel = .critical
        let replicator = try Replicator(
            configuration: ReplicatorConfiguration(
                topology: try Self.topology(leader: 1, followers: []),
                listen: NodeAddress(host: "127.0.0.1", port: server.port), version: "1", logger: logger))
        await #expect {
            try await replicator.run()
        } throws: { error in
            (error as? KVError)?.code == .unavailable
                && (error as? KVError)?.message.contains("127.0.0.1:\(server.port)") == true
        }
        await server.stop()
    }
}
