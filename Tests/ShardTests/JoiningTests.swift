import Core
import FoundationEssentials
import NIOCore
import TestSupport
import Testing
import Wire

@testable import Shard

/// A replica that is made empty serves no reads before it has once had everything.
@Suite struct JoiningTests {
    private func configuration(_ directory: TemporaryDirectory, _ name: String = "follower") -> ShardConfiguration {
        var configuration = ShardConfiguration.test(directory)
        configuration.directory = "\(directory.path)/\(name)"
        return configuration
    }

    private func hasMark(_ configuration: ShardConfiguration) -> Bool {
        FileManager.default.fileExists(atPath: "\(configuration.directory)/JOINING")
    }

    private func heartbeat(_ follower: ShardReplica, from leader: LogPosition) {
        follower.freshness.heartbeat(
            leaderLsn: leader.lsn, leaderClockMilliseconds: 1_000, term: leader.term, position: follower.position)
    }

    /// The frames of a leader with some writes.
    private func frames(_ directory: TemporaryDirectory) async throws -> [LogFrame] {
        let leader = try ShardReplica.openTest(configuration(directory, "leader"))
        for index in 0..<5 { _ = try await leader.write([put("k\(index)", "v")]) }
        #expect(!leader.isJoining)
        #expect(!hasMark(leader.configuration))
        let frames = try leader.readAll()
        try await leader.close()
        return frames
    }

    @Test func aNewFollowerJoinsUntilItHasEverything() async throws {
        let directory = try TemporaryDirectory()
        let frames = try await frames(directory)
        let follower = try ShardReplica.openTest(configuration(directory), role: .follower(term: 1))
        #expect(follower.isJoining)
        #expect(hasMark(follower.configuration))
        let end = try #require(frames.last?.position)
        heartbeat(follower, from: end)
        #expect(follower.isJoining)
        _ = await follower.apply(Array(frames[..<3]), leaderTerm: 1)
        heartbeat(follower, from: end)
        #expect(follower.isJoining)
        #expect(hasMark(follower.configuration))
        _ = await follower.apply(frames, leaderTerm: 1)
        heartbeat(follower, from: end)
        #expect(!follower.isJoining)
        // The writer removes the file without a write to wake it.
        try await eventually { !hasMark(follower.configuration) }
        try await follower.close()
    }

    @Test func aRestartOnTheWayGoesOnJoining() async throws {
        let directory = try TemporaryDirectory()
        let frames = try await frames(directory)
        let configuration = configuration(directory)
        var follower = try ShardReplica.openTest(configuration, role: .follower(term: 1))
        _ = await follower.apply(frames, leaderTerm: 1)
        try await follower.close()
        #expect(hasMark(configuration))

        // It has everything, but nobody has said so.
        follower = try ShardReplica.openTest(configuration, role: .follower(term: 1))
        #expect(follower.isJoining)
        heartbeat(follower, from: follower.position)
        try await eventually { !hasMark(configuration) }
        try await follower.close()

        // Once is for ever.
        follower = try ShardReplica.openTest(configuration, role: .follower(term: 1))
        #expect(!follower.isJoining)
        #expect(!hasMark(configuration))
        try await follower.close()
    }

    /// Closed right after it has caught up, and without the file's removal in between.
    @Test func aMarkThatIsDueIsRemovedByClosing() async throws {
        let directory = try TemporaryDirectory()
        let frames = try await frames(directory)
        let follower = try ShardReplica.openTest(configuration(directory), role: .follower(term: 1))
        _ = await follower.apply(frames, leaderTerm: 1)
        heartbeat(follower, from: follower.position)
        try await follower.close()
        #expect(!hasMark(follower.configuration))
    }

    @Test func whoLeadsDoesNotJoin() async throws {
        let directory = try TemporaryDirectory()
        let configuration = configuration(directory)
        var replica = try ShardReplica.openTest(configuration, role: .follower(term: 1))
        #expect(replica.isJoining)
        try await replica.become(.leader(term: 2))
        #expect(!replica.isJoining)
        _ = try await replica.write([put("k", "v")])
        try await eventually { !hasMark(configuration) }
        try await replica.close()

        // By a newer topology, at the start.
        replica = try ShardReplica.openTest(self.configuration(directory, "second"), role: .follower(term: 1))
        try await replica.close()
        #expect(hasMark(replica.configuration))
        replica = try ShardReplica.openTest(replica.configuration, role: .leader(term: 2))
        #expect(!replica.isJoining)
        #expect(!hasMark(replica.configuration))
        try await replica.close()
    }

    /// What a replica still has from long ago is as good as nothing.
    @Test func oldDataIsNotServedWhereTheReplicaIsNew() async throws {
        let directory = try TemporaryDirectory()
        let frames = try await frames(directory)
        var configuration = configuration(directory)
        var follower = try ShardReplica.openTest(configuration, role: .follower(term: 1))
        _ = await follower.apply(frames, leaderTerm: 1)
        heartbeat(follower, from: follower.position)
        try await follower.close()

        configuration.joins = true
        follower = try ShardReplica.openTest(configuration, role: .follower(term: 1))
        #expect(follower.isJoining)
        #expect(hasMark(configuration))
        try await follower.close()
        configuration.joins = false
        follower = try ShardReplica.openTest(configuration, role: .follower(term: 1))
        #expect(follower.isJoining)
        heartbeat(follower, from: follower.position)
        #expect(!follower.isJoining)
        try await follower.close()

        configuration.joins = true
        let leader = try ShardReplica.openTest(configuration, role: .leader(term: 2))
        #expect(!leader.isJoining)
        try await leader.close()
    }

    @Test func aMarkThatCannotBeMadeIsAnError() throws {
        let directory = try TemporaryDirectory()
        let configuration = configuration(directory)
        // In the way of the temporary file.
        try FileManager.default.createDirectory(
            atPath: "\(configuration.directory)/JOINING.new", withIntermediateDirectories: true)
        let error = #expect(throws: KVError.self) {
            try ShardReplica.openTest(configuration, role: .follower(term: 1))
        }
        #expect(error?.code == .storageFailed)
    }
}
