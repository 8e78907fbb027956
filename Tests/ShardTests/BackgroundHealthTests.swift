import Core
import FoundationEssentials
import Glibc
import LSM
import TestSupport
import Testing

@testable import Shard

@Suite struct BackgroundHealthTests {
    @Test func aFailureIsSaidOnceAndSoIsItsEnd() {
        let health = BackgroundHealth()
        func look(_ errors: UInt64, pending: Bool = false, stopped: String? = nil) -> BackgroundHealth.Change? {
            health.note(Database.BackgroundWork(errors: errors, isPending: pending, stopped: stopped), shard: "s")
        }
        #expect(look(0, pending: true) == nil && health.failure == nil)
        #expect(look(1, pending: true) == .failed("1 flushes or compactions have failed"))
        #expect(look(1, pending: true) == nil && health.failure != nil, "what is due stays due")
        #expect(look(3) == nil && health.failure != nil, "it has just failed again")
        #expect(look(3, stopped: "IO error") == nil)
        #expect(health.failure?.message.contains("IO error") == true)
        #expect(look(3) == .recovered)
        #expect(look(3) == nil && health.failure == nil)
        #expect(look(4, stopped: "IO error") == .failed("IO error"))
    }

    /// Mounts are for the superuser, and not even for that one in every container.
    static let canMount: Bool = {
        guard let folder = try? TemporaryDirectory() else { return false }
        guard mount("tmpfs", folder.path, "tmpfs", 0, "size=1m") == 0 else { return false }
        return umount(folder.path) == 0
    }()

    @Test(.timeLimit(.minutes(2)), .enabled(if: canMount, "mounting a small tmpfs is not allowed here"))
    func aFlushThatFindsTheDiskFullIsNoticedBeforeAWriteIs() async throws {
        let folder = try TemporaryDirectory()
        try #require(mount("tmpfs", folder.path, "tmpfs", 0, "size=24m") == 0)
        defer { umount(folder.path) }
        var configuration = ShardConfiguration(name: "s", cluster: "test", directory: folder.path + "/s")
        configuration.durability = .os
        // RocksDB goes on by itself when there is room for a memtable again.
        configuration.memtableBytesEach = 8 << 20
        let replica = try ShardReplica.openTest(configuration)
        var random = SeededGenerator(seed: 1)
        for number in 0..<40 {
            let value = String(decoding: random.bytes(100_000).map { $0 & 0x7F }, as: UTF8.self)
            #expect(try await replica.write([put("key-\(number)", value)]).failure == nil)
        }
        replica.lookAtBackgroundWork()
        #expect(replica.background.failure == nil)
        // What is left is not enough for the table.
        let filler = folder.path + "/filler"
        let free = try #require(Files.freeBytes(at: folder.path))
        try Files.append(random.bytes(Int(free) - 200_000), to: filler, at: 0)
        #expect(throws: KVError.self) { try replica.database.flush() }
        try await eventually {
            replica.lookAtBackgroundWork()
            return replica.background.failure != nil
        }
        #expect(try #require(replica.background.failure).message.contains("cannot write its tables"))
        #expect(replica.failure == nil, "no write has failed")
        try Files.removeTree(filler)
        let deadline = ContinuousClock.now + .seconds(60)
        while replica.background.failure != nil, ContinuousClock.now < deadline {
            replica.lookAtBackgroundWork()
            await Task.yield()
        }
        #expect(try await replica.write([put("after", "1")]).failure == nil)
        try replica.database.flush()
        #expect(try replica.content().count == 41)
        try await replica.close()
    }
}
