import Core
import DistribKVClient
import FoundationEssentials
import Glibc
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Followers that the log cannot feed.
    @Suite struct Snapshots {
        /// About five megabytes of data, of which the log keeps the last one.
        private static func layout(nodes: Int, spare: Int = 0, rate: String) -> Layout {
            var layout = Layout.ring(shards: 1, nodes: nodes, replicas: nodes)
            layout.storage = ["write_buffer_bytes = \"1MiB\"", "block_cache_bytes = \"4MiB\""]
            layout.replication = ["log_retention_bytes = \"1MiB\"", "snapshot_bytes_per_second = \"\(rate)\""]
            layout.spareNodes = spare
            return layout
        }

        /// A follower that was stopped for too long is rebuilt and a new node joins, both by a snapshot and while writes
        /// go on; all who take part are killed in the middle of it.
        @Test(.timeLimit(.minutes(8)))
        func behindTheLog() async throws {
            let seed = testSeed("behindTheLog")
            try await TestCluster.running(Self.layout(nodes: 3, spare: 1, rate: "2MiB")) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "light", acks: [nil, .quorum, nil, .leader])
                try await load.writeMore(60, writers: 4, seed: seed)
                try await cluster.waitForConvergence()
                let position = try await HTTP.position(of: "shard-0", at: cluster.nodes[2])
                try await cluster.node(2).killHard()
                try await Self.outrunLog(cluster, ledger, seed, follower: position)
                try await load.running(writers: 4, seed: seed &+ 10) {
                    try await cluster.startNode(2)
                    try await cluster.join(3, shard: "shard-0")
                    try await Self.interruptFollower(cluster, load)
                    try await Self.interruptReplicator(cluster)
                    try await Self.interruptLeader(cluster)
                    for node in [2, 3] {
                        try await cluster.waitUntilReady(cluster.listens[node], cluster.node(node))
                        try await Self.waitForInstallation(cluster, node)
                    }
                    try await load.waitForMore(40)
                }
                try await cluster.waitForOneTopology()
                #expect(cluster.topology.shards[0].replicas.count == 4)
                try await cluster.expectEqualReplicas(ledger, "seed \(seed)")

                #expect(try await cluster.node(3).terminate() == .exited(0))
                try await cluster.startWithoutFile(3)
                try await load.writeMore(40, writers: 4, seed: seed &+ 20)
                try await cluster.expectEqualReplicas(ledger, "restarted, seed \(seed)")
                let status = try await cluster.kv(["status"])
                #expect(status.status == .exited(0), "\(status)")
            }
        }

        /// Until the log of the leader no longer reaches back to where a follower stopped.
        private static func outrunLog(
            _ cluster: TestCluster, _ ledger: Ledger, _ seed: UInt64, follower position: LogPosition
        ) async throws {
            let load = Load(
                cluster: cluster, ledger: ledger, name: "heavy", routes: [.direct], valueBytesMax: 200_000)
            try await eventually("the log to forget its start") {
                try await load.writeMore(50, writers: 4, seed: seed &+ 1)
                // What it has in memory goes as well.
                try await cluster.node(0).killHard()
                try await cluster.startNode(0)
                return (try await cluster.status(of: "shard-0", at: 0)?.logFirstLsn ?? 0) > position.lsn + 1
            }
        }

        /// Waits until a snapshot is on its way to `node` and has the replicator stand still there.
        private static func stopInTheMiddle(_ cluster: TestCluster, _ node: Int) async throws -> SnapshotProgress {
            let replicator = try #require(cluster.process("replicator"))
            return try await eventually("a snapshot on its way") {
                guard try await underWay(cluster, node) != nil else { return nil }
                try await replicator.freeze()
                guard let progress = try await underWay(cluster, node) else {
                    replicator.thaw()
                    return nil
                }
                return progress
            }
        }

        private static func underWay(_ cluster: TestCluster, _ node: Int) async throws -> SnapshotProgress? {
            let progress = try await cluster.status(of: "shard-0", at: node)?.snapshot
            return progress.flatMap { $0.bytesDone > 0 && $0.bytesDone < $0.bytesTotal ? $0 : nil }
        }

        /// It comes up with what it had before, goes on with what it has of the snapshot, and says so.
        private static func interruptFollower(_ cluster: TestCluster, _ load: Load) async throws {
            let progress = try await stopInTheMiddle(cluster, 2)
            // Nobody brings it anything now. One snapshot may have come and gone before this one was caught.
            let position = try await HTTP.position(of: "shard-0", at: cluster.listens[2])
            let status = try await cluster.kv(["status"])
            #expect(status.output.contains("rebuilding "), "\(status.output)")
            try await load.waitForMore(20)
            try await cluster.node(2).killHard()
            try await cluster.startNode(2)
            #expect(try await HTTP.position(of: "shard-0", at: cluster.listens[2]) == position)
            let after = try await cluster.status(of: "shard-0", at: 2)?.snapshot
            #expect(after.map { $0.bytesDone >= progress.bytesDone && $0.bytesTotal == progress.bytesTotal } == true)
            cluster.process("replicator")?.thaw()
        }

        private static func interruptReplicator(_ cluster: TestCluster) async throws {
            _ = try await stopInTheMiddle(cluster, 2)
            try await cluster.process("replicator")?.killHard()
            try await cluster.startReplicator()
        }

        /// Its checkpoint goes with it: another one is made.
        private static func interruptLeader(_ cluster: TestCluster) async throws {
            _ = try await stopInTheMiddle(cluster, 2)
            try await cluster.node(0).killHard()
            try await cluster.startNode(0)
            cluster.process("replicator")?.thaw()
        }

        private static func waitForInstallation(_ cluster: TestCluster, _ node: Int) async throws {
            try await eventually("node \(node) to have a snapshot in place") {
                try cluster.node(node).log.contains("snapshot installed")
            }
            let metrics = try await HTTP.get(APIPath.metrics, from: cluster.listens[node]).text
            let line = metrics.split(separator: "\n").first { $0.hasPrefix("distribkv_snapshots_installed_total") }
            #expect(line.map { !$0.hasSuffix(" 0") } == true, "\(line ?? "no such metric")")
        }

        /// No room for the snapshot, from the start and in the middle: the follower keeps what it has and says what is
        /// wrong, and goes on when there is room.
        @Test(
            .timeLimit(.minutes(5)),
            .enabled(if: DiskFull.canMount, "mounting a small tmpfs is not allowed here"))
        func withoutRoom() async throws {
            let seed = testSeed("withoutRoom")
            try await TestCluster.with(Self.layout(nodes: 2, rate: "2MiB")) { cluster in
                let folder = cluster.dataDirectory(1)
                try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
                try #require(mount("tmpfs", folder, "tmpfs", 0, "size=64m") == 0)
                do {
                    try await Self.fillDuringSnapshot(cluster, ballast: "\(folder)/ballast", seed)
                } catch {
                    await cluster.stopAll()
                    umount(folder)
                    throw error
                }
                await cluster.stopAll()
                #expect(umount(folder) == 0)
            }
        }

        private static func fillDuringSnapshot(_ cluster: TestCluster, ballast: String, _ seed: UInt64) async throws {
            let ledger = Ledger()
            try await cluster.startNodes()
            try await cluster.startReplicator()
            try await cluster.startRouter()
            try await cluster.put("early", [7], "?ack=all&timeout=60s", to: cluster.nodes[0], ledger)
            let position = try await HTTP.position(of: "shard-0", at: cluster.nodes[1])
            try await cluster.node(1).killHard()
            try await outrunLog(cluster, ledger, seed, follower: position)

            // Files of the database that are longer than what is in them are cut when it is opened.
            try await cluster.process("replicator")?.killHard()
            try await cluster.startNode(1)
            try fill(ballast, leaving: 1 << 20)
            try await cluster.startReplicator()
            try await waitForComplaint(cluster, "does not fit on the disk")
            try await expectOldState(cluster, position)
            try FileManager.default.removeItem(atPath: ballast)

            _ = try await stopInTheMiddle(cluster, 1)
            try fill(ballast, leaving: 0)
            cluster.process("replicator")?.thaw()
            try await waitForComplaint(cluster, "507")
            try await expectOldState(cluster, position)
            try FileManager.default.removeItem(atPath: ballast)
            try await waitForInstallation(cluster, 1)
            try await cluster.expectEqualReplicas(ledger, "seed \(seed)")
        }

        /// Takes what is free on the disk, less `bytes`.
        private static func fill(_ path: String, leaving bytes: Int) throws {
            let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
            try #require(descriptor >= 0)
            defer { close(descriptor) }
            var room = statvfs()
            try #require(fstatvfs(descriptor, &room) == 0)
            let size = max(0, Int(room.f_bavail) * Int(room.f_bsize) - bytes)
            #expect(posix_fallocate(descriptor, 0, size) == 0)
        }

        private static func waitForComplaint(_ cluster: TestCluster, _ words: String) async throws {
            try await eventually("the replicator to say \"\(words)\"") {
                let status = try await HTTP.document(ReplicatorStatus.self, APIPath.status, from: cluster.replicator)
                return status.shards.first?.followers.first?.lastError?.contains(words) ?? false
            }
        }

        private static func expectOldState(_ cluster: TestCluster, _ position: LogPosition) async throws {
            #expect(try await HTTP.position(of: "shard-0", at: cluster.nodes[1]) == position)
            let early = try await HTTP.get("/kv/early", from: cluster.nodes[1])
            #expect(early.status == 200 && early.bytes == [7], "\(early.status) \(early.text)")
            let status = try #require(try await cluster.status(of: "shard-0", at: 1))
            #expect(status.failure == nil && status.state == .following, "\(status)")
        }
    }
}
