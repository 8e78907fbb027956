import BenchReport
import Core
import DistribKVClient
import Foundation
import NIOHTTP1
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

        @Test(.timeLimit(.minutes(3)))
        func lagOfEveryFollower() async throws {
            try await TestCluster.running(.ring(shards: 1, nodes: 3, replicas: 3)) { cluster in
                try await cluster.waitForConvergence()
                let file = "\(cluster.directory)/lag.json"
                let arguments = ["--rate", "300", "--probes", "100", "--duration", "1s", "--timeout", "60s"]
                let run = try await cluster.kv(["bench", "replication"] + arguments + ["--json", file])
                #expect(run.status == .exited(0), "\(run)")
                let report = try Self.report(ReplicationRunReport.self, at: file)
                #expect(report.write?.count == 100 && report.write?.errors == 0, "\(run)")
                #expect(Set(report.followers.keys) == Set(cluster.nodes[1...].map { "\($0)" }))
                for (address, follower) in report.followers {
                    let (lag, visible) = (try #require(follower.lag), try #require(follower.visible))
                    #expect(lag.count == 100 && lag.errors == 0 && visible.count == 100, "\(address): \(run)")
                    #expect(follower.read?.count == 100)
                    // It lasts from an earlier moment to the same one.
                    #expect(try #require(visible.latency).p50 > #require(lag.latency).p50)
                }
            }
        }

        /// What a follower lacks after a pause of the replicator is counted, and timed.
        @Test(.timeLimit(.minutes(3)))
        func followersCatchUp() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2)) { cluster in
                try await cluster.waitForConvergence()
                let replicator = try #require(cluster.process("replicator")?.pid)
                let file = "\(cluster.directory)/catch-up.json"
                let arguments = ["--catch-up", "3000", "--pause", "\(replicator)", "--timeout", "60s"]
                let run = try await cluster.kv(["bench", "replication"] + arguments + ["--json", file])
                #expect(run.status == .exited(0), "\(run)")
                let report = try Self.report(ReplicationRunReport.self, at: file)
                #expect(report.followers.count == 2)
                let caughtUp = report.followers.values.compactMap(\.catchUp)
                #expect(caughtUp.allSatisfy { $0.isDone && $0.keysBehind > 0 && ($0.keysPerSecond ?? 0) > 0 }, "\(run)")
                // The replicator may have had some of them in hand when it was stopped.
                let behind = caughtUp.reduce(0) { $0 + $1.keysBehind }
                #expect(behind > 2_000 && behind <= 3_001, "\(run)")
                try await cluster.waitForConvergence()
                let nobody = try await cluster.kv(["bench", "replication", "--catch-up", "10", "--pause", "2147483647"])
                #expect(nobody.status == .exited(2) && nobody.log.contains("cannot stop process"), "\(nobody)")
            }
        }

        /// Of a follower that does not answer it is known what it lacks at least.
        @Test(.timeLimit(.minutes(3)))
        func aDeadFollowerLacksWhatWasWritten() async throws {
            try await TestCluster.running(.ring(shards: 1, nodes: 2, replicas: 2)) { cluster in
                try await cluster.waitForConvergence()
                try await cluster.node(1).killHard()
                let file = "\(cluster.directory)/dead.json"
                let arguments = ["--catch-up", "500", "--patience", "1ms", "--timeout", "60s", "--json", file]
                let run = try await cluster.kv(["bench", "replication"] + arguments)
                #expect(run.status == .exited(3), "\(run)")
                let report = try Self.report(ReplicationRunReport.self, at: file)
                let catchUp = report.followers["\(cluster.nodes[1])"]?.catchUp
                #expect(catchUp == .init(keysBehind: 500, isDone: false, seconds: nil, keysPerSecond: nil), "\(run)")
                // A file that cannot be written is told before anything is measured.
                let nowhere = try await cluster.kv(["bench", "replication", "--json", "\(cluster.directory)/none/x"])
                #expect(nowhere.status == .exited(2) && nowhere.output.isEmpty, "\(nowhere)")
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func aFollowerThatIsBehindAlreadyIsNotMeasured() async throws {
            try await TestCluster.running(.ring(shards: 1, nodes: 2, replicas: 2)) { cluster in
                try await cluster.waitForConvergence()
                try await #require(cluster.process("replicator")).freeze()
                #expect(try await HTTP.following(.PUT, "/kv/k", to: cluster.router, body: [1]).response.status == 204)
                let run = try await cluster.kv(["bench", "replication", "--catch-up", "50"])
                #expect(run.status == .exited(3) && run.output.isEmpty, "\(run)")
                #expect(run.log.contains("1 batch of shard-0 behind already"), "\(run)")
                try #require(cluster.process("replicator")).thaw()
            }
        }
    }
}
