import Core
import FoundationEssentials
import LSM
import NIOCore
import Synchronization
import TestSupport
import Testing
import Wire

@testable import Shard

/// Replicas of which something is damaged, and how a snapshot takes their place.
@Suite struct DamageTests {
    private static let block = KVError(.corrupted, "a block is damaged")

    /// A leader, and a follower that has all it has.
    private func fedPair(writes: Int = 100) async throws -> (SnapshotPair, ShardReplica) {
        let pair = try await SnapshotPair.open(writes: writes)
        let follower = try pair.openFollower()
        _ = await follower.apply(try pair.leader.readAll(), leaderTerm: 1)
        return (pair, follower)
    }

    private func folder(_ configuration: ShardConfiguration) -> SnapshotFolder {
        SnapshotFolder(directory: configuration.directory)
    }

    private func remains(_ pair: SnapshotPair, term: UInt64 = 1) throws -> AbsentReplica {
        try AbsentReplica(
            pair.followerConfiguration, term: term, because: Self.block, shared: SharedResources(), logger: quietLogger)
    }

    /// Offers the snapshot, carries it over and installs it.
    private func rebuild(
        _ remains: AbsentReplica, from leader: ShardReplica
    ) async throws -> SnapshotInstallation {
        let manifest = try leader.openSnapshot()
        let (receipt, _) = try remains.beginSnapshot(manifest)
        for (file, has) in zip(manifest.files, receipt.files) where has.received < file.bytes {
            let part = try leader.readSnapshot(
                id: manifest.id, file: file.name, offset: has.received, length: Int(file.bytes))
            _ = try remains.received.append(
                part.bytes, to: file.name, at: has.received, id: manifest.id, checksum: part.checksum)
        }
        return try await remains.installSnapshot(try remains.verifySnapshot(id: manifest.id), isDiverged: false)
    }

    @Test func theFirstDamageStaysAndIsADamagedLeadersReason() async throws {
        let (pair, follower) = try await fedPair()
        follower.note(damage: KVError(.storageFailed, "the disk is full of holes"))
        #expect(follower.damage == nil, "that is no damage")
        follower.note(damage: Self.block)
        follower.note(damage: KVError(.corrupted, "another"))
        #expect(follower.damage?.message == Self.block.message)
        _ = try pair.leader.openSnapshot()
        pair.leader.note(damage: Self.block)
        #expect(code { _ = try pair.leader.openSnapshot() } == .corrupted)
        try await follower.close()
        try await pair.leader.close()
    }

    /// Writes that fill some blocks.
    private func fill(_ leader: ShardReplica) async throws {
        for number in 0..<200 {
            let value = (0..<20).map { _ in String(UInt64.random(in: 0 ... .max), radix: 36) }.joined()
            _ = try await leader.write([put("long-\(100 + number)", value)])
        }
    }

    /// A bit of a table is flipped: reads, scans, digests and compactions say so.
    @Test func whatReadsIsWhatFinds() async throws {
        let (pair, follower) = try await fedPair()
        try await fill(pair.leader)
        _ = await follower.apply(try pair.leader.readAll(), leaderTerm: 1)
        try follower.database.flush()
        try await follower.close()
        let table = try #require(Damage.tables(in: folder(follower.configuration).database).first)
        // Not in the first block, in which the position is, nor in the index.
        try Damage.flipBit(ofFile: table) { $0 / 2 }
        for way in 0..<4 {
            let replica = try pair.openFollower()
            let found: KVError.Code?
            switch way {
            case 0:
                found = code {
                    for number in 0..<200 {
                        try replica.read(key: "long-\(100 + number)")
                    }
                }
            case 1:
                let range = ScanRange()
                let limits = ScanLimits(records: 1_000, bytes: 1 << 20)
                found = code {
                    _ = try replica.scan(range, limits, keysOnly: false) { _ in true }
                }
            case 2:
                do throws(KVError) {
                    _ = try await replica.digest()
                    found = nil
                } catch {
                    found = error.code
                }
            default:
                _ = replica.startCompaction()
                try await eventually { !replica.lastCompaction.isRunning }
                found = replica.lastCompaction.failure == nil ? nil : .corrupted
            }
            #expect(found == .corrupted && replica.damage != nil, "way \(way): \(found.map { "\($0)" } ?? "nothing")")
            try? await replica.close()  // A compaction that failed leaves RocksDB with an error.
        }
        try await pair.leader.close()
    }

    /// Its position is known, so nothing is kept, whatever can be read of the database.
    @Test func aDamagedFollowerIsReplacedWithoutRemains() async throws {
        let (pair, follower) = try await fedPair()
        follower.note(damage: Self.block)
        let manifest = try pair.leader.openSnapshot()
        try follower.take(manifest, from: pair.leader)
        let (installation, rebuilt) = try await follower.install(manifest.id)
        #expect(installation.diverged == nil && installation.setAside == nil)
        #expect(rebuilt.damage == nil && rebuilt.setAside == nil)
        #expect(try rebuilt.content() == pair.leader.content())
        try await rebuilt.close()
        try await pair.leader.close()
    }

    /// A failed write has stopped its writer.
    @Test func aStoppedFollowerTakesASnapshot() async throws {
        let pair = try await SnapshotPair.open(writes: 50)
        let sink = TwinSink()
        let follower = try ShardReplica.openTest(
            pair.followerConfiguration, role: .follower(term: 1), sink: { _ in sink })
        sink.state.withLock { $0.failWrites = Self.block }
        let outcome = await follower.apply(try pair.leader.readAll(), leaderTerm: 1)
        #expect(outcome.failure?.code == .corrupted)
        #expect(follower.damage?.code == .corrupted && follower.failure != nil)
        try await pair.leader.become(.leader(term: 3))
        let manifest = try pair.leader.openSnapshot()
        try follower.take(manifest, from: pair.leader)
        #expect(follower.newestTerm == 3, "the term of the leader is noted")
        let (_, rebuilt) = try await follower.install(manifest.id)
        #expect(try rebuilt.content() == pair.leader.content())
        try await rebuilt.close()
        try await pair.leader.close()
    }

    /// A leader that was cut off and is damaged: what only it has is saved, and kept where it cannot be read.
    @Test(arguments: [false, true]) func whatOnlyTheDamagedOneHasIsNotLost(isReadable: Bool) async throws {
        let (pair, new) = try await fedPair(writes: 20)
        try await new.become(.leader(term: 2))
        _ = try await new.write([put("new", "n")])
        try await fill(pair.leader)
        var old = pair.leader
        let configuration = old.configuration
        if !isReadable {
            try old.database.flush()
            try await old.close()
            let table = try #require(Damage.tables(in: folder(configuration).database).first)
            try Damage.flipBit(ofFile: table) { $0 / 2 }
            try Files.removeTree("\(folder(configuration).database)/archive")
            old = try ShardReplica.openTest(configuration, role: .follower(term: 2))
        } else {
            try await old.become(.follower(term: 2))
        }
        old.note(damage: Self.block)
        let manifest = try new.openSnapshot()
        try old.take(manifest, from: new)
        let installation = try await old.installSnapshot(old.verifySnapshot(id: manifest.id))
        let rebuilt = try ShardReplica.openTest(configuration, role: .follower(term: 2))
        #expect(try rebuilt.content() == new.content())
        if isReadable {
            #expect(installation.diverged?.isComplete == true && installation.setAside == nil)
        } else {
            #expect(installation.setAside == folder(configuration).setAside && rebuilt.setAside != nil)
            #expect(try !Damage.tables(in: folder(configuration).setAside).isEmpty)
        }
        try await rebuilt.close()
        try await new.close()
    }

    /// The second database that would have to be kept is not: the first may be the only place of some writes.
    @Test func oneDatabaseIsKeptAtMost() async throws {
        let (pair, follower) = try await fedPair()
        let configuration = follower.configuration
        try await follower.close()
        try FileManager.default.removeItem(atPath: "\(configuration.directory)/db/CURRENT")
        let first = try remains(pair)
        #expect(!first.isBlocked)
        let installation = try await rebuild(first, from: pair.leader)
        #expect(installation.setAside != nil)
        try FileManager.default.removeItem(atPath: "\(configuration.directory)/db/CURRENT")
        let second = try remains(pair)
        #expect(second.isBlocked)
        await #expect(throws: KVError.self) { _ = try await rebuild(second, from: pair.leader) }
        #expect(try Damage.tables(in: "\(configuration.directory)/db").isEmpty == false, "it is still there")
        try FileManager.default.removeItem(atPath: folder(configuration).setAside)
        let third = try remains(pair)
        #expect(!third.isBlocked)
        _ = try await rebuild(third, from: pair.leader)
        try await pair.leader.close()
    }

    // MARK: Absent replicas

    enum Loss: String, CaseIterable {
        case current, manifest, footer, fence, folder

        func inflict(on directory: String) throws {
            let names = try FileManager.default.contentsOfDirectory(atPath: "\(directory)/db")
            let manifest = names.first { $0.hasPrefix("MANIFEST") } ?? "MANIFEST"
            switch self {
            case .current: try FileManager.default.removeItem(atPath: "\(directory)/db/CURRENT")
            case .manifest: try FileManager.default.removeItem(atPath: "\(directory)/db/\(manifest)")
            case .footer:
                for table in try Damage.tables(in: "\(directory)/db") {
                    try Damage.flipBit(ofFile: table) { $0 - 4 }
                }
            case .fence: try Data("damage".utf8).write(to: URL(filePath: "\(directory)/FENCE"))
            case .folder: try FileManager.default.removeItem(atPath: "\(directory)/db")
            }
        }
    }

    /// It does not open, and takes a snapshot all the same; then it counts as new until it has caught up.
    @Test(arguments: Loss.allCases) func aReplicaThatDoesNotOpenIsRebuilt(loss: Loss) async throws {
        let (pair, follower) = try await fedPair()
        let configuration = follower.configuration
        try follower.database.flush()
        let position = follower.position
        try await follower.close()
        try loss.inflict(on: configuration.directory)
        #expect(code { _ = try pair.openFollower() } == .corrupted, "\(loss)")
        #expect(code { _ = try pair.openFollower() } == .corrupted, "\(loss): looking changes nothing")

        let remains = try remains(pair)
        #expect(remains.knowsPromise == (loss != .fence))
        if loss == .fence {
            #expect(remains.position == position, "the database can be read")
            #expect(code { _ = try remains.beginSnapshot(pair.leader.openSnapshot()) } == .unavailable)
            remains.learn(newestTerm: 1)
        }
        let installation = try await rebuild(remains, from: pair.leader)
        let keeps = [.current, .manifest, .footer].contains(loss)
        #expect((installation.setAside != nil) == keeps, "\(loss)")
        let rebuilt = try pair.openFollower()
        #expect(try rebuilt.content() == pair.leader.content())
        #expect(rebuilt.isJoining && rebuilt.damage == nil)
        try await rebuilt.close()
        try await pair.leader.close()
    }

    /// What was promised cannot be read: the leader whose snapshot is taken must not be behind anything that is known.
    @Test func whereThePromiseIsUnknownOlderLeadersAreRefused() async throws {
        let (pair, follower) = try await fedPair()
        try await follower.close()
        try Loss.fence.inflict(on: follower.configuration.directory)
        let manifest = try pair.leader.openSnapshot()
        let behindOthers = try remains(pair)
        behindOthers.learn(newestTerm: 7)
        #expect(code { _ = try behindOthers.beginSnapshot(manifest) } == .staleTerm)
        let behindTopology = try remains(pair, term: 2)
        behindTopology.learn(newestTerm: 1)
        #expect(code { _ = try behindTopology.beginSnapshot(manifest) } == .staleTerm)
        let fine = try remains(pair)
        fine.learn(newestTerm: 1)
        _ = try fine.beginSnapshot(manifest)
        #expect(try PromiseFile(directory: follower.configuration.directory).load()?.term == 1)
        try await pair.leader.close()
    }

    /// With `always` the mark of a clean stop is enough: what came from this term's leader is there still.
    @Test(arguments: [Durability.always, .os]) func theMarkTellsWhetherSomethingIsKept(durability: Durability)
        async throws
    {
        let pair = try await SnapshotPair.open(writes: 50)
        var configuration = pair.followerConfiguration
        configuration.durability = durability
        let follower = try ShardReplica.openTest(configuration, role: .follower(term: 1))
        _ = await follower.apply(try pair.leader.readAll(), leaderTerm: 1)
        let position = follower.position
        try await follower.close()
        try SyncedMark(database: "x", position: position, tablesLsn: 0, durability: durability, boot: "b", logs: [])
            .save(to: configuration.directory)
        try Loss.current.inflict(on: configuration.directory)
        let remains = try AbsentReplica(
            configuration, term: 1, because: Self.block, shared: SharedResources(), logger: quietLogger)
        #expect(remains.position == position)
        let installation = try await rebuild(remains, from: pair.leader)
        #expect((installation.setAside == nil) == (durability == .always))
        try await pair.leader.close()
    }

    /// Killed after each step, the new database is in its place and the old one is kept.
    @Test func aKillWhileADatabaseIsKept() async throws {
        let (pair, follower) = try await fedPair()
        let configuration = follower.configuration
        try await pair.write(100..<150)
        let manifest = try pair.leader.openSnapshot()
        try follower.take(manifest, from: pair.leader)
        _ = try follower.verifySnapshot(id: manifest.id)
        try await follower.close()
        let new = try pair.leader.content()
        let folder = folder(configuration)
        try folder.markComplete(keepsDatabase: true)
        var steps: [SnapshotFolder.Step] = []
        while true {
            let copy = "\(configuration.directory)-\(steps.count)"
            try FileManager.default.copyItem(atPath: configuration.directory, toPath: copy)
            var copied = configuration
            copied.directory = copy
            let replica = try ShardReplica.openTest(copied, role: .follower(term: 1))
            #expect(try replica.content() == new && replica.setAside != nil)
            try await replica.close()
            guard let step = SnapshotFolder.nextStep(from: folder.state()) else { break }
            steps.append(step)
            try folder.perform(step)
        }
        #expect(steps == [.keepDatabase, .moveStagingIn, .removeMark, .removeManifest])
        try await pair.leader.close()
    }
}

extension ShardReplica {
    fileprivate func read(key: String) throws(KVError) {
        let key = ByteBuffer(string: key)
        let result = key.withUnsafeReadableBytes { bytes in
            Result { () throws(KVError) in try read(key: bytes, tier: .disk) { _ in } }
        }
        try result.get()
    }
}
