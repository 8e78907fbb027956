import Core
import FoundationEssentials
import Sharding
import Testing

@testable import Configuration

private func topology(epoch: UInt64, cluster: String = "demo", leader: Int = 7_001) throws -> Topology {
    try Topology.placing(
        cluster: cluster, epoch: epoch,
        shards: [
            ShardPlacement(
                name: "a", index: 0, leader: NodeAddress(host: "127.0.0.1", port: leader),
                followers: [NodeAddress(host: "127.0.0.1", port: 7_009)])
        ])
}

@Suite struct TopologyChoiceTests {
    @Test func theFirstStartUsesTheFile() throws {
        let file = try topology(epoch: 1)
        let choice = try TopologyChoice.resolve(file: file, saved: nil)
        #expect(choice == TopologyChoice(topology: file, isNew: true, note: nil))
    }

    @Test func theSameTopologyIsNothingNew() throws {
        let file = try topology(epoch: 1)
        let choice = try TopologyChoice.resolve(file: file, saved: topology(epoch: 1))
        #expect(choice == TopologyChoice(topology: file, isNew: false, note: nil))
    }

    @Test func theHigherEpochWins() throws {
        let (old, new) = (try topology(epoch: 1), try topology(epoch: 2, leader: 7_002))
        let raised = try TopologyChoice.resolve(file: new, saved: old)
        #expect(raised.topology == new)
        #expect(raised.isNew)
        #expect(raised.note == "topology of epoch 2 from sharding.toml replaces the saved one of epoch 1")
        let kept = try TopologyChoice.resolve(file: old, saved: new)
        #expect(kept.topology == new)
        #expect(!kept.isNew)
        #expect(kept.note == "using the saved topology of epoch 2: that of sharding.toml has epoch 1")
    }

    @Test func aChangeWithoutANewEpochIsRefused() throws {
        let (saved, file) = (try topology(epoch: 4), try topology(epoch: 4, leader: 7_002))
        let error = #expect(throws: KVError.self) { try TopologyChoice.resolve(file: file, saved: saved) }
        #expect(error?.code == .invalidConfiguration)
        #expect(
            error?.message
                == "[[shards]] in sharding.toml changed but [cluster] epoch is still 4; "
                + "set epoch = 5 to apply the change, or undo it")
    }

    @Test func anotherClustersDataIsRefused() throws {
        let (saved, file) = (try topology(epoch: 9, cluster: "orders"), try topology(epoch: 1))
        let error = #expect(throws: KVError.self) { try TopologyChoice.resolve(file: file, saved: saved) }
        #expect(error?.code == .invalidConfiguration)
        #expect(error?.message.contains("belongs to cluster \"orders\"") == true)
    }

    /// Terms may never go back, whatever the file says, and a new leader is above the old one.
    @Test func termsRiseWithTheEpoch() throws {
        let terms = try (1...5).map { try topology(epoch: $0, leader: 7_000 + Int($0)).shards[0].term }
        #expect(terms == [1, 2, 3, 4, 5])
    }
}

@Suite struct PersistedTopologyTests {
    @Test func nothingIsThereAtFirst() throws {
        try withTemporaryDirectory { directory in
            let loaded = try PersistedTopology(directory: directory).load()
            #expect(loaded == nil)
        }
    }

    @Test func whatIsSavedIsLoaded() throws {
        try withTemporaryDirectory { directory in
            let file = PersistedTopology(directory: directory)
            for epoch: UInt64 in 1...3 {
                let saved = try topology(epoch: epoch)
                try file.save(saved)
                let loaded = try PersistedTopology(directory: directory).load()
                #expect(loaded == saved)
            }
            let names = try FileManager.default.contentsOfDirectory(atPath: directory)
            #expect(names == ["topology.json"])
        }
    }

    /// A crash between writing and renaming leaves the temporary file: it must not matter.
    @Test func aTornTemporaryFileIsIgnored() throws {
        try withTemporaryDirectory { directory in
            let file = PersistedTopology(directory: directory)
            let saved = try topology(epoch: 1)
            try file.save(saved)
            try Data("{\"clus".utf8).write(to: URL(filePath: file.path + ".tmp"))
            #expect(try file.load() == saved)
            let next = try topology(epoch: 2)
            try file.save(next)
            #expect(try file.load() == next)
        }
    }

    @Test(arguments: ["", "{", "{\"cluster\":\"demo\"}", "\u{0}\u{0}\u{0}"])
    func aDamagedFileIsNeverTakenForAFirstStart(contents: String) throws {
        try withTemporaryDirectory { directory in
            let file = PersistedTopology(directory: directory)
            try LocalFile.replace(path: file.path, with: Array(contents.utf8))
            let error = #expect(throws: KVError.self) { try file.load() }
            #expect(error?.code == .corrupted)
            #expect(error?.message.hasPrefix(file.path) == true)
        }
    }

    @Test func aDirectoryThatIsNotThereIsAnError() throws {
        try withTemporaryDirectory { directory in
            let file = PersistedTopology(directory: directory + "/none")
            let saved = try topology(epoch: 1)
            let error = #expect(throws: KVError.self) { try file.save(saved) }
            #expect(error?.code == .storageFailed)
            #expect(error?.message == "\(file.path): cannot be written: No such file or directory")
        }
    }
}
