import Core
import FoundationEssentials
import Synchronization
import TestSupport
import Testing
import Wire

@testable import Shard

/// A file that was synced is lost all the same where the name of a folder above it was not.
@Suite struct DurableNamesTests {
    private final class Synced: Sendable {
        private let paths = Mutex<[String]>([])

        func during<Value>(_ body: () throws -> Value) rethrows -> Value {
            try Files.$onSync.withValue({ path in self.paths.withLock { $0.append(path) } }, operation: body)
        }

        var all: [String] { paths.withLock { $0 } }
    }

    @Test(arguments: [false, true]) func theFoldersOfAReplicaSurvive(isRestart: Bool) async throws {
        let directory = try TemporaryDirectory()
        let shards = directory.path + "/shards"
        try FileManager.default.createDirectory(atPath: shards, withIntermediateDirectories: false)
        var configuration = ShardConfiguration(name: "s", cluster: "test", directory: shards + "/s")
        configuration.durability = .always
        if isRestart { try await ShardReplica.openTest(configuration).close() }
        let synced = Synced()
        // What an earlier process made may have been made durable by nobody.
        let replica = try synced.during { try ShardReplica.openTest(configuration) }
        #expect(synced.all.contains(shards), "the name of s/")
        #expect(synced.all.last == shards + "/s", "the name of db/, once it is there")
        try await replica.close()
    }

    @Test func everyFolderOfAPathSurvives() throws {
        let directory = try TemporaryDirectory()
        let top = directory.path
        let (made, again) = (Synced(), Synced())
        try made.during { try Files.makeDirectories("\(top)/a/b/c/") }
        #expect(Set(made.all).isSuperset(of: [top, "\(top)/a", "\(top)/a/b"]), "\(made.all)")
        #expect(Files.exists("\(top)/a/b/c"))
        try again.during { try Files.makeDirectories("\(top)/a/b") }
        #expect(again.all == ["\(top)/a"])
        #expect(throws: KVError.self) { try Files.makeDirectories("/proc/none/such") }
    }

    @Test func theFolderOfSavedWritesSurvives() throws {
        let directory = try TemporaryDirectory()
        let synced = Synced()
        try synced.during {
            let files = DivergedFiles(directory: directory.path + "/diverged")
            let file = try files.begin(shard: "s", lsns: 1...2, wallMilliseconds: 0)
            _ = try file.finished(isComplete: true)
        }
        #expect(synced.all.contains(directory.path) && synced.all.contains(directory.path + "/diverged"))
    }
}

extension DivergedFile {
    fileprivate func finished(isComplete: Bool) throws(KVError) -> DivergedWrites {
        var file = self
        return try file.finish(isComplete: isComplete)
    }
}
