import BenchReport
import Core
import Foundation
import Sharding
import Testing

extension ClusterTests {
    /// `kv bench failover` and `kv bench replication` against real processes.
    @Suite struct Benchmarks {
        private static func report<Document: Decodable>(_ type: Document.Type, at path: String) throws -> Document {
            let decoder = JSONDecoder()
            decoder.dateDecodingStrategy = .iso8601
            return try decoder.decode(type, from: Data(contentsOf: URL(fileURLWithPath: path)))
        }

        @Test(.timeLimit(.minutes(3)))
        func aSwitchoverLosesNothing() async throws {
            try await TestCluster.running(.ring(shards: 1, nodes: 2, replicas: 2)) { cluster in
                let file = "\(cluster.directory)/failover.json"
                let run = try await cluster.kv([
                    "bench", "failover", "shard-0", "--rate", "200", "--duration", "2s", "--after", "500ms",
                    "--timeout",
                    "60s", "--json", file,
                ])
                #expect(run.status == .exited(0), "\(run)")
                let report = try Self.report(FailoverRunReport.self, at: file)
                let change = try #require(report.change)
                #expect(change.error == nil && change.isComplete == true)
                #expect(change.previousLeader == "\(cluster.nodes[0])" && change.leader == "\(cluster.nodes[1])")
                #expect(report.lostWrites.acknowledged == 400 && report.lostWrites.isClean, "\(report.lostWrites)")
                for name in ["write", "read"] {
                    let operation = try #require(report.shards["shard-0"]?[name])
                    #expect(operation.requests.count == 400 && operation.requests.errors == 0, "\(operation)")
                    #expect(operation.gapMilliseconds > 0 && operation.requests.latency?.count == 400)
                }
            }
        }

        /// A leader dies with writes that no follower has: they are found missing, and were announced.
        @Test(.timeLimit(.minutes(3)))
        func aForcedFailoverLosesWhatNoFollowerHas() async throws {
            try await TestCluster.running(.ring(shards: 1, nodes: 2, replicas: 2)) { cluster in
                try await cluster.waitForConvergence()
                let before = try await HTTP.position(of: "shard-0", at: cluster.nodes[1])
                _ = try await #require(cluster.process("replicator")).terminate()
                let file = "\(cluster.directory)/failover.json"
                async let finished = cluster.kv([
                    "bench", "failover", "shard-0", "--force", "--rate", "200", "--duration", "6s", "--after", "5s",
                    "--timeout", "60s", "--json", file,
                ])
                // 200 are of the warm-up, which nobody reads back.
                try await eventually("some writes on the leader") {
                    try await HTTP.position(of: "shard-0", at: cluster.nodes[0]).lsn > before.lsn + 240
                }
                try await cluster.node(0).killHard()
                let run = try await finished
                #expect(run.status == .exited(4), "\(run)")
                let report = try Self.report(FailoverRunReport.self, at: file)
                #expect(report.change?.leader == "\(cluster.nodes[1])" && report.change?.isComplete == false)
                let lost = report.lostWrites
                #expect(lost.lost >= 20 && lost.lost < 1_200 && lost.announced == lost.lost, "\(lost)")
                #expect(lost.wrong == 0 && lost.unreadable == 0 && lost.checked == lost.acknowledged, "\(lost)")
                #expect(lost.examples.count == 20)
                #expect(run.output.contains("\(lost.lost) lost, 0 wrong, 0 not readable"))
            }
        }
    }
}
