import Core
import DistribKVClient
import FoundationEssentials
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Damaged replicas of real processes: what is whole is never replaced, what is damaged comes back by itself.
    @Suite struct DamageRebuilds {
        private static func layout(shards: Int) -> Layout {
            var layout = Layout.ring(shards: shards, nodes: 2, replicas: 2)
            layout.storage = ["write_buffer_bytes = \"1MiB\"", "block_cache_bytes = \"1MiB\""]
            return layout
        }

        /// Keys of a shard with their values, on all replicas and in tables.
        private static func write(_ count: Int, to shard: String, of cluster: TestCluster) async throws -> [String:
            String]
        {
            let tag = try cluster.tag(for: shard)
            var values: [String: String] = [:]
            for number in 0..<count {
                let key = "\(tag)-\(1_000 + number)"
                values[key] =
                    "\(key) " + (0..<20).map { _ in String(UInt64.random(in: 0 ... .max), radix: 36) }.joined()
            }
            for (key, value) in values {
                let leader = cluster.leader(of: Array(key.utf8))
                let put = try await HTTP.send(
                    .PUT, APIPath.key(key.utf8) + "?ack=all", to: leader, body: Array(value.utf8))
                try #require(put.status == 204)
            }
            for node in cluster.nodes.indices { try await compact(shard, at: node, of: cluster) }
            return values
        }

        private static func compact(_ shard: String, at node: Int, of cluster: TestCluster) async throws {
            let path = APIPath.compaction(shard: shard)
            #expect(try await HTTP.send(.POST, path, to: cluster.listens[node]).status == 202)
            try await eventually("the end of a compaction") {
                try await !HTTP.document(CompactionDocument.self, path, from: cluster.listens[node]).isRunning
            }
        }

        private static func directory(_ shard: String, _ node: Int, _ cluster: TestCluster) -> String {
            "\(cluster.dataDirectory(node))/shards/\(shard)"
        }

        private static func flip(
            _ shard: String, _ node: Int, _ cluster: TestCluster, at place: @escaping (Int) -> Int
        ) throws {
            let table = try #require(Damage.tables(in: directory(shard, node, cluster) + "/db").first)
            try Damage.flipBit(ofFile: table, at: place)
        }

        /// Those of the keys that the node has a value of; every one of those must be right, and none missing.
        private static func readable(
            _ values: [String: String], at node: Int, of cluster: TestCluster
        ) async throws -> Set<String> {
            var readable: Set<String> = []
            for (key, value) in values {
                let response = try await HTTP.get(APIPath.key(key.utf8), from: cluster.listens[node])
                switch response.status {
                case 200:
                    #expect(response.text == value, "\(key) at node \(node)")
                    readable.insert(key)
                case 307: continue
                default: #expect(response.status == 503 && response.problem == "corrupted", "\(key): \(response.text)")
                }
            }
            return readable
        }

        /// Waits until the replica is whole, and compares what it has.
        private static func expectWhole(
            _ values: [String: String], _ shard: String, at node: Int, of cluster: TestCluster,
            sourceLocation: SourceLocation = #_sourceLocation
        ) async throws {
            try await eventually("\(shard) to be whole on node \(node)") {
                guard let status = try await cluster.status(of: shard, at: node) else { return false }
                return status.damage == nil && [.leading, .following].contains(status.state)
            }
            try await cluster.waitUntilReady(cluster.listens[node], cluster.node(node))
            let readable = try await readable(values, at: node, of: cluster)
            #expect(readable == Set(values.keys), "node \(node)", sourceLocation: sourceLocation)
        }

        private static func installed(_ node: Int, _ cluster: TestCluster) async throws -> Int {
            let metrics = try await HTTP.get(APIPath.metrics, from: cluster.listens[node]).text
            let line = metrics.split(separator: "\n").first { $0.hasPrefix("distribkv_snapshots_installed_total") }
            return try #require(line?.split(separator: " ").last.flatMap { Int($0) })
        }

        // MARK: Followers

        @Test(.timeLimit(.minutes(4))) func aRunningFollowerIsRebuilt() async throws {
            try await TestCluster.running(Self.layout(shards: 1), router: false) { cluster in
                let values = try await Self.write(300, to: "shard-0", of: cluster)
                try Self.flip("shard-0", 1, cluster) { $0 / 3 }
                let readable = try await Self.readable(values, at: 1, of: cluster)
                try await eventually("a snapshot in place") { try await Self.installed(1, cluster) == 1 }
                #expect(try cluster.node(1).log.contains("this replica is damaged"))
                #expect(readable.count < values.count || readable == Set(values.keys))
                try await Self.expectWhole(values, "shard-0", at: 1, of: cluster)
                try await Self.expectWhole(values, "shard-0", at: 0, of: cluster)
                #expect(try await Self.installed(0, cluster) == 0, "the good copy was replaced")
                let status = try await cluster.kv(["status"], at: cluster.nodes[0])
                #expect(status.status == .exited(0), "\(status)")
            }
        }

        private enum Loss: String, CaseIterable {
            case bit, current, manifest, footer, fence, folder

            /// Whether the database may hold what nobody else has, for all that is known.
            var keepsDatabase: Bool { [.current, .manifest, .footer].contains(self) }

            func inflict(on directory: String) throws {
                let names = try FileManager.default.contentsOfDirectory(atPath: "\(directory)/db")
                let manifest = try #require(names.first { $0.hasPrefix("MANIFEST") })
                let tables = try Damage.tables(in: "\(directory)/db")
                switch self {
                case .bit: try Damage.flipBit(ofFile: #require(tables.first)) { $0 / 3 }
                case .current: try FileManager.default.removeItem(atPath: "\(directory)/db/CURRENT")
                case .manifest: try FileManager.default.removeItem(atPath: "\(directory)/db/\(manifest)")
                case .footer: for table in tables { try Damage.flipBit(ofFile: table) { $0 - 4 } }
                case .fence: try writeFile("\(directory)/FENCE", "damage")
                case .folder: try FileManager.default.removeItem(atPath: "\(directory)/db")
                }
            }
        }

        /// The other shard of the node, which leads it, is served meanwhile.
        @Test(.timeLimit(.minutes(8))) func aFollowerThatWasDamagedWhileItWasStoppedIsRebuilt() async throws {
            try await TestCluster.running(Self.layout(shards: 2), router: false) { cluster in
                let values = try await Self.write(200, to: "shard-0", of: cluster)
                let others = try await Self.write(5, to: "shard-1", of: cluster)
                let folder = Self.directory("shard-0", 1, cluster)
                for loss in Loss.allCases {
                    try await Self.compact("shard-0", at: 1, of: cluster)
                    #expect(try await cluster.node(1).terminate() == .exited(0))
                    try loss.inflict(on: folder)
                    try await cluster.startNode(1)
                    for (key, value) in others {
                        let response = try await HTTP.get(APIPath.key(key.utf8), from: cluster.listens[1])
                        #expect(response.status == 200 && response.text == value, "\(loss): \(key)")
                        let put = try await HTTP.send(
                            .PUT, APIPath.key(key.utf8), to: cluster.listens[1], body: Array(value.utf8))
                        #expect(put.status == 204, "\(loss)")
                    }
                    if loss == .bit { _ = try await Self.readable(values, at: 1, of: cluster) }
                    try await eventually("a snapshot in the place of what \(loss) damaged") {
                        try await Self.installed(1, cluster) == 1
                    }
                    try await Self.expectWhole(values, "shard-0", at: 1, of: cluster)
                    let status = try await cluster.status(of: "shard-0", at: 1)
                    #expect((status?.setAside != nil) == loss.keepsDatabase, "\(loss)")
                    if let kept = status?.setAside { try FileManager.default.removeItem(atPath: kept) }
                }
                try await Self.expectWhole(values, "shard-0", at: 0, of: cluster)
                #expect(try await Self.installed(0, cluster) == 0, "the good copy was replaced")
            }
        }

        // MARK: Leaders

        @Test(.timeLimit(.minutes(4))) func aDamagedLeaderHandsOverAndIsRebuilt() async throws {
            try await TestCluster.running(Self.layout(shards: 1), router: false) { cluster in
                let values = try await Self.write(300, to: "shard-0", of: cluster)
                try Self.flip("shard-0", 0, cluster) { $0 / 3 }
                _ = try await Self.readable(values, at: 0, of: cluster)
                #expect(try cluster.node(0).log.contains("this replica is damaged"))
                try await eventually("the leadership to move") {
                    try await cluster.refreshTopology().shards[0].leader == cluster.nodes[1]
                }
                try await eventually("a snapshot in place") { try await Self.installed(0, cluster) == 1 }
                try await Self.expectWhole(values, "shard-0", at: 0, of: cluster)
                try await Self.expectWhole(values, "shard-0", at: 1, of: cluster)
                #expect(try await Self.installed(1, cluster) == 0, "the good copy was replaced")
            }
        }

        /// There is nobody to rebuild it from before another leads.
        @Test(.timeLimit(.minutes(4))) func aLeaderThatDoesNotOpenIsRebuiltOnceAnotherLeads() async throws {
            try await TestCluster.running(Self.layout(shards: 1), router: false) { cluster in
                let values = try await Self.write(100, to: "shard-0", of: cluster)
                #expect(try await cluster.node(0).terminate() == .exited(0))
                try Loss.manifest.inflict(on: Self.directory("shard-0", 0, cluster))
                try await cluster.startNode(0)
                let ready = try await HTTP.get(APIPath.readyz, from: cluster.listens[0])
                #expect(ready.status == 503 && ready.text.contains("kv failover shard-0"), "\(ready.text)")
                let status = try await cluster.kv(["status"], at: cluster.nodes[1])
                #expect(status.status == .exited(3) && status.output.contains("damaged"), "\(status)")
                try await cluster.failover("shard-0", at: cluster.nodes[1])
                try await Self.expectWhole(values, "shard-0", at: 0, of: cluster)
                try await Self.expectWhole(values, "shard-0", at: 1, of: cluster)
                #expect(try await Self.installed(1, cluster) == 0, "the good copy was replaced")
            }
        }

        /// Each has what the other has lost. Nobody takes the place of anybody.
        @Test(.timeLimit(.minutes(4))) func twoDamagedReplicasStayAsTheyAre() async throws {
            try await TestCluster.running(Self.layout(shards: 1), router: false) { cluster in
                let values = try await Self.write(300, to: "shard-0", of: cluster)
                try Self.flip("shard-0", 0, cluster) { $0 / 8 }
                try Self.flip("shard-0", 1, cluster) { $0 / 2 }
                // The leader first: once it knows, it gives no snapshot.
                let onLeader = try await Self.readable(values, at: 0, of: cluster)
                let onFollower = try await Self.readable(values, at: 1, of: cluster)
                #expect(onLeader.count < values.count && onFollower.count < values.count)
                #expect(onLeader.union(onFollower) == Set(values.keys))
                try await eventually("both to say what they wait for") {
                    let replicator = try await HTTP.document(
                        ReplicatorStatus.self, APIPath.status, from: cluster.replicator)
                    let error = replicator.shards.first?.followers.first?.lastError ?? ""
                    return try error.contains("gives no snapshot")
                        && cluster.node(0).log.contains("is damaged and has not handed over yet")
                }
                for node in [0, 1] {
                    #expect(try await HTTP.get(APIPath.readyz, from: cluster.listens[node]).status == 503)
                    #expect(try await cluster.status(of: "shard-0", at: node)?.damage != nil)
                    #expect(try await Self.installed(node, cluster) == 0)
                }
                let put = try await HTTP.send(
                    .PUT, "/kv/\(try cluster.tag(for: "shard-0"))?ack=all", to: cluster.nodes[0], body: [1])
                #expect(put.status == 204, "the follower is fed all the same")
                let leaderAgain = try await Self.readable(values, at: 0, of: cluster)
                let followerAgain = try await Self.readable(values, at: 1, of: cluster)
                #expect(leaderAgain == onLeader && followerAgain == onFollower)
                #expect(try await cluster.kv(["status"], at: cluster.nodes[0]).status == .exited(3))
            }
        }
    }
}
