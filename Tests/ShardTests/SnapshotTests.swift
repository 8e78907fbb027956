import Core
import FoundationEssentials
import LSM
import NIOCore
import Synchronization
import TestSupport
import Testing
import Wire

@testable import Shard

@Suite struct SnapshotTests {
    @Test func followerBecomesWhatTheLeaderWas() async throws {
        let pair = try await SnapshotPair.open()
        let (leader, follower) = (pair.leader, try pair.openFollower())
        let manifest = try leader.openSnapshot()
        #expect(try manifest.position.position == leader.position)
        #expect(manifest.files.contains { $0.name == "CURRENT" })
        try await pair.write(200..<220)

        try follower.take(manifest, from: leader)
        #expect(follower.received.progress?.bytesDone == manifest.bytesTotal)
        let (installation, rebuilt) = try await follower.install(manifest.id)
        #expect(installation.diverged == nil)
        #expect(try rebuilt.position == manifest.position.position)
        #expect(rebuilt.received.receipt == nil)

        // It goes on from the leader's log.
        let outcome = await rebuilt.apply(try leader.readAll(after: rebuilt.position), leaderTerm: 1)
        #expect(outcome.failure == nil)
        #expect(try rebuilt.content() == leader.content())
        #expect(try rebuilt.history() == leader.history())
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: rebuilt.configuration.directory).sorted()
                == ["FENCE", "IDENTITY", "JOINING", "SYNCED", "db"])
        try await rebuilt.close()
        try await leader.close()
    }

    @Test func transferGoesOnAfterARestart() async throws {
        let pair = try await SnapshotPair.open()
        var follower = try pair.openFollower()
        let manifest = try pair.leader.openSnapshot()
        var parts = 0
        // One part for each life of the follower.
        while try follower.take(manifest, from: pair.leader, partBytes: 4_000, partsMax: 1) > 0 {
            parts += 1
            let received = follower.received.receipt
            try await follower.close()
            follower = try pair.openFollower()
            #expect(follower.received.receipt == received)
        }
        #expect(parts > manifest.files.count)
        let (_, rebuilt) = try await follower.install(manifest.id)
        #expect(try rebuilt.content() == pair.leader.content())
        try await rebuilt.close()
        try await pair.leader.close()
    }

    // MARK: Damage

    @Test func aDamagedPartIsNotTaken() async throws {
        let pair = try await SnapshotPair.open()
        let follower = try pair.openFollower()
        let manifest = try pair.leader.openSnapshot()
        _ = try follower.beginSnapshot(manifest)
        let file = try #require(manifest.files.first { $0.bytes > 100 })
        var part = try pair.leader.readSnapshot(id: manifest.id, file: file.name, offset: 0, length: 100)
        part.bytes.setInteger(part.bytes.getInteger(at: 50, as: UInt8.self).map { $0 ^ 1 } ?? 0, at: 50)
        let damaged = part
        #expect(
            code {
                _ = try follower.received.append(
                    damaged.bytes, to: file.name, at: 0, id: manifest.id, checksum: damaged.checksum)
            } == .invalidArgument)
        #expect(follower.received.receipt?.files.allSatisfy { $0.received == 0 } == true)
        try follower.take(manifest, from: pair.leader)
        let (_, rebuilt) = try await follower.install(manifest.id)
        #expect(try rebuilt.content() == pair.leader.content())
        try await rebuilt.close()
        try await pair.leader.close()
    }

    @Test func aFileDamagedOnDiskIsReceivedAgain() async throws {
        let pair = try await SnapshotPair.open()
        let follower = try pair.openFollower()
        let manifest = try pair.leader.openSnapshot()
        #expect(code { _ = try follower.verifySnapshot(id: manifest.id) } == .unknownSnapshot)
        try follower.take(manifest, from: pair.leader)
        let index = try #require(manifest.files.firstIndex { $0.name.hasSuffix(".sst") })
        let path = "\(follower.configuration.directory)/db.new/\(manifest.files[index].name)"
        var bytes = try #require(try Files.read(path, bytesMax: 1 << 20))
        bytes[bytes.count / 2] ^= 1
        try Files.removeTree(path)
        try Files.append(bytes, to: path, at: 0)

        #expect(code { _ = try follower.verifySnapshot(id: manifest.id) } == .snapshotMismatch)
        let receipt = try #require(follower.received.receipt)
        for (number, file) in receipt.files.enumerated() {
            #expect(file.received == (number == index ? 0 : manifest.files[number].bytes))
        }
        #expect(try follower.take(manifest, from: pair.leader) > 0)
        let (_, rebuilt) = try await follower.install(manifest.id)
        #expect(try rebuilt.content() == pair.leader.content())
        try await rebuilt.close()
        try await pair.leader.close()
    }

    /// A CURRENT of an earlier transfer would name a manifest file that is not there, or, worse, one that is.
    @Test func nothingOfAnotherSnapshotStays() async throws {
        let clock = ManualClock()
        let pair = try await SnapshotPair.open()
        let follower = try pair.openFollower(clock: clock.clock)
        let first = try pair.leader.openSnapshot()
        try follower.take(first, from: pair.leader)
        try pair.leader.releaseSnapshot(id: first.id)
        try await pair.write(200..<300)
        let second = try pair.leader.openSnapshot()
        #expect(second.id != first.id)
        #expect(code { _ = try follower.beginSnapshot(second) } == .snapshotBusy)
        clock.advance(10_000)
        let (receipt, isNew) = try follower.beginSnapshot(second)
        #expect(isNew && receipt.files.allSatisfy { $0.received == 0 })
        #expect(try Files.names(in: "\(follower.configuration.directory)/db.new") == [])
        try follower.take(second, from: pair.leader)
        let (_, rebuilt) = try await follower.install(second.id)
        #expect(try rebuilt.content() == pair.leader.content())
        try await rebuilt.close()
        try await pair.leader.close()
    }

    /// The follower has promised the term in which the leader leads on.
    @Test func aLeaderOfANewTermGivesANewSnapshot() async throws {
        let pair = try await SnapshotPair.open()
        let follower = try pair.openFollower()
        let before = try pair.leader.openSnapshot()
        #expect(try pair.leader.openSnapshot().id == before.id)
        try await follower.fence(term: 2, candidate: NodeAddress(host: "127.0.0.1", port: 1))
        try await pair.leader.become(.leader(term: 3))
        let after = try pair.leader.openSnapshot()
        #expect(after.id != before.id && after.leaderTerm == 3)
        #expect(code { _ = try follower.beginSnapshot(before) } == .staleTerm)
        try follower.take(after, from: pair.leader)
        let (_, rebuilt) = try await follower.install(after.id)
        #expect(try rebuilt.content() == pair.leader.content())
        try await rebuilt.close()
        try await pair.leader.close()
    }

    /// Whoever writes a manifest by hand does not get it installed.
    @Test func aSnapshotIsWhatItsManifestSays() async throws {
        let pair = try await SnapshotPair.open()
        let follower = try pair.openFollower()
        var manifest = try pair.leader.openSnapshot()
        manifest.position.lsn += 5
        try follower.take(manifest, from: pair.leader)
        #expect(code { _ = try follower.verifySnapshot(id: manifest.id) } == .corrupted)
        #expect(try follower.received.discard(id: "other") == nil)
        #expect(try follower.received.discard(id: manifest.id)?.id == manifest.id)
        #expect(!Files.exists("\(follower.configuration.directory)/db.new"))
        try await follower.close()
        try await pair.leader.close()
    }

    @Test func aDiskWithoutRoomIsNotFilled() async throws {
        let pair = try await SnapshotPair.open()
        let manifest = try pair.leader.openSnapshot()
        let configuration = pair.followerConfiguration
        try Files.makeDirectory(configuration.directory)
        let receiver = try SnapshotReceiver(
            configuration, shared: SharedResources(), clock: .system, freeBytes: { _ in manifest.bytesTotal - 1 })
        let nothing = SnapshotReception.Own(history: TermHistory(starts: [], end: .start), newestTerm: 1)
        #expect(code { _ = try receiver.begin(manifest) { () throws(KVError) in nothing } } == .storageFull)
        #expect(receiver.receipt == nil)
        #expect(!Files.exists("\(configuration.directory)/db.new"))
        try await pair.leader.close()
    }

    @Test func aFullDiskIsToldFromABrokenOne() throws {
        #expect(code { try Files.append([1], to: "/dev/full", at: 0) } == .storageFull)
        #expect(code { try Files.append([1], to: "/none/file", at: 0) } == .storageFailed)
    }

    @Test func whatCannotBeWrittenLeavesTheReceiptAsItWas() async throws {
        let pair = try await SnapshotPair.open()
        let follower = try pair.openFollower()
        let manifest = try pair.leader.openSnapshot()
        try follower.take(manifest, from: pair.leader, partBytes: 100, partsMax: 1)
        let receipt = follower.received.receipt
        let staging = "\(follower.configuration.directory)/db.new"
        try Files.move(staging, to: staging + "-away")
        #expect(code { try follower.take(manifest, from: pair.leader, partBytes: 100) } == .storageFailed)
        #expect(follower.received.receipt == receipt)
        try Files.move(staging + "-away", to: staging)
        try follower.take(manifest, from: pair.leader)
        let (_, rebuilt) = try await follower.install(manifest.id)
        #expect(try rebuilt.content() == pair.leader.content())
        try await rebuilt.close()
        try await pair.leader.close()
    }

    @Test func whatNobodyGoesOnWithIsGivenUp() async throws {
        let clock = ManualClock()
        let pair = try await SnapshotPair.open()
        var follower = try pair.openFollower(clock: clock.clock)
        let manifest = try pair.leader.openSnapshot()
        try follower.take(manifest, from: pair.leader)
        clock.advance(3_599_999)
        follower.tidySnapshots()
        #expect(follower.received.receipt != nil)
        // A restart begins the hour anew.
        try await follower.close()
        follower = try pair.openFollower(clock: clock.clock)
        clock.advance(3_599_999)
        follower.tidySnapshots()
        #expect(follower.received.receipt != nil)
        clock.advance(1)
        follower.tidySnapshots()
        #expect(follower.received.receipt == nil)
        #expect(!Files.exists("\(follower.configuration.directory)/db.new"))

        // Who leads needs none.
        try follower.take(manifest, from: pair.leader)
        try await follower.become(.leader(term: 2))
        follower.tidySnapshots()
        #expect(follower.received.receipt == nil)
        try await follower.close()
        try await pair.leader.close()
    }

    // MARK: Who may

    @Test func whatWouldGoBackIsRefused() async throws {
        let pair = try await SnapshotPair.open(writes: 20)
        let follower = try pair.openFollower()
        let manifest = try pair.leader.openSnapshot()
        try follower.take(manifest, from: pair.leader)
        try await pair.write(20..<30)
        // It catches up from the log meanwhile, and further than the snapshot.
        _ = await follower.apply(try pair.leader.readAll(), leaderTerm: 1)
        #expect(code { _ = try follower.verifySnapshot(id: manifest.id) } == .snapshotMismatch)
        #expect(code { _ = try follower.beginSnapshot(manifest) } == .snapshotMismatch)
        // A newer leader has been seen.
        _ = await follower.apply([], leaderTerm: 2)
        let later = try pair.leader.openSnapshot()
        #expect(code { _ = try follower.beginSnapshot(later) } == .staleTerm)
        #expect(code { _ = try pair.leader.beginSnapshot(later) } == .staleTerm)
        #expect(code { _ = try follower.openSnapshot() } == .notLeader)
        try await follower.close()
        try await pair.leader.close()
    }

    /// Verifying takes its time, and a candidate may ask for a promise meanwhile.
    @Test func aPromiseDuringTheVerificationIsKept() async throws {
        let pair = try await SnapshotPair.open(writes: 20)
        let follower = try pair.openFollower()
        let manifest = try pair.leader.openSnapshot()
        try follower.take(manifest, from: pair.leader)
        let verified = try follower.verifySnapshot(id: manifest.id)
        try await follower.fence(term: 2, candidate: NodeAddress(host: "127.0.0.1", port: 7_003))
        await #expect {
            _ = try await follower.installSnapshot(verified)
        } throws: {
            ($0 as? KVError)?.code == .staleTerm
        }
        let same = try pair.openFollower()
        #expect(same.position == .start && same.newestTerm == 2)
        try await same.close()
        try await pair.leader.close()
    }

    // MARK: The leader's side

    @Test func oneCheckpointServesSeveralFollowers() async throws {
        let clock = ManualClock()
        let pair = try await SnapshotPair.open(clock: clock.clock)
        let leader = pair.leader
        let folder = "\(leader.configuration.directory)/snapshots"
        let first = try leader.openSnapshot()
        #expect(try leader.openSnapshot() == first)
        try leader.releaseSnapshot(id: first.id)
        _ = try leader.readSnapshot(id: first.id, file: "CURRENT", offset: 0, length: 100)
        try leader.releaseSnapshot(id: first.id)
        #expect(try Files.names(in: folder) == [])
        #expect(
            code { _ = try leader.readSnapshot(id: first.id, file: "CURRENT", offset: 0, length: 100) }
                == .unknownSnapshot)
        #expect(code { try leader.releaseSnapshot(id: first.id) } == .unknownSnapshot)

        // The log is cut behind the checkpoint's back: who took it could not go on from it.
        let second = try leader.openSnapshot()
        try await pair.write(200..<210)
        try leader.database.flush()
        try leader.database.trimArchivedLogs(keepingBytes: 0)
        try await pair.write(210..<220)
        let third = try leader.openSnapshot()
        #expect(third.id != second.id)
        #expect(try third.position.position.lsn > second.position.position.lsn)
        _ = try leader.readSnapshot(id: second.id, file: "CURRENT", offset: 0, length: 100)

        clock.advance(59_999)
        leader.tidySnapshots()
        #expect(try Files.names(in: folder) == [second.id, third.id].sorted())
        _ = try leader.readSnapshot(id: third.id, file: "CURRENT", offset: 0, length: 100)
        clock.advance(1)
        leader.tidySnapshots()
        #expect(try Files.names(in: folder) == [third.id])

        for (file, offset, length) in [("CURRENT", 0, 0), ("CURRENT", 0, 4 << 20 + 1), ("CURRENT", 1_000_000, 1)] {
            #expect(
                code { _ = try leader.readSnapshot(id: third.id, file: file, offset: UInt64(offset), length: length) }
                    == .invalidArgument)
        }
        for file in ["../../IDENTITY", "..", "", "LOCK"] {
            #expect(
                code { _ = try leader.readSnapshot(id: third.id, file: file, offset: 0, length: 1) }
                    == .unknownSnapshot)
        }
        // Whoever does not lead any more gives nothing out and keeps nothing.
        try await leader.become(.follower(term: 2))
        leader.tidySnapshots()
        #expect(try Files.names(in: folder) == [])
        #expect(code { _ = try leader.openSnapshot() } == .notLeader)
        try await leader.close()
    }

    @Test func leftoversGoAtTheStart() async throws {
        let pair = try await SnapshotPair.open()
        let folder = "\(pair.leader.configuration.directory)/snapshots"
        _ = try pair.leader.openSnapshot()
        try await pair.leader.close()
        try Files.makeDirectory(folder)
        try Files.makeDirectory(folder + "/left")
        try Files.append([1], to: folder + "/left/000001.sst", at: 0)
        let leader = try ShardReplica.openTest(pair.leader.configuration)
        #expect(!Files.exists(folder))
        try await leader.close()
    }

    /// With a writer that does not rest, what is given out is still one moment of it.
    @Test func aCheckpointUnderLoadIsWhole() async throws {
        let pair = try await SnapshotPair.open(writes: 10)
        let (leader, follower) = (pair.leader, try pair.openFollower())
        let isDone = Atomic<Bool>(false)
        let written = Task {
            var number = 0
            repeat {
                _ = try await leader.write([put("a-\(number)", "x"), put("b-\(number)", "x")])
                number += 1
            } while !isDone.load(ordering: .relaxed) && number < 100_000
            return number
        }
        let manifest = try leader.openSnapshot()
        isDone.store(true, ordering: .relaxed)
        #expect(try await written.value > 0)
        try follower.take(manifest, from: leader)
        let (_, rebuilt) = try await follower.install(manifest.id)
        #expect(try rebuilt.position == manifest.position.position)
        let outcome = await rebuilt.apply(try leader.readAll(after: rebuilt.position), leaderTerm: 1)
        #expect(outcome.failure == nil)
        #expect(try rebuilt.content() == leader.content())
        try await rebuilt.close()
        try await leader.close()
    }
}
