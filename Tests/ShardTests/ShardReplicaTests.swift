import Core
import LSM
import NIOCore
import Synchronization
import TestSupport
import Testing
import Wire

@testable import Shard

@Suite struct ShardReplicaTests {
    @Test func whatArrivesDuringAWriteSharesTheNext() async throws {
        let directory = try TemporaryDirectory()
        let sink = Mutex<TwinSink?>(nil)
        let replica = try ShardReplica.openTest(.test(directory)) { database in
            let twin = TwinSink(behind: database)
            sink.withLock { $0 = twin }
            return twin
        }
        let twin = try #require(sink.withLock { $0 })
        let receipts = Collector<(Int, WriteReceipt)>()
        twin.hold()
        try replica.submit([put("first", "1")]) { receipts.add((0, $0)) }
        try await eventually { twin.waiting == 1 }
        for id in 1...20 {
            try replica.submit([put("k\(id)", "\(id)"), delete("first")]) { receipts.add((id, $0)) }
        }
        twin.release()
        try await eventually { receipts.all.count == 21 }
        #expect(receipts.all.map(\.0) == Array(0...20))
        // The barrier, the held write, everything else.
        #expect(twin.state.withLock { $0.batches.count } == 3)
        #expect(Set(receipts.all[1...].map(\.1.position.lsn)) == [3])
        try await replica.close()
    }

    @Test func aReopenedReplicaGoesOnWhereItWas() async throws {
        let directory = try TemporaryDirectory()
        let clock = ManualClock()
        var last = LogPosition.start
        var content: [String] = []
        for term in [UInt64(1), 1, 4] {
            let replica = try ShardReplica.openTest(
                .test(directory), role: .leader(term: term), clock: clock.clock)
            #expect(replica.position.term == term)
            #expect(replica.position.lsn == last.lsn + (term > last.term ? 1 : 0))
            #expect(try replica.content() == content)
            clock.setWall(10)
            let receipt = try await replica.write([put("key-\(last.lsn)", "v"), put("same", "\(last.lsn)")])
            let version = try #require(receipt.version(at: 0))
            #expect(version > last.version)
            last = replica.position
            #expect(receipt.position == last)
            content = try replica.content()
            try await replica.close()
        }
        #expect(content.count == 4)
        for role in [ShardRole.leader(term: 3), .follower(term: 3)] {
            let stale = try ShardReplica.openTest(.test(directory), role: role)
            #expect(stale.role == .follower(term: 4), "the log knows better")
            #expect(throws: KVError.self) { try stale.submit([put("a", "1")]) { _ in } }
            try await stale.close()
        }
    }

    @Test func theBarrierCarriesPositionAndTermStartOnly() async throws {
        let directory = try TemporaryDirectory()
        let replica = try ShardReplica.openTest(.test(directory), role: .leader(term: 2))
        let frames = try replica.readAll()
        #expect(frames.count == 1)
        try frames[0].batch.withUnsafeReadableBytes { bytes in
            try LogBatch.validate(bytes, is: replica.position, after: .start)
        }
        #expect(
            try replica.database.record(at: SystemRecords.termStartKey(2)) == [0, 0, 0, 0, 0, 0, 0, 1]
                + [UInt8](repeating: 0, count: 8))
        try await replica.close()
    }

    @Test func aDirectoryBelongsToOneShard() async throws {
        let directory = try TemporaryDirectory()
        let configuration = ShardConfiguration.test(directory)
        let replica = try ShardReplica.openTest(configuration)
        try await replica.close()
        var other = configuration
        other.name = "shard-1"
        let shard = #expect(throws: KVError.self) { _ = try ShardReplica.openTest(other) }
        #expect(shard?.code == .invalidConfiguration)
        #expect(shard?.message.contains("shard = shard-0") == true)
        other = configuration
        other.cluster = "another"
        let cluster = #expect(throws: KVError.self) { _ = try ShardReplica.openTest(other) }
        #expect(cluster?.code == .invalidConfiguration)
    }

    @Test func aFailedWriteLeavesReadsAndTheRestartWorks() async throws {
        let directory = try TemporaryDirectory()
        let sink = Mutex<TwinSink?>(nil)
        let replica = try ShardReplica.openTest(.test(directory)) { database in
            let twin = TwinSink(behind: database)
            sink.withLock { $0 = twin }
            return twin
        }
        _ = try await replica.write([put("a", "1")])
        let position = replica.position
        sink.withLock { twin in twin?.state.withLock { $0.failWrites = KVError(.storageFull, "no space left") } }
        let receipt = try await replica.write([put("a", "2")])
        #expect(receipt.failure?.code == .storageFull)
        #expect(replica.failure?.code == .storageFull)
        #expect(throws: KVError.self) { try replica.submit([put("b", "1")]) { _ in } }
        #expect(try replica.content().count == 1)
        #expect(replica.position == position)
        #expect(try replica.readAll().last?.position == position)
        try await replica.close()
        let again = try ShardReplica.openTest(.test(directory))
        let second = try await again.write([put("a", "3")])
        #expect(second.failure == nil)
        #expect(again.position.lsn == position.lsn + 1)
        try await again.close()
    }

    @Test func aClosedReplicaRefusesAndEndsWaits() async throws {
        let directory = try TemporaryDirectory()
        let replica = try ShardReplica.openTest(.test(directory))
        let ended = Collector<Result<LogPosition, KVError>>()
        guard case .waiting = try replica.log.waitForCommit(after: 1, { ended.add($0) }) else {
            Issue.record("lsn 2 is not committed")
            return
        }
        let receipts = Collector<WriteReceipt>()
        try replica.submit([put("a", "1")]) { receipts.add($0) }
        try await replica.close()
        #expect(receipts.all.count == 1 && receipts.all[0].failure == nil, "what was accepted is answered")
        #expect(ended.all.count == 1)
        #expect(throws: KVError.self) { try replica.submit([put("a", "1")]) { _ in } }
        #expect(throws: KVError.self) { try replica.content() }
        #expect(throws: KVError.self) { _ = try replica.log.waitForCommit(after: 9) { ended.add($0) } }
        #expect(throws: KVError.self) { try replica.log.lookUpFirstLsn() }
        let outcome = await replica.apply([], leaderTerm: 9)
        #expect(outcome.failure?.code == .unavailable)
    }

    @Test func followersTakeNoWritesAndLeadersNoFrames() async throws {
        let directory = try TemporaryDirectory()
        let follower = try ShardReplica.openTest(.test(directory), role: .follower(term: 1))
        let error = #expect(throws: KVError.self) { try follower.submit([put("a", "1")]) { _ in } }
        #expect(error?.code == .notLeader)
        try await follower.close()
        let leader = try ShardReplica.openTest(.test(directory, name: "other"))
        let outcome = await leader.apply([], leaderTerm: 1)
        #expect(outcome.failure?.code == .staleTerm)
        try await leader.close()
    }

    @Test func manyThreadsAtOnce() async throws {
        let directory = try TemporaryDirectory()
        let replica = try ShardReplica.openTest(.test(directory))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for task in 0..<8 {
                group.addTask {
                    for index in 0..<200 {
                        let receipt = try await replica.write([
                            put("\(task)-\(index)", "v"), put("\(task)", "\(index)"),
                        ])
                        guard receipt.committed == 2, receipt.failure == nil else { throw DeadlineExceeded() }
                    }
                }
            }
            try await group.waitForAll()
        }
        let content = try replica.content()
        #expect(content.count == 8 * 201)
        #expect(content.filter { $0.hasSuffix(" 199") }.count == 8)
        let versions = try replica.readAll().map(\.position.version)
        #expect(versions == versions.sorted())
        let status = try replica.status()
        #expect(status.position == replica.position && status.failure == nil && status.logFirstLsn == 1)
        try await replica.close()
    }
}
