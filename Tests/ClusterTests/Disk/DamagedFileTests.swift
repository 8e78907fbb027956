import Core
import DistribKVClient
import FoundationEssentials
import NIOHTTP1
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Every kind of file in the data directory of a stopped node is damaged, while the shard's other replica is whole.
    ///
    /// Whatever follows, no acknowledged key that the other one has is answered wrongly, or as if it did not exist, by a
    /// node that says it is ready. What follows in each case is the table in docs/operations.md;
    /// `DISTRIBKV_UPDATE_EXAMPLES=1` writes it there.
    @Suite struct Damages {
        private static let page = "\(DiskPreload.repository)/docs/operations.md"
        private static let updates = ProcessInfo.processInfo.environment["DISTRIBKV_UPDATE_EXAMPLES"] != nil
        /// Part of a file's name in the table, for a run of a few cases by hand.
        private static let only = ProcessInfo.processInfo.environment["DISTRIBKV_DAMAGE_ONLY"]
        /// How long a node may take to be as it was, or to be rebuilt.
        private static let settlingMax = Duration.seconds(8)

        @Test(.timeLimit(.minutes(10)))
        func everyFile() async throws {
            var random = SeededGenerator(seed: testSeed("everyFile"))
            var layout = Layout.ring(shards: 1, nodes: 2, replicas: 2, durability: "always")
            layout.storage = ["write_buffer_bytes = \"1MiB\"", "block_cache_bytes = \"4MiB\""]
            try await TestCluster.with(layout) { cluster in
                var table = DamageTable()
                let stage = DamageStage(cluster)
                for situation in DamageCase.Situation.allCases { try await stage.prepare(situation, using: &random) }
                for damaged in DamageCase.all where Self.only.map({ damaged.name.contains($0) }) ?? true {
                    for damage in damaged.damages {
                        guard let outcome = try await Self.outcome(of: damage, to: damaged, stage) else { continue }
                        table.add(damaged.name, damage, outcome)
                    }
                }
                print(table.markdown)
                guard Self.only == nil else { return }
                let text = try String(contentsOfFile: Self.page, encoding: .utf8)
                let wanted = try #require(table.replacing(in: text), "\(Self.page) has no place for the table")
                if Self.updates {
                    try writeFile(Self.page, wanted)
                } else if text != wanted {
                    Issue.record("docs/operations.md says something else than the table above")
                }
            }
        }

        /// - Returns: nil if there is no such file.
        private static func outcome(
            of damage: FileDamage, to damaged: DamageCase, _ stage: DamageStage
        ) async throws -> String? {
            let cluster = stage.cluster
            let node = damaged.situation.node
            try stage.restore(damaged.situation)
            let (directory, content) = (cluster.dataDirectory(node), stage.content(damaged.situation))
            guard try damaged.apply(damage, in: directory, content: content) else { return nil }
            let comment = "\(damaged.name), \(damage.rawValue)"
            try await cluster.startNode(1 - node)
            try await cluster.startReplicator()
            let process = try await cluster.launch(
                TestCluster.nodeName(node), .storageNode, cluster.nodeArguments(node))
            let logBefore = process.log.utf8.count
            var watch = DamageWatch(stage, damaged.situation)
            let isSettled = try await watch.settles(process, within: settlingMax)
            let log = String(decoding: process.log.utf8.dropFirst(logBefore), as: UTF8.self)
            try await watch.expectSomebodyHasAll()
            let outcome = try await watch.outcome(process, log, isSettled: isSettled)
            await cluster.stopAll()
            let wrong = watch.violations.sorted()
            #expect(wrong.isEmpty, "\(comment): \(outcome): \(wrong.count): \(wrong.prefix(5))")
            return outcome
        }
    }
}

/// What a damaged node and its whole partner are seen to do.
struct DamageWatch {
    private let cluster: TestCluster
    private let content: [String: [UInt8]]
    /// By node.
    private let mayLack: [Set<String>]
    /// The damaged one.
    private let node: Int
    private(set) var violations: Set<String> = []

    init(_ stage: DamageStage, _ situation: DamageCase.Situation) {
        cluster = stage.cluster
        content = stage.content(situation)
        mayLack = (0...1).map { stage.mayLack(situation, $0) }
        node = situation.node
    }

    /// Waits until both are ready, alike, and answer everything, or until the damaged one ends.
    mutating func settles(_ process: ChildProcess, within limit: Duration) async throws -> Bool {
        let deadline = ContinuousClock.now + limit
        while process.isRunning {
            do {
                if try await isWhole() { return true }
                if try await leadsWithoutBeingOpen() { return false }
            } catch {
                // It does not listen yet, or has just ended.
            }
            guard ContinuousClock.now < deadline else { return false }
            try await Task.sleep(for: .milliseconds(50))
        }
        return false
    }

    /// A leader that does not open stays so until somebody has another lead.
    private func leadsWithoutBeingOpen() async throws -> Bool {
        let status = try await HTTP.document(StorageNodeStatus.self, APIPath.status, from: cluster.nodes[node])
        return status.shards.contains {
            $0.role == .leader && $0.failure?.hasPrefix("the replica is not open") ?? false
        }
    }

    private mutating func isWhole() async throws -> Bool {
        // The whole one as well: what is damaged must not spread.
        let isOtherWhole = try await answersAll(1 - node)
        guard try await answersAll(node), isOtherWhole else { return false }
        let shard = "shard-0"
        return try await HTTP.position(of: shard, at: cluster.nodes[0])
            == HTTP.position(of: shard, at: cluster.nodes[1])
    }

    /// Whether a node is ready and has every key; notes what it answers wrongly.
    private mutating func answersAll(_ node: Int) async throws -> Bool {
        let address = cluster.nodes[node]
        guard try await HTTP.get(APIPath.readyz, from: address).status == 200 else { return false }
        var wrong: Set<String> = []
        var isWhole = true
        for (key, value) in content {
            let answer = try await HTTP.get(APIPath.key(key.utf8), from: address)
            if answer.status == 200, answer.bytes == value { continue }
            isWhole = false
            if answer.status == 200 || answer.status == 404 && !mayLack[node].contains(key) {
                wrong.insert("node \(node) answers \(answer.status) for \(key)")
            }
        }
        let scan = try await HTTP.get("/kv?prefix=key-&limit=1000&keys_only=true", from: address)
        let unseen = content.keys.filter { scan.status == 200 && !scan.text.contains("\"\($0)\"") }
        if scan.status != 200 || !unseen.isEmpty { isWhole = false }
        wrong.formUnion(unseen.filter { !mayLack[node].contains($0) }.map { "node \(node) scans past \($0)" })
        // Still: a replica may be closed meanwhile.
        if try await HTTP.get(APIPath.readyz, from: address).status == 200 { violations.formUnion(wrong) }
        return isWhole
    }

    /// What the whole one had can still be read from one of the two.
    mutating func expectSomebodyHasAll() async throws {
        for (key, value) in content where !mayLack[1 - node].contains(key) {
            var hasIt = false
            for address in cluster.nodes where !hasIt {
                // One of them may not run.
                let answer = try? await HTTP.get(APIPath.key(key.utf8), from: address)
                hasIt = answer?.status == 200 && answer?.bytes == value
            }
            if !hasIt { violations.insert("nobody has \(key)") }
        }
    }

    /// In the words of the table.
    func outcome(_ process: ChildProcess, _ log: String, isSettled: Bool) async throws -> String {
        if let status = process.exitStatus {
            let reason = log.split(separator: "\n").last ?? ""
            #expect(status == .exited(1) && reason.hasPrefix("storage-node: "), "\(status): \(log)")
            return "the node does not start and says why"
        }
        if isSettled {
            return log.contains("snapshot installed") ? "the replica is rebuilt by itself" : "nothing is lost"
        }
        let ready = try await HTTP.get(APIPath.readyz, from: cluster.nodes[node])
        guard ready.status == 200 else {
            return ready.text.contains("not open")
                ? "the replica is absent, `/readyz` says why" : "the node is not ready and says why"
        }
        return violations.isEmpty ? "reads of what is damaged are refused" : "**acknowledged writes are missing**"
    }
}
