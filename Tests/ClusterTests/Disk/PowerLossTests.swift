import Core
import DistribKVClient
import FoundationEssentials
import NIOHTTP1
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Power that is lost at any moment, replayed from what a real node did to its disk.
    @Suite struct PowerLosses {
        /// With `always` everything acknowledged is there; otherwise a prefix of it, in the order of the writes.
        @Test(.timeLimit(.minutes(5)), arguments: ["always", "interval", "os"])
        func steadyWrites(durability: String) async throws {
            let seed = testSeed("steadyWrites(\(durability))")
            var random = SeededGenerator(seed: seed)
            try await TestCluster.with(Self.layout(durability)) { cluster in
                // What the first start makes is durable here; firstStart() looks at that.
                try await Self.startAndStop(cluster)
                let base = try SimulatedDisk(at: cluster.dataDirectory(0))
                let (preload, history) = try await Self.recorded(
                    cluster, writes: 130, valueBytesMax: 60_000, using: &random)
                let loss = try PowerLoss(preload, base: base)
                let isAlways = durability == "always"
                let count = PowerLoss.runs(isAlways ? 16 : 8)
                let moments = loss.moments(
                    count, isAlways ? [.everything, nil, nil] : [nil, nil, .everything], using: &random)
                try await loss.replay(moments, in: cluster.directory) { moment, image in
                    let comment = "seed \(seed), \(durability), \(moment)"
                    guard let found = try await Self.content(of: image, cluster, comment) else { return }
                    let sent = history.sent(by: moment.time)
                    let least = isAlways ? history.acknowledged(by: moment.time) : 0
                    let kept = history.count(in: least...max(least, sent), explaining: found)
                    #expect(
                        kept != nil,
                        """
                        \(comment): the content is that after none of writes \(least)...\(sent); \
                        \(history.explanation(of: found, sent: sent))
                        """)
                }
                let directory = cluster.dataDirectory(0)
                let again = try SimulatedDisk(at: directory, base: "\(cluster.directory)/base")
                try PowerLoss(preload, base: again).expectWhole(directory)
            }
        }

        /// A directory that nobody had before: its own names are durable as well when something is acknowledged.
        @Test(.timeLimit(.minutes(5)))
        func firstStart() async throws {
            let seed = testSeed("firstStart")
            var random = SeededGenerator(seed: seed)
            try await TestCluster.with(Self.layout("always")) { cluster in
                let directory = cluster.dataDirectory(0)
                try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
                let base = try SimulatedDisk(at: directory)
                let (preload, history) = try await Self.recorded(
                    cluster, writes: 12, valueBytesMax: 2_000, using: &random)
                let loss = try PowerLoss(preload, base: base)
                let acknowledged = try #require(history.writes.first).acknowledged
                let moments =
                    loss.moments(PowerLoss.runs(4), [.everything, nil], using: &random)
                    + loss.moments(PowerLoss.runs(6), from: acknowledged, [.everything, nil], using: &random)
                try await loss.replay(moments.sorted { $0.time < $1.time }, in: cluster.directory) { moment, image in
                    let comment = "seed \(seed), \(moment)"
                    guard let found = try await Self.content(of: image, cluster, comment) else { return }
                    let least = history.acknowledged(by: moment.time)
                    let kept = history.count(
                        in: least...max(least, history.sent(by: moment.time)), explaining: found)
                    #expect(
                        kept != nil, "\(comment): \(least) writes were acknowledged, \(found.count) keys are there")
                }
            }
        }

        /// A promise that was given is kept.
        @Test(.timeLimit(.minutes(3)))
        func promise() async throws {
            let seed = testSeed("promise")
            var random = SeededGenerator(seed: seed)
            var layout = Self.layout("always")
            layout.shards[0].replicas = [1, 0]
            try await TestCluster.with(layout) { cluster in
                try await Self.startAndStop(cluster)
                let base = try SimulatedDisk(at: cluster.dataDirectory(0))
                let preload = try await Self.start(cluster)
                var given: [(time: Int, term: UInt64)] = []
                for term: UInt64 in [5, 9, 12] {
                    let request = FenceRequest(term: term, candidate: cluster.nodes[1])
                    let answer = try await HTTP.send(
                        .POST, APIPath.fence(shard: "shard-0"), to: cluster.nodes[0],
                        body: Array(try DocumentCoding.encode(request)))
                    try #require(answer.status == 200, "\(answer.text)")
                    given.append((preload.now, term))
                }
                try await cluster.node(0).killHard()
                let loss = try PowerLoss(preload, base: base)
                let moments = loss.moments(
                    PowerLoss.runs(5), from: given[0].time, [.everything, nil], using: &random)
                try await loss.replay(moments, in: cluster.directory) { moment, image in
                    let process = try await cluster.launch(
                        TestCluster.nodeName(0), .storageNode, Self.arguments(cluster, image))
                    try await cluster.waitUntilAlive(cluster.listens[0], process)
                    let history = try await HTTP.document(
                        HistoryDocument.self, APIPath.history(shard: "shard-0"), from: cluster.nodes[0])
                    let least = given.last { $0.time <= moment.time }?.term ?? 0
                    #expect(history.newestTerm >= least, "seed \(seed), \(moment): promised \(least)")
                    #expect(history.promisedTo == cluster.nodes[1], "seed \(seed), \(moment)")
                    try await process.killHard()
                }
            }
        }

        /// A follower that is rebuilt has what it had before or what the snapshot has, also where the power fails while
        /// one database takes the place of the other.
        @Test(.timeLimit(.minutes(5)))
        func snapshotInstallation() async throws {
            let seed = testSeed("snapshotInstallation")
            var random = SeededGenerator(seed: seed)
            var layout = Self.layout("always")
            layout.shards[0].replicas = [0, 1]
            layout.replication = ["log_retention_bytes = \"1MiB\""]
            try await TestCluster.running(layout, router: false) { cluster in
                let unwatched = try DiskPreload(disk: cluster.dataDirectory(0), name: "none", traces: false)
                var history = WriteHistory()
                func write(_ count: Int) async throws {
                    try await history.write(
                        count, valueBytesMax: 200_000, to: cluster.nodes[0], unwatched, using: &random)
                }
                try await write(10)
                try await cluster.waitForConvergence()
                #expect(try await cluster.node(1).terminate() == .exited(0))
                let base = try SimulatedDisk(at: cluster.dataDirectory(1))
                let position = try await HTTP.position(of: "shard-0", at: cluster.nodes[0])
                try await eventually("the log to forget its start") {
                    try await write(50)
                    // What it has in memory goes as well.
                    try await cluster.node(0).killHard()
                    try await cluster.startNode(0)
                    return (try await cluster.status(of: "shard-0", at: 0)?.logFirstLsn ?? 0) > position.lsn + 1
                }
                let preload = try await Self.start(cluster, node: 1)
                try await eventually("the snapshot to be in place") {
                    try cluster.node(1).log.contains("snapshot installed")
                }
                try await write(5)
                try await cluster.waitForConvergence()
                #expect(try await cluster.node(1).terminate() == .exited(0))
                // It would go on with the rebuilding of what is looked at.
                try await cluster.process("replicator")?.killHard()
                let loss = try PowerLoss(preload, base: base)
                let moments = loss.moments(PowerLoss.runs(12), [.everything, nil], using: &random)
                try await loss.replay(moments, in: cluster.directory) { moment, image in
                    let comment = "seed \(seed), \(moment)"
                    guard let found = try await Self.content(of: image, cluster, node: 1, comment) else { return }
                    #expect(
                        history.count(in: 10...history.writes.count, explaining: found) != nil,
                        "\(comment): the content is that after none of the writes")
                }
            }
        }

        // MARK: Runs

        /// The smallest memtables that are allowed: the log changes files every few writes.
        static func layout(_ durability: String) -> Layout {
            var layout = Layout.single(durability: durability)
            layout.storage = ["write_buffer_bytes = \"1MiB\"", "block_cache_bytes = \"4MiB\""]
            return layout
        }

        private static func startAndStop(_ cluster: TestCluster) async throws {
            try await cluster.startNode(0)
            #expect(try await cluster.node(0).terminate() == .exited(0))
            try FileManager.default.copyItem(atPath: cluster.dataDirectory(0), toPath: "\(cluster.directory)/base")
        }

        static func start(_ cluster: TestCluster, node: Int = 0) async throws -> DiskPreload {
            let preload = try DiskPreload(disk: cluster.dataDirectory(node), name: "power", traces: true)
            let process = try await cluster.launch(
                TestCluster.nodeName(node), .storageNode, cluster.nodeArguments(node),
                environment: try await preload.environment())
            try await cluster.waitUntilAlive(cluster.listens[node], process)
            return preload
        }

        /// Starts node 0, writes, and stops it: power is lost on paper.
        private static func recorded(
            _ cluster: TestCluster, writes: Int, valueBytesMax: Int, using random: inout SeededGenerator
        ) async throws -> (DiskPreload, WriteHistory) {
            let preload = try await start(cluster)
            var history = WriteHistory()
            try await history.write(
                writes, valueBytesMax: valueBytesMax, to: cluster.nodes[0], preload, using: &random)
            #expect(try await cluster.node(0).terminate() == .exited(0))
            return (preload, history)
        }

        static func arguments(_ cluster: TestCluster, node: Int = 0, _ image: String) -> [String] {
            cluster.nodeArguments(node).map { $0 == cluster.dataDirectory(node) ? image : $0 }
        }

        /// Starts a node on an image, which has to become ready, and reads what it has.
        /// - Returns: nil where it did not, which has failed the test.
        private static func content(
            of image: String, _ cluster: TestCluster, node: Int = 0, _ comment: String
        ) async throws -> WriteHistory.Content? {
            let process = try await cluster.launch(
                TestCluster.nodeName(node), .storageNode, arguments(cluster, node: node, image))
            do {
                try await cluster.waitUntilReady(cluster.listens[node], process)
            } catch let error as GivenUp {
                Issue.record("\(comment): \(error)")
                return nil
            }
            let content = try await WriteHistory.read(from: cluster.nodes[node])
            try await process.killHard()
            return content
        }
    }
}
