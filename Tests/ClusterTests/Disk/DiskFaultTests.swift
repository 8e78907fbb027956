import Core
import DistribKVClient
import FoundationEssentials
import Glibc
import NIOHTTP1
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// File calls that fail, one after the other, in a real node: it answers or ends with a line that says why, it never
    /// traps, and nothing acknowledged is lost or altered.
    @Suite struct DiskFaults {
        private static func cases(_ fallback: Int) -> Int {
            testSetting("DISTRIBKV_DISK_FAULT_RUNS", default: fallback)
        }

        // MARK: While it starts

        @Test(.timeLimit(.minutes(5)))
        func start() async throws {
            let seed = testSeed("start")
            var random = SeededGenerator(seed: seed)
            try await TestCluster.with(PowerLosses.layout("always")) { cluster in
                let ledger = Ledger()
                try await cluster.startNode(0)
                for number in 0..<100 {
                    try await cluster.put(
                        "start-\(number % 40)", random.bytes(number % 3 == 0 ? 40_000 : 100), to: cluster.nodes[0],
                        ledger)
                }
                try await cluster.node(0).killHard()
                let original = "\(cluster.directory)/original"
                try FileManager.default.copyItem(atPath: cluster.dataDirectory(0), toPath: original)
                let calls = try await Self.callsOfStart(cluster)
                try #require(calls.count > 50)
                for _ in 0..<Self.cases(24) {
                    try Self.restore(original, to: cluster.dataDirectory(0))
                    let number = Int.random(in: 1...calls.count, using: &random)
                    // Only what moves data can be short.
                    let canBeShort = ["read", "pread", "write", "pwrite"].contains(calls[number - 1].call)
                    let effects: [DiskPreload.Effect] = [.ioError, .full] + (canBeShort ? [.short] : [])
                    let rule = DiskPreload.Rule(
                        from: number, to: Bool.random(using: &random) ? number : nil,
                        effect: effects.randomElement(using: &random) ?? .ioError)
                    try await Self.startFails(
                        cluster, ledger, rule, "seed \(seed), \(rule), the first of them \(calls[number - 1])")
                }
            }
        }

        private static func restore(_ original: String, to directory: String) throws {
            try FileManager.default.removeItem(atPath: directory)
            try FileManager.default.copyItem(atPath: original, toPath: directory)
        }

        private static func callsOfStart(_ cluster: TestCluster) async throws -> [(call: String, path: String)] {
            let preload = try DiskPreload(disk: cluster.dataDirectory(0), name: "count", traces: false)
            try preload.setRules([DiskPreload.Rule(effect: .note)])
            let process = try await cluster.launch(
                TestCluster.nodeName(0), .storageNode, cluster.nodeArguments(0),
                environment: try await preload.environment())
            try await cluster.waitUntilReady(cluster.listens[0], process)
            let calls = preload.fired
            try await process.killHard()
            return calls
        }

        /// Starts with a fault, then without.
        private static func startFails(
            _ cluster: TestCluster, _ ledger: Ledger, _ rule: DiskPreload.Rule, _ comment: String
        ) async throws {
            let preload = try DiskPreload(disk: cluster.dataDirectory(0), name: "start", traces: false)
            try preload.setRules([rule])
            let name = "faulty-\(UUID().uuidString.prefix(8))"
            let process = try await cluster.launch(
                name, .storageNode, cluster.nodeArguments(0), environment: try await preload.environment())
            let isAlive = try await eventually("\(name) to start or to end") { () -> Bool? in
                if process.exitStatus != nil { return false }
                return try await HTTP.get(APIPath.healthz, from: cluster.nodes[0]).status == 200 ? true : nil
            }
            print("start: \(rule): \(preload.fired.count) calls met it, \(isAlive ? "it runs" : "it ended")")
            if isAlive {
                try await expectHonest(cluster, ledger, comment)
            } else {
                guard case .exited(let status) = process.exitStatus else {
                    Issue.record("\(comment): ended by \(String(describing: process.exitStatus)): \(process.log)")
                    return
                }
                #expect(status != 0, "\(comment)")
                let last = process.log.split(separator: "\n").last ?? ""
                #expect(last.count > 20, "\(comment): no reason: \(process.log)")
            }
            try await process.killHard()
            try await expectWholeAfterwards(cluster, ledger, comment)
        }

        /// A node that says it is ready answers every key as it was acknowledged; otherwise it may answer an error.
        private static func expectHonest(_ cluster: TestCluster, _ ledger: Ledger, _ comment: String) async throws {
            var problems: [String] = []
            for (key, entry) in ledger.all {
                let answer = try await HTTP.get(APIPath.key(key.utf8), from: cluster.nodes[0])
                if [200, 404].contains(answer.status) {
                    if let wrong = Ledger.compare(key, entry, answer, []) { problems.append(wrong) }
                } else if answer.problem == nil {
                    problems.append("\(key): \(answer.status) \(answer.text)")
                }
            }
            #expect(problems.isEmpty, "\(comment): \(problems.count): \(problems.prefix(3))")
        }

        private static func expectWholeAfterwards(
            _ cluster: TestCluster, _ ledger: Ledger, _ comment: String
        ) async throws {
            try await cluster.startNode(0)
            try await cluster.waitUntilReady(cluster.listens[0], cluster.node(0))
            let wrong = try await ledger.discrepancies(at: cluster.nodes[0], in: cluster)
            #expect(wrong.isEmpty, "\(comment): after a start without faults: \(wrong.prefix(3))")
            try await cluster.node(0).killHard()
        }

        // MARK: While it serves

        /// What fails, where: the log, tables being flushed or compacted, the manifest, a log that begins.
        private static let places: [(calls: [String], path: String)] = [
            (["write", "pwrite"], ".log"), (["fsync", "fdatasync"], ".log"), (["create"], ".log"),
            (["fallocate", "ftruncate"], ".log"), (["create"], ".sst"), (["write", "pwrite"], ".sst"),
            (["fsync", "fdatasync"], ".sst"), (["open", "pread"], ".sst"), (["write", "pwrite"], "MANIFEST"),
            (["fsync", "fdatasync"], "MANIFEST"), (["rename", "unlink"], "shards"), (["fsync"], "db"),
        ]

        @Test(.timeLimit(.minutes(5)))
        func service() async throws {
            let seed = testSeed("service")
            var random = SeededGenerator(seed: seed)
            for number in 0..<Self.cases(Self.places.count) {
                let place = Self.places[number % Self.places.count]
                var effects: [DiskPreload.Effect] = [.ioError, .full, .quota]
                if place.calls.contains("write") { effects.append(.short) }
                let from = Int.random(in: 1...4, using: &random)
                let rule = DiskPreload.Rule(
                    calls: place.calls, path: place.path, from: from, to: Bool.random(using: &random) ? from : nil,
                    effect: effects.randomElement(using: &random) ?? .ioError)
                try await TestCluster.with(PowerLosses.layout("always")) { cluster in
                    try await Self.serviceFails(cluster, rule, "seed \(seed), \(rule)", using: &random)
                }
            }
        }

        private static func serviceFails(
            _ cluster: TestCluster, _ rule: DiskPreload.Rule, _ comment: String,
            using random: inout SeededGenerator
        ) async throws {
            let (ledger, node) = (Ledger(), cluster.nodes[0])
            let preload = try DiskPreload(disk: cluster.dataDirectory(0), name: "service", traces: false)
            let process = try await cluster.launch(
                TestCluster.nodeName(0), .storageNode, cluster.nodeArguments(0),
                environment: try await preload.environment())
            try await cluster.waitUntilReady(cluster.listens[0], process)
            for number in 0..<20 { try await cluster.put("k-\(number)", random.bytes(1_000), to: node, ledger) }
            try preload.setRules([rule])
            var refusals: [NodeResponse] = []
            for number in 0..<90 where refusals.count < 3 {
                // Five megabytes: four memtables.
                let key = number % 4 == 0 ? "k-\(number % 20)" : "new-\(number)"
                let answer = try await cluster.put(key, random.bytes(60_000), to: node, ledger)
                if answer.status != 204 { refusals.append(answer) }
            }
            for refusal in refusals {
                #expect(
                    ["storage-full", "storage-failed"].contains(refusal.problem),
                    "\(comment): \(refusal.status) \(refusal.text)")
            }
            if !refusals.isEmpty {
                #expect(
                    try await HTTP.get(APIPath.readyz, from: node).status == 503, "\(comment): refuses and is ready")
            }
            print(
                "service: \(rule): \(preload.fired.count) calls met it, \(ledger.acknowledgedCount) writes acknowledged, "
                    + "\(refusals.count) refused \(refusals.first?.problem ?? "")")
            try await expectHonest(cluster, ledger, comment)
            #expect(
                process.isRunning, "\(comment): \(String(describing: process.exitStatus)) \(process.log.suffix(600))")
            guard case .exited = try await process.terminate() else {
                Issue.record("\(comment): ended by a signal: \(process.log.suffix(600))")
                return
            }
            try await expectWholeAfterwards(cluster, ledger, comment)
        }

        /// A flush that fails for good is told before a write has failed for it.
        @Test(.timeLimit(.minutes(3)))
        func readinessTellsOfAFailedFlush() async throws {
            var random = SeededGenerator(seed: testSeed("readinessTellsOfAFailedFlush"))
            try await TestCluster.with(PowerLosses.layout("always")) { cluster in
                let preload = try DiskPreload(disk: cluster.dataDirectory(0), name: "flush", traces: false)
                let process = try await cluster.launch(
                    TestCluster.nodeName(0), .storageNode, cluster.nodeArguments(0),
                    environment: try await preload.environment())
                try await cluster.waitUntilReady(cluster.listens[0], process)
                try preload.setRules([DiskPreload.Rule(calls: ["create"], path: ".sst", effect: .ioError)])
                let ledger = Ledger()
                while preload.fired.isEmpty {
                    try #require(ledger.acknowledgedCount < 1_000, "the memtable never gets full")
                    try await cluster.put("k", random.bytes(60_000), to: cluster.nodes[0], ledger)
                }
                try await eventually("the node not to be ready", within: .seconds(5)) {
                    try await HTTP.get(APIPath.readyz, from: cluster.nodes[0]).status == 503
                }
            }
        }
    }
}
