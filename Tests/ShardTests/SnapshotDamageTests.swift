import Core
import FoundationEssentials
import LSM
import TestSupport
import Testing
import Wire

@testable import Shard

/// Damage on a leader never takes the place of what a follower has.
@Suite struct SnapshotDamageTests {
    @Test func aDamagedLeaderGivesNoSnapshot() async throws {
        let pair = try await SnapshotPair.open()
        let follower = try pair.openFollower()
        #expect(await follower.apply(try pair.leader.readAll(), leaderTerm: 1).failure == nil)
        let content = try follower.content()
        try pair.leader.database.flush()
        let table = try #require(Damage.tables(in: pair.leader.database.path).first)
        try Damage.flipBit(ofFile: table)
        try await pair.write(200..<220)

        let error = #expect(throws: KVError.self) { try pair.leader.openSnapshot() }
        #expect(error?.code == .corrupted)
        // It names the replica's file, not the link to it, which is gone.
        #expect(error?.message.hasPrefix("\(table) is damaged: ") == true, "\(error?.message ?? "")")
        let snapshots = "\(pair.leader.configuration.directory)/snapshots"
        #expect(try FileManager.default.contentsOfDirectory(atPath: snapshots) == [])
        #expect(pair.leader.damage?.message == error?.message)
        // The next one who asks gets the same answer, for nothing.
        let again = #expect(throws: KVError.self) { try pair.leader.openSnapshot() }
        #expect(again?.message == error?.message)
        #expect(try follower.content() == content)
        try await follower.close()
        try await pair.leader.close()
    }
}
