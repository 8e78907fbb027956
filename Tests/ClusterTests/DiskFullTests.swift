import Core
import DistribKVClient
import FoundationEssentials
import Glibc
import NIOHTTP1
import TestSupport
import Testing
import Wire

extension ClusterTests {
    @Suite struct DiskFull {
        /// Mounts are for the superuser, and not even for that one in every container.
        static let canMount: Bool = {
            let folder = FileManager.default.temporaryDirectory.path + "/distribkv-mount-\(UUID().uuidString)"
            guard mkdir(folder, 0o755) == 0 else { return false }
            defer { rmdir(folder) }
            guard mount("tmpfs", folder, "tmpfs", 0, "size=1m") == 0 else { return false }
            return umount(folder) == 0
        }()

        @Test(
            .timeLimit(.minutes(5)),
            .enabled(if: canMount, "mounting a small tmpfs is not allowed here"), arguments: ["always", "os"])
        func writesStopReadsGoOn(durability: String) async throws {
            var layout = Layout.single(durability: durability)
            layout.storage = ["write_buffer_bytes = \"1MiB\"", "block_cache_bytes = \"1MiB\""]
            try await TestCluster.with(layout) { cluster in
                let folder = cluster.dataDirectory(0)
                try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
                try #require(mount("tmpfs", folder, "tmpfs", 0, "size=24m") == 0)
                do {
                    try await fill(cluster)
                } catch {
                    await cluster.stopAll()
                    umount(folder)
                    throw error
                }
                await cluster.stopAll()
                #expect(umount(folder) == 0)
            }
        }

        private func fill(_ cluster: TestCluster) async throws {
            let node = cluster.nodes[0]
            try await cluster.startNode(0)
            var acknowledged: [(key: String, value: [UInt8])] = []
            var refusal: NodeResponse?
            var random = SeededGenerator(seed: testSeed("writesStopReadsGoOn"))
            while refusal == nil {
                try #require(acknowledged.count < 10_000, "the disk never gets full")
                let (key, value) = ("full-\(acknowledged.count)", random.bytes(20_000))
                let put = try await HTTP.send(.PUT, "/kv/\(key)", to: node, body: value)
                if put.status == 204 { acknowledged.append((key, value)) } else { refusal = put }
            }
            let problem = try #require(refusal)
            #expect([503, 507].contains(problem.status))
            #expect(["storage-full", "storage-failed"].contains(problem.problem), "\(problem.text)")
            #expect(acknowledged.count > 100)
            // Not ready, says why, and reads go on.
            let ready = try await HTTP.get(APIPath.readyz, from: node)
            #expect(ready.status == 503)
            let status = try await HTTP.document(StorageNodeStatus.self, APIPath.status, from: node)
            #expect(status.shards.first?.failure != nil)
            for (key, value) in acknowledged {
                let get = try await HTTP.get("/kv/\(key)", from: node)
                #expect(get.status == 200 && get.bytes == value, "\(key): \(get.status) \(get.text.prefix(200))")
            }
            let again = try await HTTP.send(.PUT, "/kv/again", to: node, body: [1])
            #expect(again.status == problem.status)
            _ = try await cluster.node(0).terminate()

            // Room again: everything acknowledged is there, and writes are taken.
            try #require(mount("tmpfs", cluster.dataDirectory(0), "tmpfs", UInt(MS_REMOUNT), "size=96m") == 0)
            try await cluster.startNode(0)
            for (key, value) in acknowledged {
                let get = try await HTTP.get("/kv/\(key)", from: node)
                #expect(get.status == 200 && get.bytes == value, "\(key): \(get.status) after the restart")
            }
            #expect(try await HTTP.send(.PUT, "/kv/again", to: node, body: [1]).status == 204)
        }
    }
}
