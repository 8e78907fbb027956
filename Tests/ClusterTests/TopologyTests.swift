import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Testing
import Wire

extension ClusterTests {
    @Suite struct Topologies {
        /// Each node takes the other for the leader: a request goes round and ends with a clear answer.
        @Test(.timeLimit(.minutes(3)))
        func nodesThatDisagree() async throws {
            var layout = Layout.ring(shards: 1, nodes: 2, replicas: 2)
            layout.proxied = true
            try await TestCluster.with(layout) { [layout] cluster in
                // Or they would tell each other.
                try await cluster.proxy(0).set(.reset, from: "node-1")
                try await cluster.proxy(1).set(.reset, from: "node-0")
                var swapped = layout
                swapped.shards[0].replicas = [1, 0]
                swapped.epoch = 2
                let other = try cluster.write(swapped, to: "other.toml")
                // Node 0 follows node 1 by one file, node 1 follows node 0 by the other.
                try await cluster.startNode(0, config: other)
                try await cluster.startNode(1)
                for method in [HTTPMethod.PUT, .DELETE] {
                    let body: [UInt8]? = method == .PUT ? [1] : nil
                    let (response, path) = try await HTTP.following(
                        method, "/kv/lost", to: cluster.nodes[0], body: body, redirectsMax: 30)
                    #expect(response.status == 508)
                    #expect(response.problem == "redirect-loop")
                    #expect(path.map(\.status) == [307, 307, 307, 307, 508])
                }
                try await cluster.startRouter()
                let routed = try await HTTP.following(
                    .PUT, "/kv/lost?x=1", to: cluster.router, body: [1], redirectsMax: 30)
                #expect([400, 508].contains(routed.response.status))
                // The router knows no more than the two, but a request for which it stands in ends as well.
                let proxied = try await HTTP.send(.PUT, "/kv/lost?proxy=true", to: cluster.router, body: [1])
                #expect(proxied.status >= 500, "\(proxied.status) \(proxied.text)")
                let client = KVClient(seeds: [cluster.nodes[0], cluster.nodes[1]])
                await #expect(throws: KVError.self) { try await client.put(Array("lost".utf8), .init(string: "x")) }
                await client.shutdown()
            }
        }

        /// A planned change of leader: nodes restart with the next epoch, the router keeps running with the old file.
        @Test(.timeLimit(.minutes(5)))
        func routersLearnAHigherEpoch() async throws {
            let seed = testSeed("routersLearnAHigherEpoch")
            let layout = Layout.ring(shards: 2, nodes: 2, replicas: 2)
            try await TestCluster.running(layout) { cluster in
                let ledger = Ledger()
                try await Load(cluster: cluster, ledger: ledger, name: "one").writeMore(300, seed: seed)
                try await cluster.waitForConvergence()
                for node in 0..<2 { #expect(try await cluster.node(node).terminate() == .exited(0)) }

                var next = layout
                next.epoch = 2
                next.shards[0].replicas = [1, 0]
                try cluster.use(next)
                try await cluster.startNodes()
                let topology = cluster.topology
                try await eventually("the router to adopt epoch 2") {
                    let response = try await HTTP.get(APIPath.topology, from: cluster.router)
                    return try Topology(json: response.bytes) == topology && response.epoch == 2
                }
                let key = try #require(
                    (0..<1_000).lazy.map { Array("k\($0)".utf8) }.first {
                        cluster.shard(of: $0).name == "shard-0"
                    })
                try await eventually("the router to send writes to the new leader") {
                    let put = try await HTTP.send(.PUT, APIPath.key(key), to: cluster.router, body: [9])
                    return put.headers.first(name: "location")?.hasPrefix("http://\(cluster.nodes[1])/") == true
                }
                let put = try await HTTP.following(.PUT, APIPath.key(key), to: cluster.router, body: [9])
                #expect(put.response.status == 204)
                #expect(put.path.last?.address == cluster.nodes[1])
                #expect(try await HTTP.position(of: "shard-0", at: cluster.nodes[1]).term == 2)
                // The replicator was not restarted either, and turns round.
                try await Load(cluster: cluster, ledger: ledger, name: "two").writeMore(300, seed: seed &+ 50)
                try await cluster.waitForConvergence()
                try await cluster.expectContent(ledger, "seed \(seed)")
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func filesThatDoNotFitTheSavedTopology() async throws {
            let layout = Layout.ring(shards: 1, nodes: 2, replicas: 2)
            try await TestCluster.with(layout) { cluster in
                try await cluster.startNode(0)
                #expect(try await HTTP.send(.PUT, "/kv/a", to: cluster.nodes[0], body: [1]).status == 204)
                #expect(try await cluster.node(0).terminate() == .exited(0))

                // Changed, but of the same epoch.
                var changed = layout
                changed.shards[0].replicas = [0]
                let sameEpoch = try cluster.write(changed, to: "same-epoch.toml")
                let refused = try await cluster.launch(
                    "same-epoch", .storageNode, cluster.nodeArguments(0, config: sameEpoch))
                #expect(try await refused.waitForExit() == .exited(1))
                try expectOneLine(refused, naming: ["epoch is still 1", "set epoch = 2"])

                // Of the next epoch: taken and kept.
                changed.epoch = 2
                let next = try cluster.write(changed, to: "next.toml")
                try await cluster.startNode(0, config: next)
                #expect(try await HTTP.get("/kv/a", from: cluster.nodes[0]).epoch == 2)
                #expect(try await cluster.node(0).terminate() == .exited(0))

                // The old file again: the saved topology is newer, and the log says which one is in use.
                try await cluster.startNode(0)
                #expect(try await HTTP.get("/kv/a", from: cluster.nodes[0]).epoch == 2)
                #expect(try cluster.node(0).log.contains("using the saved topology of epoch 2"))
                #expect(try await cluster.node(0).terminate() == .exited(0))

                // A saved topology that cannot be read stops the start.
                try writeFile("\(cluster.dataDirectory(0))/topology.json", "{")
                let broken = try await cluster.launch("broken", .storageNode, cluster.nodeArguments(0))
                #expect(try await broken.waitForExit() == .exited(1))
                try expectOneLine(broken, naming: ["topology.json", "not a topology document"])
            }
        }
    }
}
