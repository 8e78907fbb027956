import Core
import FoundationEssentials
import TestSupport
import Testing
import Wire

@testable import Shard

@Suite struct SnapshotSwapTests {
    /// Every state of the directory leads to a database in its place, in few steps, and never over a state in which
    /// both databases are gone.
    @Test func everyStateIsSettled() {
        let choices = [false, true]
        for hasDatabase in choices {
            for hasPrevious in choices {
                for isStagingComplete in choices {
                    for isDatabaseMarked in choices where hasDatabase || !isDatabaseMarked {
                        var state = SnapshotFolder.State(
                            hasDatabase: hasDatabase, hasPrevious: hasPrevious, isStagingComplete: isStagingComplete,
                            isDatabaseMarked: isDatabaseMarked, hasLooseManifest: !isStagingComplete)
                        let had = hasDatabase || hasPrevious || isStagingComplete
                        var steps = 0
                        while let step = SnapshotFolder.nextStep(from: state) {
                            SnapshotSwapTests.apply(step, to: &state)
                            steps += 1
                            guard steps < 10 else { break }
                            #expect(!had || state.hasDatabase || state.hasPrevious || state.isStagingComplete)
                        }
                        #expect(steps < 10)
                        #expect(state.hasDatabase == had)
                        #expect(!state.hasPrevious && !state.isStagingComplete && !state.isDatabaseMarked)
                    }
                }
            }
        }
    }

    private static func apply(_ step: SnapshotFolder.Step, to state: inout SnapshotFolder.State) {
        switch step {
        case .removePrevious: state.hasPrevious = false
        case .moveDatabaseAside: (state.hasDatabase, state.hasPrevious, state.isDatabaseMarked) = (false, true, false)
        case .keepDatabase: (state.hasDatabase, state.isDatabaseMarked) = (false, false)
        case .moveStagingIn:
            (state.hasDatabase, state.isStagingComplete, state.isDatabaseMarked) = (true, false, true)
            state.hasLooseManifest = true
        case .moveDatabaseBack: (state.hasDatabase, state.hasPrevious) = (true, false)
        case .removeMark: state.isDatabaseMarked = false
        case .removeManifest: state.hasLooseManifest = false
        }
    }

    private func copy(_ directory: String) throws -> String {
        let copy = "\(directory)-\(UInt64.random(in: 0 ... .max))"
        try FileManager.default.copyItem(atPath: directory, toPath: copy)
        return copy
    }

    private func content(in directory: String, like configuration: ShardConfiguration) async throws -> [String] {
        var configuration = configuration
        configuration.directory = directory
        let replica = try ShardReplica.openTest(configuration, role: .follower(term: 1))
        let content = try replica.content()
        try await replica.close()
        let names = try FileManager.default.contentsOfDirectory(atPath: directory)
        #expect(!names.contains("db.old"))
        return content
    }

    /// Killed after each step, and within the steps that take several system calls.
    @Test func aKillAtAnyStepLeavesTheOldOrTheNew() async throws {
        let pair = try await SnapshotPair.open(writes: 50)
        let follower = try pair.openFollower()
        _ = await follower.apply(try pair.leader.readAll(), leaderTerm: 1)
        let old = try follower.content()
        try await pair.write(50..<120)
        let manifest = try pair.leader.openSnapshot()
        let new = try pair.leader.content()
        #expect(old != new)
        try follower.take(manifest, from: pair.leader)
        _ = try follower.verifySnapshot(id: manifest.id)
        let configuration = follower.configuration
        try await follower.close()

        #expect(try await content(in: copy(configuration.directory), like: configuration) == old)
        // The mark is not there before it is durable.
        let halfMarked = try copy(configuration.directory)
        try Files.append([], to: "\(halfMarked)/db.new/\(SnapshotFolder.completeMark).tmp", at: 0)
        #expect(try await content(in: halfMarked, like: configuration) == old)

        let folder = SnapshotFolder(directory: configuration.directory)
        try folder.markComplete()
        var steps: [SnapshotFolder.Step] = []
        while true {
            #expect(try await content(in: copy(configuration.directory), like: configuration) == new)
            guard let step = SnapshotFolder.nextStep(from: folder.state()) else { break }
            if step == .removePrevious {
                let halfRemoved = try copy(configuration.directory)
                for name in try Files.names(in: "\(halfRemoved)/db.old") ?? [] where name.hasSuffix(".sst") == false {
                    try Files.removeTree("\(halfRemoved)/db.old/\(name)")
                }
                #expect(try await content(in: halfRemoved, like: configuration) == new)
            }
            steps.append(step)
            try folder.perform(step)
        }
        #expect(steps == [.moveDatabaseAside, .moveStagingIn, .removePrevious, .removeMark, .removeManifest])
        try await pair.leader.close()
    }

    /// One that is half removed is not one that is complete.
    @Test func clearingTakesTheMarkFirst() throws {
        let directory = try TemporaryDirectory()
        let folder = SnapshotFolder(directory: directory.path)
        try Files.makeDirectory(folder.staging)
        try Files.append([1], to: "\(folder.staging)/CURRENT", at: 0)
        try folder.markComplete()
        try folder.clear()
        #expect(!Files.exists(folder.staging))
        #expect(!folder.state().isStagingComplete)
    }
}
