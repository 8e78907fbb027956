import Core
import FoundationEssentials
import LSM
import NIOCore
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
                == ["FENCE", "IDENTITY", "JOINING", "db"])
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
}
