import Core
import DistribKVClient
import FoundationEssentials
import Glibc
import NIOHTTP1
import Sharding
import Testing
import Wire

extension ClusterTests {
    /// `kv` against real processes.
    @Suite struct CommandLine {
        @Test(.timeLimit(.minutes(3)))
        func putGetDelete() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2), replicator: false) { cluster in
                for key in ["plain", "a/b c", "schlüssel", "100%", "--dashes"] {
                    let put = try await cluster.kv(["put", "--", key, "value of \(key)"])
                    #expect(put.status == .exited(0), "\(put)")
                    #expect(Version(hexDigits: put.output.dropLast()) != nil)
                    let stored = try await HTTP.get(APIPath.key(key.utf8), from: cluster.leader(of: Array(key.utf8)))
                    #expect(stored.text == "value of \(key)")
                    #expect(stored.version?.hexDigits == String(put.output.dropLast()))
                    let get = try await cluster.kv(["get", "--", key])
                    #expect(get.status == .exited(0))
                    #expect(get.output == "value of \(key)")
                    #expect(get.log.isEmpty)
                    let delete = try await cluster.kv(["del", "--", key])
                    #expect(delete.status == .exited(0))
                    let missing = try await cluster.kv(["get", "--", key])
                    #expect(missing.status == .exited(1))
                    #expect(missing.output.isEmpty)
                    #expect(missing.log.contains(key))
                }
                // Through a node instead of a router.
                let node = try await cluster.kv(["put", "k", "v"], at: cluster.nodes[1])
                #expect(node.status == .exited(0))
                #expect(try await cluster.kv(["get", "k"], at: cluster.nodes[0]).output == "v")
                // Nobody there: one line.
                let nobody = try #require(Loopback.freeAddresses(1).first)
                let failed = try await cluster.kv(["get", "k", "--timeout", "3"], at: nobody)
                #expect(failed.status == .exited(3))
                #expect(failed.log.split(separator: "\n").count == 1, "\(failed.log)")
                #expect(failed.log.hasPrefix("kv: "))
            }
        }

        /// Any bytes, conditions, lives and counters, against a real node.
        @Test(.timeLimit(.minutes(3)))
        func valuesAndConditions() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2), replicator: false) { cluster in
                func kv(_ arguments: String...) async throws -> (Int32?, String) {
                    let run = try await cluster.kv(arguments)
                    if case .exited(let status) = run.status { return (status, run.output) }
                    return (nil, run.log)
                }
                let bytes = (0..<3).flatMap { _ in (0...255).map { UInt8($0) } }
                let path = "\(cluster.directory)/bytes"
                #expect(FileManager.default.createFile(atPath: path, contents: Data(bytes)))
                let put = try await kv("put", "--key-base64", "/wAB", "--file", path)
                #expect(put.0 == 0)
                let get = try await cluster.launch(
                    "kv-bytes", .kv, ["get", "--key-base64", "/wAB", "--router", "\(cluster.router)"])
                #expect(try await get.waitForExit() == .exited(0))
                #expect(FileManager.default.contents(atPath: get.outputPath) == Data(bytes))
                let json = try await kv("get", "--key-base64", "/wAB", "--output", "json")
                #expect(json.1.hasPrefix(#"{"key_base64":"/wAB","value_base64":""# + Data(bytes).base64EncodedString()))

                let first = try await kv("put", "k", "1", "--if-absent")
                #expect(first.0 == 0)
                let version = String(first.1.dropLast())
                #expect(try await kv("put", "k", "2", "--if-absent").0 == 4)
                #expect(try await kv("put", "k", "2", "--if-match", version).0 == 0)
                #expect(try await kv("del", "k", "--if-match", version).0 == 4)
                #expect(try await kv("incr", "k", "--by", "-44") == (0, "-42\n"))
                #expect(try await kv("put", "k", "x", "--ttl", "1h").0 == 0)
                #expect(try await kv("incr", "k").0 == 4)
                let expiring = try await kv("get", "k", "--json")
                #expect(expiring.1.contains(#""ttl":"3"#), "\(expiring)")
                #expect(try await kv("put", "k", "x", "--ttl", "1ms").0 == 0)
                try await eventually("the value is gone") { try await kv("get", "k").0 == 1 }
                #expect(try await kv("put", "k", "y", "--if-match", "*").0 == 4)
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func status() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 3, replicas: 2)) { cluster in
                for number in 0..<20 {
                    let put = try await HTTP.following(.PUT, "/kv/k\(number)", to: cluster.router, body: [1])
                    #expect(put.response.status == 204)
                }
                try await cluster.waitForConvergence()
                let healthy = try await cluster.kv(["status"])
                #expect(healthy.status == .exited(0), "\(healthy)")
                #expect(healthy.output.contains("3 of 3 nodes up"))
                for word in ["SHARD", "shard-0", "shard-1", "leader", "follower"] + cluster.nodes.map(\.description) {
                    #expect(healthy.output.contains(word), "\(word) is missing in \(healthy.output)")
                }
                try await cluster.node(2).killHard()
                let hurt = try await cluster.kv(["status"])
                #expect(hurt.status == .exited(3))
                #expect(hurt.output.contains("2 of 3 nodes up"), "\(hurt.output)")
            }
        }

        @Test(.timeLimit(.minutes(3)), arguments: ["tsv", "ndjson"])
        func imports(format: String) async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2)) { cluster in
                let records = CommandLine.records(2_000, prefix: "import")
                let path = "\(cluster.directory)/records.\(format)"
                try writeFile(path, CommandLine.text(of: records, format))
                let run = try await cluster.kv(["import", path])
                #expect(run.status == .exited(0), "\(run)")
                #expect(run.output.contains("read 2000, written 2000, skipped 0, failed 0"), "\(run.output)")
                try await CommandLine.expect(records, in: cluster)

                // A line that is none: told with its number, and what is before it is there.
                let bad = CommandLine.records(50, prefix: "bad")
                var lines = CommandLine.text(of: bad, format).split(separator: "\n").map(String.init)
                lines.insert("no record", at: 30)
                let badPath = "\(cluster.directory)/bad.\(format)"
                try writeFile(badPath, lines.joined(separator: "\n") + "\n")
                let stopped = try await cluster.kv(["import", badPath])
                #expect(stopped.status == .exited(2))
                #expect(stopped.log.contains("line 31"), "\(stopped.log)")
                #expect(stopped.log.contains("--resume-from 31"), "\(stopped.log)")
                let skipping = try await cluster.kv(["import", badPath, "--skip-bad"])
                #expect(skipping.output.contains("read 51, written 50, skipped 1, failed 0"), "\(skipping)")
                try await CommandLine.expect(bad, in: cluster)
            }
        }

        /// A router and a leader die in the middle; they come back, and the import goes on by itself or says where to
        /// resume. No record is missing at the end.
        @Test(.timeLimit(.minutes(5)), arguments: ["router", "node-0"])
        func importGoesOn(victim: String) async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2, durability: "always")) { cluster in
                let count = CommandLine.manyRecords
                let records = CommandLine.records(count, prefix: "long")
                let path = "\(cluster.directory)/long.tsv"
                try writeFile(path, CommandLine.text(of: records, "tsv"))
                let arguments = ["import", path, "--router", "\(cluster.router)"]
                let process = try await cluster.launch("kv-long", .kv, arguments)
                try await eventually("a part of the import") {
                    guard process.isRunning else { return true }
                    let position = try await HTTP.position(of: "shard-1", at: cluster.nodes[1])
                    return position.lsn > 5
                }
                try #require(cluster.process(victim)).signal(SIGKILL)
                try await cluster.process(victim)?.waitForExit()
                if victim == "router" { try await cluster.startRouter() } else { try await cluster.startNode(0) }
                let status = try await process.waitForExit()
                #expect(status == .exited(0), "\(process.output) \(process.log.suffix(400))")
                #expect(
                    process.output.contains("read \(count), written \(count), skipped 0, failed 0"), "\(process.output)"
                )
                try await CommandLine.expect(records, in: cluster)
            }
        }

        /// The leader stays away until the import gives up: it says the line, everything before it is there, and an
        /// import from there completes it.
        @Test(.timeLimit(.minutes(5)))
        func importResumes() async throws {
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 1)) { cluster in
                let count = CommandLine.manyRecords
                let records = CommandLine.records(count, prefix: "resume")
                let path = "\(cluster.directory)/resume.tsv"
                try writeFile(path, CommandLine.text(of: records, "tsv"))
                let arguments = ["import", path, "--router", "\(cluster.router)", "--timeout", "1"]
                let process = try await cluster.launch("kv-gives-up", .kv, arguments)
                try await eventually("a part of the import") {
                    guard process.isRunning else { return true }
                    return try await HTTP.position(of: "shard-1", at: cluster.nodes[1]).lsn > 5
                }
                try cluster.node(0).signal(SIGKILL)
                try await cluster.node(0).waitForExit()
                let status = try await process.waitForExit()
                try #require(status == .exited(3), "\(status): \(process.output) \(process.log)")
                let told = try #require(process.log.split(separator: "--resume-from ").last)
                let line = try #require(Int(told.prefix { $0.isNumber }))
                #expect((1...count).contains(line))
                try await cluster.startNode(0)
                try await CommandLine.expect(Array(records.prefix(line - 1)), in: cluster)
                let rest = try await cluster.kv(["import", path, "--resume-from", "\(line)"])
                #expect(rest.status == .exited(0), "\(rest)")
                let left = count - line + 1
                #expect(rest.output.contains("read \(left), written \(left), skipped 0, failed 0"), "\(rest.output)")
                try await CommandLine.expect(records, in: cluster)
            }
        }

        /// Enough that an import is under way for a second or more: a batch has up to 2,048.
        private static let manyRecords = 40_000

        private static func records(_ count: Int, prefix: String) -> [(key: String, value: String)] {
            (0..<count).map { ("\(prefix)/\($0)", "value \($0) of \(prefix)") }
        }

        private static func text(of records: [(key: String, value: String)], _ format: String) -> String {
            records.map { key, value in
                format == "tsv" ? "\(key)\t\(value)\n" : "{\"key\":\"\(key)\",\"value\":\"\(value)\"}\n"
            }.joined()
        }

        private static func expect(_ records: [(key: String, value: String)], in cluster: TestCluster) async throws {
            let missing = try await withThrowingTaskGroup(of: [String].self) { group in
                for chunk in records.chunked(into: max(1, records.count / 16)) {
                    group.addTask {
                        var missing: [String] = []
                        for (key, value) in chunk {
                            let leader = cluster.leader(of: Array(key.utf8))
                            let get = try await HTTP.get(APIPath.key(key.utf8), from: leader)
                            if get.text != value { missing.append(key) }
                        }
                        return missing
                    }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            #expect(missing.isEmpty, "\(missing.count) of \(records.count) are missing, \(missing.prefix(5))")
        }
    }
}

/// What a program that ran to its end left.
struct Finished: Sendable {
    let status: ExitStatus
    let output: String
    let log: String
}

extension TestCluster {
    /// Runs `kv` to its end.
    /// - Parameter address: router or node; the cluster's router where it is nil.
    func kv(_ arguments: [String], at address: NodeAddress? = nil) async throws -> Finished {
        let process = try await launch(
            "kv-\(UUID().uuidString.prefix(8))", .kv, arguments,
            environment: ["DISTRIBKV_ROUTER": "http://\(address ?? router)"])
        let status = try await process.waitForExit()
        return Finished(status: status, output: process.output, log: process.log)
    }
}
