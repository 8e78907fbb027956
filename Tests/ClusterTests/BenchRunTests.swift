import BenchReport
import Core
import Foundation
import Testing

extension ClusterTests {
    /// `kv bench` against real processes.
    @Suite struct BenchmarkRuns {
        private func report(_ path: String) throws -> RunReport {
            let decoder = JSONDecoder()
            decoder.dateDecodingStrategy = .iso8601
            return try decoder.decode(RunReport.self, from: Data(contentsOf: URL(fileURLWithPath: path)))
        }

        /// Every way to a node, every kind of operation: nothing fails, and what is read is what was written.
        @Test(.timeLimit(.minutes(3)))
        func verified() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 3, replicas: 2)) { cluster in
                let runs = [
                    ["--via", "direct", "--workload", "a"], ["--via", "router", "--workload", "a"],
                    ["--via", "proxy", "--workload", "f"], ["--via", "direct", "--workload", "e"],
                    ["--via", "direct", "--workload", "d", "--rate", "2000"],
                    ["--via", "direct", "--workload", "put", "--pipeline", "8", "--threads", "2", "--ack", "all"],
                ]
                for (index, options) in runs.enumerated() {
                    let (json, html) = ("\(cluster.directory)/\(index).json", "\(cluster.directory)/\(index).html")
                    let run = try await cluster.kv(
                        [
                            "bench", "--records", "300", "--operations", "600", "--value-size", "30-300", "--verify",
                            "--consistency", "leader", "--timeout", "60s", "--json", json, "--html", html,
                        ] + options)
                    #expect(run.status == .exited(0), "\(options): \(run)")
                    // Only the first one finds nothing there.
                    #expect(run.log.contains("loaded 300 records") == (index == 0), "\(run.log)")
                    let report = try report(json)
                    #expect(report.requests == 600 && report.errors == 0, "\(options): \(run.output)")
                    let verification = try #require(report.verification)
                    let reads = ["read", "scan", "read_modify_write"].compactMap { report.operations[$0]?.count }
                    #expect(verification.checked == reads.reduce(0, +) && verification.isClean)
                    let isWhole = report.operations.values.allSatisfy { $0.latency?.count == $0.count }
                    #expect(isWhole)
                    #expect(try String(contentsOfFile: html, encoding: .utf8).contains("</html>"))
                }
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func whatIsWrongIsFound() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2), replicator: false) { cluster in
                let bench = [
                    "bench", "--records", "20", "--ordered-keys", "--verify", "--connections", "4", "--timeout", "60s",
                ]
                let load = try await cluster.kv(bench + ["--phase", "load"])
                #expect(load.status == .exited(0), "\(load)")
                #expect(
                    try await cluster.kv(["put", "user000000000000000a", "not a benchmark's value at all"]).status
                        == .exited(0))
                #expect(try await cluster.kv(["del", "user000000000000000b"]).status == .exited(0))
                let run = try await cluster.kv(
                    bench + ["--phase", "run", "--workload", "get", "--operations", "2000"])
                #expect(run.status == .exited(4), "\(run)")
                #expect(run.log.contains("user000000000000000a has a damaged value"), "\(run.log)")
                #expect(run.output.contains("errors of read: 404: "), "\(run.output)")
                #expect(!run.output.contains(" 0 wrong") && !run.output.contains(" 0 missing"), "\(run.output)")
                // They are not as they should be: auto loads anew.
                let again = try await cluster.kv(bench + ["--workload", "get", "--operations", "100"])
                #expect(again.status == .exited(0), "\(again)")
            }
        }
    }
}
