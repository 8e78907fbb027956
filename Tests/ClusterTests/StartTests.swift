import Core
import DistribKVClient
import FoundationEssentials
import Glibc
import NIOCore
import NIOHTTP1
import Testing
import Wire

/// Exactly one line that is no log event, and it names everything in `words`.
func expectOneLine(
    _ process: ChildProcess, naming words: [String], sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let lines = process.log.split(separator: "\n")
    let program = process.commandLine[0].split(separator: "/").last.map(String.init) ?? ""
    // A log line starts with its time.
    let told = lines.filter { $0.first?.isNumber != true }
    #expect(told.count == 1, "\(process.name): \(lines)", sourceLocation: sourceLocation)
    let line = try #require(told.first, sourceLocation: sourceLocation)
    #expect(line.hasPrefix("\(program): "), "\(line)", sourceLocation: sourceLocation)
    #expect(lines.last == line, "the reason stands last", sourceLocation: sourceLocation)
    #expect(!lines.contains { $0.contains(" error ") }, "said twice: \(lines)", sourceLocation: sourceLocation)
    for word in words { #expect(line.contains(word), "\(line)", sourceLocation: sourceLocation) }
}

extension ClusterTests {
    @Suite struct Starting {
        @Test(.timeLimit(.minutes(3)), arguments: Program.allCases)
        func helpAndVersion(program: Program) async throws {
            try await TestCluster.with(.single()) { cluster in
                for (flag, words) in [("--help", ["USAGE", program.rawValue]), ("--version", ["."])] {
                    let process = try await cluster.launch("\(program.rawValue)\(flag)", program, [flag])
                    #expect(try await process.waitForExit() == .exited(0))
                    #expect(process.log.isEmpty)
                    for word in words { #expect(process.output.contains(word), "\(process.output)") }
                }
                let wrong = try await cluster.launch("wrong-\(program.rawValue)", program, ["--no-such-flag"])
                #expect(try await wrong.waitForExit() == .exited(program == .kv ? 2 : 64))
                #expect(wrong.output.isEmpty)
                #expect(wrong.log.contains("no-such-flag"))
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func badConfiguration() async throws {
            try await TestCluster.with(.single()) { cluster in
                let good = try String(decoding: Data(contentsOf: URL(filePath: cluster.configPath)), as: UTF8.self)
                let files: [(name: String, text: String?, words: [String])] = [
                    ("missing", nil, ["missing.toml", "No such file"]),
                    ("empty", "", ["no shard"]),
                    ("syntax", good + "\n[[shards", ["syntax.toml:", "not valid TOML"]),
                    ("typo", good.replacing("durability", with: "durabilty"), ["durabilty", "did you mean"]),
                    ("value", good.replacing("\"os\"", with: "\"maybe\""), ["durability", "always"]),
                    ("address", good.replacing("address = \"127.", with: "address = \"127."), []),
                    ("port", good.replacing("\(cluster.nodes[0])", with: "127.0.0.1"), ["address", "host:port"]),
                ]
                for (name, text, words) in files where name != "address" {
                    let path = "\(cluster.directory)/\(name).toml"
                    if let text { try writeFile(path, text) }
                    for program in [Program.storageNode, .router, .replicator] {
                        var arguments = ["--config", path, "--listen", "\(cluster.router)"]
                        if program == .storageNode { arguments += ["--data-dir", "\(cluster.directory)/unused"] }
                        let process = try await cluster.launch("\(name)-\(program.rawValue)", program, arguments)
                        #expect(try await process.waitForExit() == .exited(1), "\(name) \(program)")
                        try expectOneLine(process, naming: words)
                    }
                }
                #expect(!FileManager.default.fileExists(atPath: "\(cluster.directory)/unused"))
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func badFlags() async throws {
            try await TestCluster.with(.single()) { cluster in
                let config = ["--config", cluster.configPath]
                let flags: [(name: String, program: Program, arguments: [String], words: [String])] = [
                    ("no-data-dir", .storageNode, config + ["--listen", "\(cluster.nodes[0])"], ["--data-dir"]),
                    ("bad-listen", .router, config + ["--listen", "nowhere"], ["--listen", "nowhere", "host:port"]),
                    ("bad-level", .router, config + ["--log-level", "loud"], ["--log-level", "loud", "warning"]),
                    ("bad-threads", .router, config + ["--threads", "0"], ["--threads", "1 to"]),
                    ("open-router", .router, config + ["--listen", "0.0.0.0:0"], ["0.0.0.0", "--insecure"]),
                    ("open-replicator", .replicator, config + ["--listen", "[::]:0"], ["[::]", "--insecure"]),
                    (
                        "open-node", .storageNode,
                        config + ["--listen", "0.0.0.0:0", "--data-dir", cluster.dataDirectory(0)],
                        ["0.0.0.0", "--insecure"]
                    ),
                ]
                for (name, program, arguments, words) in flags {
                    let process = try await cluster.launch(name, program, arguments)
                    let status = try await process.waitForExit()
                    #expect(status != .exited(0), "\(name)")
                    guard case .exited = status else {
                        Issue.record("\(name): \(status)")
                        continue
                    }
                    try expectOneLine(process, naming: words)
                }
                #expect(!FileManager.default.fileExists(atPath: cluster.dataDirectory(0)))
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func whatIsTaken() async throws {
            try await TestCluster.running(.ring(shards: 1, nodes: 2, replicas: 2)) { cluster in
                // The same data directory.
                let locked = try await cluster.launch(
                    "locked", .storageNode,
                    [
                        "--config", cluster.configPath, "--listen", "\(cluster.nodes[0].host):0", "--advertise",
                        "\(cluster.nodes[0])", "--data-dir", cluster.dataDirectory(0),
                    ])
                #expect(try await locked.waitForExit() == .exited(1))
                try expectOneLine(locked, naming: [cluster.dataDirectory(0), "another process"])

                // The same port.
                let taken = try await cluster.launch(
                    "taken", .storageNode,
                    [
                        "--config", cluster.configPath, "--listen", "\(cluster.nodes[0])", "--data-dir",
                        "\(cluster.directory)/other",
                    ])
                #expect(try await taken.waitForExit() == .exited(1))
                try expectOneLine(taken, naming: ["\(cluster.nodes[0])", "another process"])
                for program in [Program.router, .replicator] {
                    let process = try await cluster.launch(
                        "taken-\(program.rawValue)", program,
                        ["--config", cluster.configPath, "--listen", "\(cluster.nodes[0])"])
                    #expect(try await process.waitForExit() == .exited(1))
                    try expectOneLine(process, naming: ["\(cluster.nodes[0])"])
                }

                // An address that no shard names.
                let stranger = try await cluster.launch(
                    "stranger", .storageNode,
                    [
                        "--config", cluster.configPath, "--listen", "\(cluster.nodes[0].host):0", "--data-dir",
                        "\(cluster.directory)/stranger",
                    ])
                #expect(try await stranger.waitForExit() == .exited(1))
                try expectOneLine(stranger, naming: ["no shard names", "--advertise"])

                // The first one was not disturbed.
                #expect(try await HTTP.send(.PUT, "/kv/a", to: cluster.nodes[0], body: [1]).status == 204)
            }
        }

        /// The log knows a newer term than the topology: this node must not take writes by it.
        @Test(.timeLimit(.minutes(3)))
        func staleTerm() async throws {
            var layout = Layout.single()
            layout.epoch = 3
            try await TestCluster.running(layout, router: false, replicator: false) { cluster in
                #expect(try await HTTP.send(.PUT, "/kv/a", to: cluster.nodes[0], body: [1]).status == 204)
                #expect(try await cluster.node(0).terminate() == .exited(0))
                layout.epoch = 1
                try cluster.use(layout)
                try FileManager.default.removeItem(atPath: "\(cluster.dataDirectory(0))/topology.json")
                let stale = try await cluster.launch("stale", .storageNode, cluster.nodeArguments(0))
                try await cluster.waitUntilReady(cluster.nodes[0], stale)
                let log = stale.log
                #expect(log.contains("takes no writes") && log.contains("term=3") && log.contains("topology_term=1"))
                #expect(try await HTTP.send(.PUT, "/kv/a", to: cluster.nodes[0], body: [2]).status != 204)
                #expect(try await HTTP.get("/kv/a", from: cluster.nodes[0]).body.readableBytesView.elementsEqual([1]))
            }
        }

        /// A data directory of another cluster, or of a shard with another name.
        @Test(.timeLimit(.minutes(3)))
        func anotherClustersData() async throws {
            try await TestCluster.running(.single(), router: false, replicator: false) { cluster in
                #expect(try await cluster.node(0).terminate() == .exited(0))
                let foreign = "\(cluster.directory)/foreign.toml"
                try writeFile(
                    foreign, cluster.layout.toml(nodes: cluster.nodes).replacing("\"test\"", with: "\"foreign\""))
                let process = try await cluster.launch(
                    "foreign", .storageNode, cluster.nodeArguments(0, config: foreign))
                #expect(try await process.waitForExit() == .exited(1))
                try expectOneLine(process, naming: ["foreign", "test"])
            }
        }
    }
}
