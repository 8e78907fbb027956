import Core
import DistribKVClient
import Glibc
import NIOHTTP1
import TestSupport
import Testing
import Wire

extension ClusterTests {
    @Suite struct Stopping {
        /// SIGTERM under load: every answer that was given holds, the process ends with 0, a restart has everything.
        @Test(.timeLimit(.minutes(5)), arguments: ["always", "interval", "os"])
        func underLoad(durability: String) async throws {
            let seed = testSeed("underLoad(\(durability))")
            try await TestCluster.running(.ring(shards: 2, nodes: 2, replicas: 2, durability: durability)) { cluster in
                let ledger = Ledger()
                let load = Load(cluster: cluster, ledger: ledger, name: "stop")
                try await load.running(writers: 8, seed: seed) {
                    for name in ["node-0", "router", "replicator", "node-1"] {
                        try await load.waitForMore(60)
                        let process = try #require(cluster.process(name))
                        #expect(try await process.terminate() == .exited(0), "\(name)")
                        #expect(process.log.split(separator: "\n").last?.contains("stopped") == true, "\(name)")
                        switch name {
                        case "router": try await cluster.startRouter()
                        case "replicator": try await cluster.startReplicator()
                        default: try await cluster.startNode(name == "node-0" ? 0 : 1)
                        }
                    }
                }
                try await cluster.waitForConvergence()
                try await cluster.expectContent(ledger, "seed \(seed)")
            }
        }

        /// Requests that have arrived are answered; SIGINT is the same.
        @Test(.timeLimit(.minutes(3)), arguments: [SIGTERM, SIGINT])
        func answersWhatIsInFlight(signal: Int32) async throws {
            try await TestCluster.running(.single(durability: "always"), router: false, replicator: false) { cluster in
                let node = cluster.nodes[0]
                let count = 200
                let client = try await RawClient.connect(to: node)
                // The first answer says that the connection is served.
                client.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                _ = try await client.answers(1)
                client.send(
                    (0..<count).map {
                        "PUT /kv/k\($0) HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n\(Keys.three($0))"
                    }.joined())
                _ = try await client.answers(2)
                try cluster.node(0).signal(signal)
                let answers = try await client.answersToEnd()
                #expect(try await cluster.node(0).waitForExit() == .exited(0))
                #expect(answers.count >= 2)
                #expect(answers.dropFirst().allSatisfy { $0.status == 204 })
                try await cluster.startNode(0)
                for number in 0..<(answers.count - 1) {
                    #expect(try await HTTP.get("/kv/k\(number)", from: node).text == Keys.three(number))
                }
            }
        }

        /// A long poll of the log does not hold a shutdown up.
        @Test(.timeLimit(.minutes(3)))
        func longPollsEnd() async throws {
            try await TestCluster.running(.single(), router: false, replicator: false) { cluster in
                let node = cluster.nodes[0]
                let position = try await HTTP.position(of: "shard-0", at: node)
                let client = try await RawClient.connect(to: node)
                client.send(
                    "GET \(LogFiles.walTarget(after: position))&wait=60000 HTTP/1.1\r\nhost: x\r\n\r\n"
                        + "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                // Seen by the node: another request over another connection is answered after it was read.
                try await eventually("the node to hold the poll") {
                    try await HTTP.get(APIPath.healthz, from: node).status == 200
                }
                #expect(try await cluster.node(0).terminate() == .exited(0))
                let answers = try await client.answersToEnd()
                #expect([503, 204].contains(answers.first?.status ?? 503))
            }
        }
    }
}
