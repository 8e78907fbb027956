import Core
import FoundationEssentials
import LSM
import NIOCore
import Synchronization
import TestSupport
import Testing
import Wire

@testable import Shard

/// Leadership that moves between replicas on disk.
@Suite struct LeadershipTests {
    private let other = NodeAddress(host: "127.0.0.1", port: 7002)

    /// What a replica's directory holds at this moment, as a machine that is killed now would leave it.
    private func crashed(_ configuration: ShardConfiguration, as name: String) throws -> ShardConfiguration {
        var copy = configuration
        copy.directory += "-\(name)"
        try FileManager.default.copyItem(atPath: configuration.directory, toPath: copy.directory)
        return copy
    }

    @Test func aPromiseSurvivesACrash() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.node = NodeAddress(host: "127.0.0.1", port: 7001)
        let replica = try ShardReplica.openTest(configuration)
        _ = try await replica.write([put("a", "1")])
        let position = replica.position
        try await replica.fence(term: 7, candidate: other)
        #expect(replica.role == .follower(term: 7) && replica.newestTerm == 7)
        #expect(throws: KVError.self) { try replica.submit([put("b", "1")]) { _ in } }
        let copy = try crashed(configuration, as: "killed")
        try await replica.close()
        for configuration in [configuration, copy] {
            let again = try ShardReplica.openTest(configuration)
            #expect(again.role == .follower(term: 7) && again.position == position)
            try await again.fence(term: 7, candidate: other)
            let late = await again.apply([], leaderTerm: 6)
            #expect(late.failure?.code == .staleTerm)
            let error = await #expect(throws: KVError.self) {
                try await again.fence(term: 7, candidate: NodeAddress(host: "127.0.0.1", port: 7003))
            }
            #expect(error?.code == .staleTerm && error?.message.contains("127.0.0.1:7002") == true)
            try await again.close()
        }
        let file = configuration.directory + "/FENCE"
        let text = String(decoding: try #require(FileManager.default.contents(atPath: file)), as: UTF8.self)
        #expect(
            text.hasPrefix("distribKV term promise, format 2\nterm = 7\ncandidate = 127.0.0.1:7002\ncrc32c = "))
        for damaged in [
            "", "distribKV", text.replacing("7002", with: "x"), text.replacing("= 7\n", with: "= -7\n"),
            text.replacing("= 7\n", with: "= 5\n"),
        ] {
            try Data(damaged.utf8).write(to: URL(filePath: file))
            let error = #expect(throws: KVError.self) { _ = try ShardReplica.openTest(configuration) }
            #expect(error?.code == .corrupted && error?.message.contains("FENCE") == true, "\(damaged)")
        }
    }

    @Test func aNewLeaderIsRememberedAcrossACrash() async throws {
        let directory = try TemporaryDirectory()
        let configuration = ShardConfiguration.test(directory)
        let replica = try ShardReplica.openTest(configuration)
        let outcome = await replica.apply([], leaderTerm: 3)
        #expect(outcome.failure == nil && replica.role == .follower(term: 3))
        let again = try ShardReplica.openTest(try crashed(configuration, as: "killed"))
        #expect(again.role == .follower(term: 3) && again.newestTerm == 3)
        #expect(try again.readAll().count == 1, "the barrier of its own term, no other")
        try await again.close()
        try await replica.close()
    }

    @Test func historiesSayWhereTermsBegin() async throws {
        let directory = try TemporaryDirectory()
        let replica = try ShardReplica.openTest(.test(directory), role: .follower(term: 1))
        #expect(try replica.history() == TermHistory(starts: [], end: .start))
        var starts: [TermStart] = []
        for term: UInt64 in [2, 3, 300] {
            let before = replica.position
            try await replica.become(.leader(term: term))
            starts.append(TermStart(term: term, firstLsn: before.lsn + 1, previousVersion: before.version))
            #expect(try replica.history() == TermHistory(starts: starts, end: replica.position))
            for _ in 0..<term % 5 { _ = try await replica.write([put("a", "1"), put("b", "1")]) }
        }
        #expect(try replica.history() == TermHistory(starts: starts, end: replica.position))
        try await replica.close()
        let again = try ShardReplica.openTest(.test(directory), role: .leader(term: 300))
        #expect(try again.history() == TermHistory(starts: starts, end: again.position))
        try await again.close()
        #expect(throws: KVError.self) { try again.history() }
    }

    private func barrier(_ position: LogPosition, value: [UInt8]) -> LogFrame {
        var builder = WriteBatchBuilder()
        builder.putPosition(position)
        SystemRecords.termStartKey(position.term).withUnsafeBytes { key in
            value.withUnsafeBytes { builder.putRaw(key: key, value: $0) }
        }
        return LogFrame(position: position, batch: builder.finish())
    }

    @Test func termStartsOfTheOlderFormatAreRead() async throws {
        let directory = try TemporaryDirectory()
        let follower = try ShardReplica.openTest(.test(directory), role: .follower(term: 1))
        let first = LogPosition(term: 1, lsn: 1, version: Version(rawValue: 50))
        let second = LogPosition(term: 2, lsn: 2, version: Version(rawValue: 60))
        let old = [barrier(first, value: [0, 0, 0, 0, 0, 0, 0, 1]), barrier(second, value: [0, 0, 0, 0, 0, 0, 0, 2])]
        let outcome = await follower.apply(old, leaderTerm: 2)
        #expect(outcome.failure == nil && outcome.position == second)
        #expect(
            try follower.history()
                == TermHistory(
                    starts: [
                        TermStart(term: 1, firstLsn: 1, previousVersion: .zero),
                        TermStart(term: 2, firstLsn: 2, previousVersion: .zero),
                    ], end: second))
        let third = LogPosition(term: 3, lsn: 3, version: Version(rawValue: 70))
        for (value, expected) in [
            ([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 59], KVError.Code.diverged),
            ([0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 60], .corrupted), ([0, 0, 0, 3], .corrupted),
        ] as [([UInt8], KVError.Code)] {
            let refused = await follower.apply([barrier(third, value: value)], leaderTerm: 3)
            #expect(refused.failure?.code == expected && refused.position == second)
        }
        let fitting = await follower.apply(
            [barrier(third, value: [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 60])], leaderTerm: 3)
        #expect(fitting.failure == nil && fitting.position == third)
        try await follower.close()
    }

    @Test func heldWritesFailTogetherAfterAHandover() async throws {
        let directory = try TemporaryDirectory()
        let replica = try ShardReplica.openTest(.test(directory))
        _ = try await replica.write([put("a", "1")])
        let hold = try await replica.hold(milliseconds: 5_000)
        let receipts = Collector<WriteReceipt>()
        for _ in 0..<5 { try replica.submit([put("a", "2")]) { receipts.add($0) } }
        let reads = Collector<Result<LogPosition, KVError>>()
        guard case .waiting = try replica.log.waitForCommit(after: hold.position.lsn, { reads.add($0) }) else {
            Issue.record("something was committed during the hold")
            return
        }
        try await replica.become(.follower(term: 2), during: hold)
        #expect(replica.role == .leader(term: 1) && replica.newestTerm == 2 && receipts.all.isEmpty)
        #expect(reads.all.isEmpty)
        try replica.submit([put("a", "2")]) { receipts.add($0) }
        await replica.release(hold)
        try await eventually { receipts.all.count == 6 }
        #expect(receipts.all.allSatisfy { $0.failure?.code == .notLeader && $0.committed == 0 })
        #expect(replica.role == .follower(term: 2) && replica.position == hold.position)
        // Whoever follows its log reads on at the next leader.
        #expect(reads.all.count == 1)
        #expect(throws: KVError.self) { try reads.all[0].get() }
        try await replica.close()
    }

    @Test func aHoldEndsWhenItsTimeIsOver() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.holdMillisecondsMax = 20
        let replica = try ShardReplica.openTest(configuration)
        let hold = try await replica.hold(milliseconds: 60_000)
        let receipt = try await replica.write([put("a", "1")])
        #expect(receipt.failure == nil && replica.position.lsn == hold.position.lsn + 1)
        await replica.release(hold)
        try await replica.close()
    }

    @Test func aCloseEndsAHold() async throws {
        let directory = try TemporaryDirectory()
        let replica = try ShardReplica.openTest(.test(directory))
        let hold = try await replica.hold(milliseconds: 5_000)
        let receipts = Collector<WriteReceipt>()
        try replica.submit([put("a", "1")]) { receipts.add($0) }
        try await replica.close()
        #expect(receipts.all.count == 1 && receipts.all[0].failure == nil, "what was accepted is answered")
        await replica.release(hold)
        for change in [
            { try await replica.become(.leader(term: 2)) }, { _ = try await replica.hold(milliseconds: 1) },
            { try await replica.fence(term: 2, candidate: other) }, { _ = try await replica.digest() },
        ] as [() async throws -> Void] {
            let error = await #expect(throws: KVError.self) { try await change() }
            #expect(error?.code == .unavailable)
        }
    }

    /// Leadership wanders between three replicas under writes; every change of leader is a handover. What was
    /// acknowledged is there at the end, everywhere.
    @Test(arguments: [UInt64(1), 2]) func leadershipWandersWithoutLoss(seed: UInt64) async throws {
        var generator = SeededGenerator(seed: seed)
        let directory = try TemporaryDirectory()
        let replicas = try (0..<3).map { index in
            var configuration = ShardConfiguration.test(directory, name: "shard-0")
            configuration.directory = directory.path + "/\(index)"
            configuration.ringBytesMax = 4_000
            return try ShardReplica.openTest(
                configuration, role: index == 0 ? .leader(term: 1) : .follower(term: 1))
        }
        func push(from leader: ShardReplica, to follower: ShardReplica, bytesMax: Int) async throws {
            let answer = try leader.log.readFromDisk(after: follower.position, bytesMax: bytesMax)
            guard case .frames(var buffer, _) = answer else { return }
            var frames: [LogFrame] = []
            while let frame = try LogFrame.decode(from: &buffer) { frames.append(frame) }
            let outcome = await follower.apply(frames, leaderTerm: leader.role.term)
            #expect(outcome.failure == nil, "seed \(seed)")
        }
        var leader = 0
        var acknowledged: [String: Version] = [:]
        for round in 0..<300 {
            switch Int.random(in: 0..<10, using: &generator) {
            case 0..<6:
                let key = "key-\(Int.random(in: 0..<50, using: &generator))"
                let receipt = try await replicas[leader].write([put(key, "\(round)")])
                let version = try #require(receipt.version(at: 0))
                #expect(version > acknowledged.values.max() ?? .zero, "seed \(seed)")
                acknowledged[key] = version
            case 6..<9:
                let follower = (leader + Int.random(in: 1...2, using: &generator)) % 3
                let bytesMax = Int.random(in: 1...2_000, using: &generator)
                try await push(from: replicas[leader], to: replicas[follower], bytesMax: bytesMax)
            default:
                let next = (leader + Int.random(in: 1...2, using: &generator)) % 3
                let term = replicas.map(\.newestTerm).max().map { $0 + 1 } ?? 1
                let hold = try await replicas[leader].hold(milliseconds: 5_000)
                while replicas[next].position != hold.position {
                    try await push(from: replicas[leader], to: replicas[next], bytesMax: 10_000)
                }
                try await replicas[leader].become(.follower(term: term), during: hold)
                try await replicas[next].become(.leader(term: term))
                await replicas[leader].release(hold)
                leader = next
            }
        }
        for follower in 0..<3 where follower != leader {
            while replicas[follower].position != replicas[leader].position {
                try await push(from: replicas[leader], to: replicas[follower], bytesMax: 10_000)
            }
        }
        let history = try replicas[leader].history()
        let digest = try await replicas[leader].digest()
        for replica in replicas {
            #expect(try replica.history() == history, "seed \(seed)")
            let own = try await replica.digest(
                expiringAfter: digest.expiringAfter, at: replicas[leader].position.lsn)
            #expect(own == digest, "seed \(seed)")
            #expect(try replica.content() == replicas[leader].content())
        }
        let found = try replicas[leader].content().map { $0.split(separator: " ") }
        let versions = Dictionary(uniqueKeysWithValues: found.map { (String($0[0]), Version(hexDigits: $0[1])) })
        #expect(versions == acknowledged.mapValues(Optional.some), "seed \(seed)")
        for replica in replicas { try await replica.close() }
    }
}
