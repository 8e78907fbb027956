import Core
import Shard
import Synchronization
import TestSupport
import Testing

@testable import StorageNodeService

@Suite struct DataDirectoryTests {
    /// Nothing that replicas write outlives a loss of power where the names above them do not.
    @Test(arguments: [false, true]) func itsNamesAreSyncedAtEveryStart(isRestart: Bool) throws {
        let above = try TemporaryDirectory()
        let path = above.path + "/var/data"
        if isRestart { _ = try DataDirectory(path: path) }
        let synced = Mutex<Set<String>>([])
        let directory = try Files.$onSync.withValue({ name in synced.withLock { _ = $0.insert(name) } }) {
            try DataDirectory(path: path)
        }
        withExtendedLifetime(directory) {}
        #expect(synced.withLock { $0 }.isSuperset(of: [path, above.path + "/var"]))
        if !isRestart { #expect(synced.withLock { $0 }.contains(above.path)) }
    }
}
