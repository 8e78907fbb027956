import Core
import DistribKVClient
import FoundationEssentials
import Glibc
import NIOHTTP1
import Shard
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// The end of the write-ahead log as a crash can leave it.
    @Suite struct TornLogs {
        enum Tail: String, Sendable, CaseIterable {
            /// A record whose header made it and whose rest did not.
            case partialRecord
            /// Fewer bytes than a record's header.
            case partialHeader
            /// Space the file system gave and nothing wrote.
            case zeros
        }

        /// What follows the last synced record was never acknowledged: the node drops it and comes up.
        @Test(.timeLimit(.minutes(5)), arguments: ["always", "os"], Tail.allCases)
        func unacknowledgedTail(durability: String, tail: Tail) async throws {
            let seed = testSeed("unacknowledgedTail(\(durability), \(tail))")
            var random = SeededGenerator(seed: seed)
            try await TestCluster.running(
                .single(durability: durability), router: false, replicator: false
            ) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "torn", routes: [.direct])
                for round in 0..<2 {
                    try await load.writeMore(60, seed: random.next())
                    let position = try await HTTP.position(of: "shard-0", at: cluster.nodes[0])
                    try await cluster.node(0).killHard()
                    try LogFiles.append(LogFiles.tail(tail, using: &random), toNewestOf: cluster, node: 0)
                    // Zeros are only believed of a machine that lost power.
                    if tail == .zeros { try SyncedMark.pretendRestart(of: cluster, node: 0) }
                    try await cluster.startNode(0)
                    let after = try await HTTP.position(of: "shard-0", at: cluster.nodes[0])
                    #expect(after == position, "round \(round) of seed \(seed)")
                    let wrong = try await ledger.discrepancies(at: cluster.nodes[0], in: cluster)
                    #expect(wrong.isEmpty, "round \(round) of seed \(seed): \(wrong.prefix(5))")
                }
            }
        }

        /// A loss of power took the end of a leader's log, which its follower has: the leader does not lead on without it,
        /// the follower leads, and the old leader is fed what it lost.
        @Test(.timeLimit(.minutes(5)))
        func lostTail() async throws {
            try await withLostTail(followerRuns: true) { cluster, behind, ahead in
                let (old, new) = (cluster.nodes[0], cluster.nodes[1])
                try await eventually("the follower to lead", within: .seconds(30)) {
                    try await HTTP.send(.PUT, "/kv/after", to: new, body: [2]).status == 204
                }
                try await cluster.waitForConvergence()
                for node in [old, new] {
                    for number in 0..<50 {
                        #expect(try await HTTP.get("/kv/before-\(number)", from: node).status == 200)
                    }
                }
                let verify = try await cluster.kv(["verify"], at: new)
                #expect(verify.status == .exited(0), "\(verify)")
            }
        }

        /// Where no follower runs that could tell, the leader leads on and takes writes under numbers that its follower
        /// has for others. It never passes for the same: the follower is rebuilt, and what it had is saved.
        @Test(.timeLimit(.minutes(5)))
        func lostTailUnseen() async throws {
            try await withLostTail(followerRuns: false) { cluster, behind, ahead in
                let (leader, follower) = (cluster.nodes[0], cluster.nodes[1])
                // A whole batch is there or it is not.
                var present = 0
                for number in 0..<50 {
                    if try await HTTP.get("/kv/before-\(number)", from: leader).status == 200 { present += 1 }
                }
                #expect(UInt64(50 - present) == ahead.lsn - behind.lsn)
                for number in 0..<20 {
                    #expect(try await HTTP.send(.PUT, "/kv/after-\(number)", to: leader, body: [2]).status == 204)
                }
                // The follower asks for what follows a batch that the leader never had.
                let again = try await HTTP.get(LogFiles.walTarget(after: ahead), from: leader)
                #expect(again.status == 409, "same number, different history")
                #expect(again.problem == "diverged")

                try await cluster.startNode(1)
                try await cluster.waitForConvergence()
                let status = try await HTTP.document(StorageNodeStatus.self, APIPath.status, from: follower)
                let diverged = status.shards.first?.diverged?.first
                #expect(diverged?.firstLsn == behind.lsn + 1 && diverged?.lastLsn == ahead.lsn)
                #expect(diverged?.writes == 50 - present, "what only the follower had is not saved")
                for number in 0..<20 {
                    #expect(try await HTTP.get("/kv/after-\(number)", from: follower).status == 200)
                }
                for number in 0..<50 {
                    #expect(
                        try await HTTP.get("/kv/before-\(number)", from: follower).status
                            == HTTP.get("/kv/before-\(number)", from: leader).status)
                }
                let verify = try await cluster.kv(["verify"], at: leader)
                #expect(verify.status == .exited(0), "\(verify)")
            }
        }

        /// A leader with `os` that has just started again without the end of its log.
        private func withLostTail(
            followerRuns: Bool,
            _ body: (TestCluster, _ behind: LogPosition, _ ahead: LogPosition) async throws -> Void
        ) async throws {
            try await TestCluster.running(.ring(shards: 1, nodes: 2, replicas: 2), router: false) { cluster in
                let (leader, follower) = (cluster.nodes[0], cluster.nodes[1])
                // One at a time, so that every write is a batch of its own.
                for number in 0..<50 {
                    #expect(try await HTTP.send(.PUT, "/kv/before-\(number)", to: leader, body: [1]).status == 204)
                }
                try await cluster.waitForConvergence()
                let ahead = try await HTTP.position(of: "shard-0", at: follower)
                try await cluster.node(0).killHard()
                if !followerRuns { try await cluster.node(1).killHard() }
                try LogFiles.truncateNewest(of: cluster, node: 0, by: 120)
                try await cluster.startNode(0)
                let behind = try await HTTP.position(of: "shard-0", at: leader)
                if !followerRuns { #expect(behind < ahead && behind.lsn > 1) }
                try await body(cluster, behind, ahead)
            }
        }

        /// With `always` a whole record that is damaged may have been synced and acknowledged, in the middle or as the
        /// last: the node does not start and says why, nothing is thrown away.
        @Test(.timeLimit(.minutes(3)), arguments: [false, true])
        func damagedRecord(isLast: Bool) async throws {
            try await TestCluster.running(.single(durability: "always"), router: false, replicator: false) { cluster in
                for number in 0..<100 {
                    let put = try await HTTP.send(
                        .PUT, "/kv/k\(number)", to: cluster.nodes[0], body: [UInt8](repeating: 7, count: 500))
                    #expect(put.status == 204)
                }
                try await cluster.node(0).killHard()
                // The value of the last record ends before its file does by less than a hundred bytes.
                try LogFiles.flipBit(of: cluster, node: 0) { isLast ? $0 - 100 : $0 / 2 }
                let process = try await cluster.launch("damaged", .storageNode, cluster.nodeArguments(0))
                #expect(try await process.waitForExit() == .exited(1))
                try expectOneLine(process, naming: ["shards/shard-0", "damaged"])
                // With the damage undone everything is there: the attempt changed nothing.
                try LogFiles.flipBit(of: cluster, node: 0) { isLast ? $0 - 100 : $0 / 2 }
                try await cluster.startNode(0)
                for number in 0..<100 {
                    #expect(try await HTTP.get("/kv/k\(number)", from: cluster.nodes[0]).status == 200)
                }
            }
        }
    }
}

extension SyncedMark {
    /// As if the machine had been started anew since the node ran.
    static func pretendRestart(of cluster: TestCluster, node: Int, shard: String = "shard-0") throws {
        let directory = "\(cluster.dataDirectory(node))/shards/\(shard)"
        var mark = try #require(SyncedMark(text: String(contentsOfFile: "\(directory)/SYNCED", encoding: .utf8)))
        mark.boot = "another"
        try mark.save(to: directory)
    }
}

/// The write-ahead log files of a node that does not run.
enum LogFiles {
    struct NoLog: Error {}

    static func newest(of cluster: TestCluster, node: Int, shard: String = "shard-0") throws -> String {
        let folder = "\(cluster.dataDirectory(node))/shards/\(shard)/db"
        let logs = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".log") }
        // Numbered with leading zeros.
        guard let newest = logs.max() else { throw NoLog() }
        return "\(folder)/\(newest)"
    }

    static func append(_ bytes: [UInt8], toNewestOf cluster: TestCluster, node: Int) throws {
        try change(newest(of: cluster, node: node)) { $0 += bytes }
    }

    static func truncateNewest(of cluster: TestCluster, node: Int, by count: Int) throws {
        try change(newest(of: cluster, node: node)) { $0.removeLast(count) }
    }

    /// - Parameter place: of the byte, by the length of the file.
    static func flipBit(of cluster: TestCluster, node: Int, at place: (Int) -> Int) throws {
        try change(newest(of: cluster, node: node)) { $0[place($0.count)] ^= 4 }
    }

    private static func change(_ path: String, _ body: (inout [UInt8]) -> Void) throws {
        guard let data = FileManager.default.contents(atPath: path) else { throw NoLog() }
        var bytes = Array(data)
        body(&bytes)
        try Data(bytes).write(to: URL(filePath: path))
    }

    /// RocksDB's log format: 7 bytes of header (CRC 4, length 2, type 1; type 1 is a whole record) and the record.
    static func tail(_ tail: ClusterTests.TornLogs.Tail, using random: inout SeededGenerator) -> [UInt8] {
        let header = random.bytes(4) + [200, 0, 1]
        switch tail {
        case .partialRecord: return header + random.bytes(Int.random(in: 0..<200, using: &random))
        case .partialHeader: return Array(header.prefix(Int.random(in: 1...6, using: &random)))
        case .zeros: return [UInt8](repeating: 0, count: Int.random(in: 1...5_000, using: &random))
        }
    }

    static func walTarget(after position: LogPosition) -> String {
        "/replication/shard-0/wal?term=\(position.term)&lsn=\(position.lsn)&version=\(position.version.hexDigits)"
    }
}
