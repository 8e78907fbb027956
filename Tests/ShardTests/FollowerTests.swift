import Core
import LSM
import NIOCore
import Synchronization
import TestSupport
import Testing
import Wire

@testable import Shard

@Suite struct FollowerTests {
    private struct Pair {
        var leader: ShardReplica
        var follower: ShardReplica

        func close() async throws {
            try await leader.close()
            try await follower.close()
        }
    }

    private func pair(_ directory: TemporaryDirectory, sink: (Database) -> any WriteSink = { $0 }) throws -> Pair {
        var configuration = ShardConfiguration.test(directory)
        configuration.directory += "-leader"
        let leader = try ShardReplica.openTest(configuration)
        configuration.directory = directory.path + "/follower"
        configuration.ringBytesMax = 2_000
        let follower = try ShardReplica.openTest(configuration, role: .follower(term: 1), sink: sink)
        return Pair(leader: leader, follower: follower)
    }

    @Test func framesAreAppliedExactlyOnce() async throws {
        let directory = try TemporaryDirectory()
        let sink = Mutex<TwinSink?>(nil)
        let pair = try pair(directory) { database in
            let twin = TwinSink(behind: database)
            sink.withLock { $0 = twin }
            return twin
        }
        for index in 0..<10 { _ = try await pair.leader.write([put("k\(index)", "v"), delete("k\(index - 2)")]) }
        let frames = try pair.leader.readAll()
        #expect(frames.count == 11)
        let first = await pair.follower.apply(Array(frames[..<6]), leaderTerm: 1)
        #expect(first.failure == nil && first.position == frames[5].position)
        // All again, and more.
        let second = await pair.follower.apply(Array(frames[2...]), leaderTerm: 1)
        #expect(second.failure == nil && second.position == pair.leader.position)
        let third = await pair.follower.apply(frames, leaderTerm: 1)
        #expect(third.failure == nil && third.position == pair.leader.position)
        #expect(try pair.follower.content() == pair.leader.content())
        // Each push was one RocksDB write; the last wrote nothing.
        #expect(sink.withLock { $0?.state.withLock { $0.batches.count } } == 2)
        // Joined batches come apart again, byte for byte.
        #expect(try pair.follower.readAll() == frames)
        #expect(pair.follower.position == pair.leader.position)
        try await pair.close()
    }

    @Test func joinsAreBounded() async throws {
        let directory = try TemporaryDirectory()
        var configuration = ShardConfiguration.test(directory)
        configuration.applyBatchesMax = 4
        let sink = TwinSink()
        let follower = try ShardReplica.openTest(configuration, role: .follower(term: 1)) { _ in sink }
        let leader = try ShardReplica.openTest(.test(directory, name: "leader"))
        for index in 0..<9 { _ = try await leader.write([put("k\(index)", "v")]) }
        let outcome = await follower.apply(try leader.readAll(), leaderTerm: 1)
        #expect(outcome.failure == nil)
        #expect(sink.state.withLock { $0.batches.count } == 3)
        try await leader.close()
        try await follower.close()
    }

    @Test func whatDoesNotFitIsRefusedWhole() async throws {
        let directory = try TemporaryDirectory()
        let pair = try pair(directory)
        for index in 0..<10 { _ = try await pair.leader.write([put("k\(index)", "v")]) }
        let frames = try pair.leader.readAll()
        let begun = await pair.follower.apply(Array(frames[..<3]), leaderTerm: 1)
        let position = begun.position

        func refused(_ frames: [LogFrame], _ term: UInt64 = 1) async -> KVError.Code? {
            let outcome = await pair.follower.apply(frames, leaderTerm: term)
            #expect(outcome.position == position)
            return outcome.failure?.code
        }
        #expect(await refused([frames[4]]) == .logMismatch)
        #expect(await refused([frames[3], frames[5]]) == .logMismatch)
        #expect(await refused([frames[3]], 0) == .staleTerm)
        var damaged = frames[3]
        damaged.batch.setInteger(UInt8(0x7E), at: damaged.batch.readerIndex + 12)
        #expect(await refused([damaged]) == .corrupted)
        var wrongPosition = frames[3]
        wrongPosition.position.version = Version(rawValue: wrongPosition.position.version.rawValue + 1)
        #expect(await refused([wrongPosition]) == .corrupted)
        var stranger = frames[1]
        stranger.position.version = Version(rawValue: stranger.position.version.rawValue + 1)
        #expect(await refused([stranger, frames[2], frames[3]]) == .diverged)
        var newer = frames[2]
        newer.position.term = 2
        #expect(await refused([newer, frames[3]], 2) == .diverged)
        // Term 2 has been seen by now.
        #expect(await refused([frames[3]], 1) == .staleTerm)
        var future = frames[3]
        future.position.term = 3
        #expect(await refused([future], 2) == .corrupted)
        let fitting = await pair.follower.apply(Array(frames[3...]), leaderTerm: 2)
        #expect(fitting.failure == nil && fitting.position == pair.leader.position)
        try await pair.close()
    }

    @Test func aNewTermNeedsItsBarrier() async throws {
        let directory = try TemporaryDirectory()
        let pair = try pair(directory)
        _ = try await pair.leader.write([put("a", "1")])
        _ = await pair.follower.apply(try pair.leader.readAll(), leaderTerm: 1)
        let next = LogPosition(term: 2, lsn: 3, version: Version(rawValue: pair.leader.position.version.rawValue + 1))
        var withoutBarrier = WriteBatchBuilder()
        withoutBarrier.putPosition(next)
        withoutBarrier.put(key: ByteBuffer(string: "a"), version: next.version, value: ByteBuffer(string: "2"))
        let refused = await pair.follower.apply(
            [LogFrame(position: next, batch: withoutBarrier.finish())], leaderTerm: 2)
        #expect(refused.failure?.code == .corrupted)
        var barrier = WriteBatchBuilder()
        barrier.putPosition(next)
        barrier.putTermStart(TermStart(term: 2, firstLsn: 3, previousVersion: pair.leader.position.version))
        let taken = await pair.follower.apply([LogFrame(position: next, batch: barrier.finish())], leaderTerm: 2)
        #expect(taken.failure == nil && taken.position == next)
        try await pair.close()
    }

    @Test func reservedKeysAreRefused() async throws {
        let directory = try TemporaryDirectory()
        let pair = try pair(directory)
        _ = await pair.follower.apply(try pair.leader.readAll(), leaderTerm: 1)
        let next = LogPosition(term: 1, lsn: 2, version: Version(rawValue: .max))
        for key in [[0x00, 0x70], [0x00, 0x78], [0x02, 0x61], [0x01]] as [[UInt8]] {
            var builder = WriteBatchBuilder()
            builder.putPosition(next)
            let value = [UInt8](repeating: 0, count: 24)
            key.withUnsafeBytes { key in value.withUnsafeBytes { builder.putRaw(key: key, value: $0) } }
            let outcome = await pair.follower.apply(
                [LogFrame(position: next, batch: builder.finish())], leaderTerm: 1)
            #expect(outcome.failure?.code == .corrupted)
        }
        try await pair.close()
    }

    /// No damaged frame passes its checksum, and a batch whose header is damaged is refused without one too; the
    /// replica goes on either way.
    @Test(arguments: [UInt64(11), 12]) func damagedBatchesNeverMoveThePosition(seed: UInt64) async throws {
        var generator = SeededGenerator(seed: seed)
        let directory = try TemporaryDirectory()
        let pair = try pair(directory)
        _ = try await pair.leader.write([put("key", "value"), delete("other")])
        let frames = try pair.leader.readAll()
        _ = await pair.follower.apply([frames[0]], leaderTerm: 1)
        for round in 0..<1_500 {
            var encoded = ByteBuffer()
            frames[1].encode(into: &encoded)
            let bit = Int.random(in: 0..<encoded.readableBytes * 8, using: &generator)
            let byte = encoded.getInteger(at: bit / 8, as: UInt8.self) ?? 0
            encoded.setInteger(byte ^ (1 << (bit % 8)), at: bit / 8)
            if round % 5 == 0 { encoded = encoded.getSlice(at: 0, length: bit / 8) ?? encoded }
            // Frames that fail their checksum never reach a replica: decoding refuses them.
            let decoded = try? LogFrame.decode(from: &encoded)
            #expect((decoded ?? nil) == nil, "seed \(seed) bit \(bit)")
            // Without the checksum, the batch's own checks have to hold.
            var batch = frames[1].batch
            let inBatch = bit % (12 * 8)
            let old = batch.getInteger(at: batch.readerIndex + inBatch / 8, as: UInt8.self) ?? 0
            batch.setInteger(old ^ (1 << (inBatch % 8)), at: batch.readerIndex + inBatch / 8)
            let outcome = await pair.follower.apply(
                [LogFrame(position: frames[1].position, batch: batch)], leaderTerm: 1)
            #expect(outcome.failure?.code == .corrupted, "seed \(seed) bit \(inBatch) of the batch header")
            #expect(outcome.position == frames[0].position)
        }
        let sound = await pair.follower.apply([frames[1]], leaderTerm: 1)
        #expect(sound.failure == nil)
        #expect(try pair.follower.content() == pair.leader.content())
        try await pair.close()
    }

    /// Random writes on a leader, random pushes (repeated, cut, reordered) and restarts of both; then the follower
    /// equals the leader.
    @Test(arguments: [UInt64(1), 2, 3]) func aFollowerEndsAsItsLeader(seed: UInt64) async throws {
        var generator = SeededGenerator(seed: seed)
        let directory = try TemporaryDirectory()
        var configurations = (0..<2).map { _ in ShardConfiguration.test(directory) }
        for index in 0..<2 {
            configurations[index].directory = directory.path + "/\(index)"
            configurations[index].memtableBytesEach = 64 << 10
            configurations[index].ringBytesMax = [5_000, 100][index]
            configurations[index].batchOperationsMax = 8
        }
        var term: UInt64 = 1
        var leader = try ShardReplica.openTest(configurations[0], role: .leader(term: term))
        var follower = try ShardReplica.openTest(configurations[1], role: .follower(term: term))
        var content: [String: String] = [:]
        for _ in 0..<400 {
            switch Int.random(in: 0..<100, using: &generator) {
            case 0..<50:
                let operations = (0..<Int.random(in: 1...20, using: &generator)).map { _ in
                    let key = "key-\(Int.random(in: 0..<40, using: &generator))"
                    guard Int.random(in: 0..<4, using: &generator) > 0 else {
                        content[key] = nil
                        return delete(key)
                    }
                    let value = String(repeating: "v", count: Int.random(in: 0..<400, using: &generator))
                    content[key] = value
                    return put(key, value)
                }
                let receipt = try await leader.write(operations)
                #expect(receipt.committed == operations.count)
            case 50..<95:
                let bytesMax = Int.random(in: 1...20_000, using: &generator)
                let answer = try leader.log.readFromDisk(after: follower.position, bytesMax: bytesMax)
                guard case .frames(var buffer, _) = answer else { continue }
                var frames: [LogFrame] = []
                while let frame = try LogFrame.decode(from: &buffer) { frames.append(frame) }
                let isShuffled = Int.random(in: 0..<10, using: &generator) == 0
                if isShuffled { frames.shuffle(using: &generator) }
                for _ in 0...Int.random(in: 0...1, using: &generator) {
                    let outcome = await follower.apply(frames, leaderTerm: term)
                    #expect(
                        outcome.failure == nil || isShuffled, "seed \(seed): \(String(describing: outcome.failure))")
                }
            case 95..<98:
                try await follower.close()
                follower = try ShardReplica.openTest(configurations[1], role: .follower(term: term))
            default:
                try await leader.close()
                term += 1
                leader = try ShardReplica.openTest(configurations[0], role: .leader(term: term))
            }
        }
        let rest = try leader.readAll(after: follower.position)
        let outcome = await follower.apply(rest, leaderTerm: term)
        #expect(outcome.failure == nil && outcome.position == leader.position, "seed \(seed)")
        #expect(try follower.content() == leader.content(), "seed \(seed)")
        let found = try leader.content().map { $0.split(separator: " ", omittingEmptySubsequences: false) }
        #expect(Dictionary(uniqueKeysWithValues: found.map { (String($0[0]), String($0[2])) }) == content)
        #expect(try follower.readAll() == leader.readAll(), "seed \(seed)")
        try await leader.close()
        try await follower.close()
    }
}
