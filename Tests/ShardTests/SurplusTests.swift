import Core
import FoundationEssentials
import LSM
import NIOCore
import TestSupport
import Testing
import Wire

@testable import Shard

/// A leader that comes back with writes which the history that went on without it has not.
@Suite struct SurplusTests {
    private struct Line: Decodable, Hashable {
        var key: String?
        var keyBase64: String?
        var value: String?
        var valueBase64: String?
        var deleted: Bool?
        var version: String
        var ttl: String?
    }

    private func lines(_ writes: DivergedWrites) throws -> [Line] {
        let bytes = try #require(try Files.read(writes.file, bytesMax: 10 << 20))
        return try bytes.split(separator: UInt8(ascii: "\n")).map { try DocumentCoding.decode(Line.self, from: $0) }
    }

    /// What is left after doing what the lines say.
    private func replayed(_ lines: [Line], over base: [String: String]) -> [String: String] {
        var content = base
        for line in lines {
            let key = line.key ?? "base64:\(line.keyBase64 ?? "")"
            content[key] = line.deleted == true ? nil : line.value ?? "base64:\(line.valueBase64 ?? "")"
        }
        return content
    }

    private func values(_ replica: ShardReplica) throws -> [String: String] {
        var values: [String: String] = [:]
        try replica.database.forEachUserRecord { key, stored in
            let value = stored.bytes
            let name = String(validating: key, as: UTF8.self) ?? "base64:\(Data(key).base64EncodedString())"
            values[name] = String(validating: value, as: UTF8.self) ?? "base64:\(Data(value).base64EncodedString())"
            return true
        }
        return values
    }

    /// Both have the same twenty writes; the follower then leads term 2 and writes on.
    private func parted(clock: ShardClock = .system) async throws -> (
        old: ShardReplica, new: ShardReplica, common: LogPosition, pair: SnapshotPair
    ) {
        let pair = try await SnapshotPair.open(writes: 20, clock: clock)
        let new = try pair.openFollower(clock: clock)
        _ = await new.apply(try pair.leader.readAll(), leaderTerm: 1)
        let common = new.position
        try await new.become(.leader(term: 2))
        for number in 0..<30 { _ = try await new.write([put("new-\(number)", "n")]) }
        return (pair.leader, new, common, pair)
    }

    /// Rebuilds `old` from `new`, as it would be after a restart with the newer topology.
    private func rebuild(
        _ old: ShardReplica, from new: ShardReplica
    ) async throws -> (SnapshotInstallation, ShardReplica) {
        try await old.become(.follower(term: 2))
        let manifest = try new.openSnapshot()
        try old.take(manifest, from: new)
        return try await old.install(manifest.id, role: .follower(term: 2))
    }

    @Test func whatTheLogHoldsIsSavedWhole() async throws {
        let (old, new, common, pair) = try await parted()
        defer { withExtendedLifetime(pair) {} }
        let base = try values(old)
        let binary = ByteBuffer(bytes: [0xFF, 0x00, 0xFE])
        _ = try await old.write([put("key-1", "changed"), delete("key-2"), put("own", "quote \" and \n line")])
        _ = try await old.write([delete("own-2"), .put(key: binary, value: binary)])
        let receipt = try await old.write([put("own", "again")])
        let expected = try values(old)
        let end = old.position

        let (installation, rebuilt) = try await rebuild(old, from: new)
        let diverged = try #require(installation.diverged)
        #expect(diverged.isComplete)
        #expect(diverged.firstLsn == common.lsn + 1 && diverged.lastLsn == end.lsn)
        let lines = try lines(diverged)
        #expect(lines.count == 6 && diverged.writes == 6)
        #expect(lines.map(\.version) == lines.map(\.version).sorted())
        #expect(Set(lines.map(\.version)).count == 6)
        #expect(lines.last?.version == receipt.version(at: 0)?.hexDigits)
        #expect(lines[1] == Line(key: "key-2", deleted: true, version: lines[1].version))
        #expect(replayed(lines, over: base) == expected)

        #expect(try rebuilt.content() == new.content())
        #expect(diverged.file.hasPrefix("\(pair.directory.path)/leader/diverged/shard-0-"))
        #expect(try rebuilt.divergedWrites() == [diverged])
        try await rebuilt.close()
        let again = try ShardReplica.openTest(rebuilt.configuration, role: .follower(term: 2))
        #expect(try again.divergedWrites() == [diverged])
        try await again.close()
        try await new.close()
    }

    /// With what is left of its life; without one it would live for ever when it is put back, and so would what it replaced.
    @Test(arguments: [false, true]) func whatExpiresIsSavedWithWhatIsLeftOfIt(isLogLost: Bool) async throws {
        func expiring(_ key: String, _ milliseconds: UInt64) -> WriteOperation {
            .expiringPut(key: ByteBuffer(string: key), value: ByteBuffer(string: "1"), milliseconds: milliseconds)
        }
        let clock = ManualClock()
        let (old, new, _, pair) = try await parted(clock: clock.clock)
        defer { withExtendedLifetime(pair) {} }
        _ = try await old.write([expiring("key-1", 1_000), expiring("long", 50_000), put("plain", "1")])
        if isLogLost {
            try old.database.flush()
            try old.database.trimArchivedLogs(keepingBytes: 0)
        }
        clock.setWall(clock.clock.wallMilliseconds() + 1_000)
        let (installation, rebuilt) = try await rebuild(old, from: new)
        let diverged = try #require(installation.diverged)
        #expect(diverged.isComplete == !isLogLost)
        let lines = try lines(diverged)
        let versions = lines.map(\.version)
        #expect(
            lines == [
                Line(key: "key-1", deleted: true, version: versions[0]),
                Line(key: "long", value: "1", version: versions[1], ttl: "49000ms"),
                Line(key: "plain", value: "1", version: versions[2]),
            ])
        let text = try #require(try Files.read(diverged.file, bytesMax: 1 << 20))
        let records = try text.split(separator: UInt8(ascii: "\n")).map { try RecordLine(ByteBuffer(bytes: $0)) }
        #expect(records.map(\.ttlMilliseconds) == [nil, 49_000, nil])
        try await rebuilt.close()
        try await new.close()
    }

    /// A leader that lost the end of its log, which the follower has, and wrote on in the same term.
    private func forked(
        losing: Int, then: (ShardReplica) async throws -> Void
    ) async throws -> (follower: ShardReplica, leader: ShardReplica, common: LogPosition, pair: SnapshotPair) {
        let pair = try await SnapshotPair.open(writes: 15)
        let common = pair.leader.position
        try await pair.leader.close()
        let lost = "\(pair.directory.path)/lost"
        try FileManager.default.copyItem(atPath: "\(pair.directory.path)/leader", toPath: lost)
        let before = try ShardReplica.openTest(pair.leader.configuration, role: .leader(term: 1))
        for number in 0..<losing { _ = try await before.write([put("lost-\(number)", "l"), delete("key-0")]) }
        let follower = try pair.openFollower()
        _ = await follower.apply(try before.readAll(), leaderTerm: 1)
        #expect(follower.position == before.position)
        try await before.close()
        let after = try ShardReplica.openTest(
            SnapshotPair.configuration(pair.directory, "lost"), role: .leader(term: 1))
        #expect(after.position == common)
        try await then(after)
        return (follower, after, common, pair)
    }

    private func rebuild(
        _ follower: ShardReplica, fromForked leader: ShardReplica, isDiverged: Bool = true
    ) async throws -> (DivergedWrites?, ShardReplica) {
        let manifest = try leader.openSnapshot()
        try follower.take(manifest, from: leader)
        let installation = try await follower.installSnapshot(
            follower.verifySnapshot(id: manifest.id), isDiverged: isDiverged)
        let rebuilt = try ShardReplica.openTest(follower.configuration, role: .follower(term: 1))
        #expect(try rebuilt.content() == leader.content())
        return (installation.diverged, rebuilt)
    }

    /// The terms do not show it: the follower seems to have the beginning of what the leader has.
    @Test func whatALeaderLostWithinATermIsSaved() async throws {
        let (follower, leader, common, pair) = try await forked(losing: 5) { leader in
            for number in 0..<9 { _ = try await leader.write([put("new-\(number)", "n")]) }
        }
        defer { withExtendedLifetime(pair) {} }
        #expect(try follower.history().surplus(over: leader.history()) == nil)
        let end = follower.position
        let (diverged, rebuilt) = try await rebuild(follower, fromForked: leader)
        let saved = try #require(diverged)
        #expect(saved.isComplete && saved.firstLsn == common.lsn + 1 && saved.lastLsn == end.lsn)
        #expect(try lines(saved).compactMap(\.key) == (0..<5).flatMap { ["lost-\($0)", "key-0"] })
        try await rebuilt.close()
        try await leader.close()
    }

    /// Where the last shared writes were overwritten, too much is saved rather than too little; so it is where the
    /// leader stands at the same lsn.
    @Test func whereTheForkCannotBeSeenMoreIsSaved() async throws {
        let (follower, leader, common, pair) = try await forked(losing: 4) { leader in
            _ = try await leader.write([put("key-13", "changed"), put("key-14", "changed")])
            for number in 0..<3 { _ = try await leader.write([put("new-\(number)", "n")]) }
        }
        defer { withExtendedLifetime(pair) {} }
        #expect(follower.position.lsn == leader.position.lsn)
        let (diverged, rebuilt) = try await rebuild(follower, fromForked: leader)
        let saved = try #require(diverged)
        #expect(saved.isComplete && saved.firstLsn == common.lsn - 1)
        #expect(try lines(saved).compactMap(\.key).prefix(3) == ["key-13", "key-14", "lost-0"])
        try await rebuilt.close()
        try await leader.close()
    }

    /// A follower that only lacks something has nothing to save, however much was overwritten.
    @Test func aFollowerOfTheSameHistorySavesNothing() async throws {
        let (follower, leader, _, pair) = try await forked(losing: 0) { leader in
            for number in 0..<15 { _ = try await leader.write([put("key-\(number)", "changed")]) }
        }
        defer { withExtendedLifetime(pair) {} }
        let (diverged, rebuilt) = try await rebuild(follower, fromForked: leader, isDiverged: false)
        #expect(diverged == nil)
        try await rebuilt.close()
        try await leader.close()
    }

    @Test func whatTheLogLostIsSavedFromTheTables() async throws {
        let (old, new, common, pair) = try await parted()
        defer { withExtendedLifetime(pair) {} }
        let base = try values(old)
        _ = try await old.write([put("key-1", "changed"), put("own-1", "1"), put("own-2", "2")])
        try old.database.flush()
        try old.database.trimArchivedLogs(keepingBytes: 0)
        _ = try await old.write([put("own-2", "changed"), delete("own-1"), delete("key-5")])
        let expected = try values(old)

        let (installation, rebuilt) = try await rebuild(old, from: new)
        let diverged = try #require(installation.diverged)
        #expect(!diverged.isComplete)
        #expect(diverged.firstLsn == common.lsn + 1)
        let lines = try lines(diverged)
        // Of the lost batch only what was neither written again nor removed.
        #expect(lines.map { $0.key ?? "" } == ["key-1", "own-2", "own-1", "key-5"])
        #expect(replayed(lines, over: base) == expected)
        #expect(try rebuilt.content() == new.content())
        try await rebuilt.close()
        try await new.close()
    }

    @Test func withoutAnyLogTheTablesAreSaved() async throws {
        let (old, new, _, pair) = try await parted()
        defer { withExtendedLifetime(pair) {} }
        _ = try await old.write([put("own-1", "1"), put("own-2", "2"), delete("key-5")])
        try old.database.flush()
        try old.database.trimArchivedLogs(keepingBytes: 0)
        let (installation, rebuilt) = try await rebuild(old, from: new)
        let diverged = try #require(installation.diverged)
        #expect(!diverged.isComplete && diverged.writes == 2)
        #expect(try lines(diverged).map { $0.key ?? "" } == ["own-1", "own-2"])
        try await rebuilt.close()
        try await new.close()
    }

    /// Damage that nobody had met before the surplus is read: what could not be saved is kept as it is.
    @Test func whatLiesInDamagedBlocksIsKept() async throws {
        let (old, new, _, pair) = try await parted()
        defer { withExtendedLifetime(pair) {} }
        var random = SeededGenerator(seed: 3)
        for index in 0..<60 {
            _ = try await old.write([
                .put(key: ByteBuffer(string: "own-\(index)"), value: ByteBuffer(bytes: random.bytes(1_000)))
            ])
        }
        try old.database.flush()
        try old.database.trimArchivedLogs(keepingBytes: 0)
        try Damage.flipBit(ofFile: try #require(Damage.tables(in: old.database.path).first))
        #expect(old.damage == nil)
        let (installation, rebuilt) = try await rebuild(old, from: new)
        let diverged = try #require(installation.diverged)
        #expect(!diverged.isComplete && diverged.writes < 60 && diverged.writes > 30)
        #expect(installation.setAside == old.configuration.directory + "/db.damaged")
        #expect(rebuilt.setAside == installation.setAside)
        try await rebuilt.close()
        try await new.close()
    }

    /// A barrier is no write, and still a history of its own.
    @Test func aTermWithoutWritesLeavesAnEmptyFile() async throws {
        let pair = try await SnapshotPair.open(writes: 5)
        let other = try pair.openFollower()
        _ = await other.apply(try pair.leader.readAll(), leaderTerm: 1)
        try await pair.leader.become(.leader(term: 2))
        try await other.become(.leader(term: 3))
        try await pair.leader.become(.follower(term: 3))
        let manifest = try other.openSnapshot()
        try pair.leader.take(manifest, from: other)
        let (installation, rebuilt) = try await pair.leader.install(manifest.id, role: .follower(term: 3))
        #expect(installation.diverged?.writes == 0 && installation.diverged?.isComplete == true)
        #expect(try rebuilt.history() == other.history())
        try await rebuilt.close()
        try await other.close()
    }

    /// Where the surplus cannot be saved, nothing is replaced.
    @Test func nothingIsDiscardedUnsaved() async throws {
        let (old, new, _, pair) = try await parted()
        defer { withExtendedLifetime(pair) {} }
        _ = try await old.write([put("own", "1")])
        let content = try old.content()
        try await old.become(.follower(term: 2))
        let manifest = try new.openSnapshot()
        try old.take(manifest, from: new)
        // A file stands where the folder should be.
        try Files.append([1], to: old.configuration.divergedDirectory, at: 0)
        let verified = try old.verifySnapshot(id: manifest.id)
        await #expect(throws: KVError.self) { _ = try await old.installSnapshot(verified) }
        let same = try ShardReplica.openTest(old.configuration, role: .follower(term: 2))
        #expect(try same.content() == content)
        // What was received is still there: the next attempt needs no transfer.
        try Files.removeTree(old.configuration.divergedDirectory)
        let (installation, rebuilt) = try await same.install(manifest.id, role: .follower(term: 2))
        #expect(installation.diverged?.writes == 1)
        #expect(try rebuilt.content() == new.content())
        try await rebuilt.close()
        try await new.close()
    }

    /// Killed after the surplus is saved and before the snapshot is marked: saved twice rather than not at all; killed
    /// after the mark, the next opening finishes.
    @Test func aKillAfterTheMarkFinishesAtTheNextOpening() async throws {
        let (old, new, _, pair) = try await parted()
        defer { withExtendedLifetime(pair) {} }
        _ = try await old.write([put("own", "1")])
        try await old.become(.follower(term: 2))
        let manifest = try new.openSnapshot()
        try old.take(manifest, from: new)
        _ = try old.verifySnapshot(id: manifest.id)
        try await old.close()
        try SnapshotFolder(directory: old.configuration.directory).markComplete()
        let rebuilt = try ShardReplica.openTest(old.configuration, role: .follower(term: 2))
        #expect(try rebuilt.content() == new.content())
        #expect(rebuilt.received.receipt == nil)
        try await rebuilt.close()
        try await new.close()
    }
}
