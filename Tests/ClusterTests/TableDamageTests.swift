import Core
import DistribKVClient
import FoundationEssentials
import NIOHTTP1
import TestSupport
import Testing
import Wire

extension ClusterTests {
    /// Bits that a disk has changed in tables.
    @Suite struct TableDamage {
        /// A follower falls behind the log of a leader that has a damaged table: it keeps the good copy.
        @Test(.timeLimit(.minutes(5)))
        func aDamagedLeaderReplacesNothing() async throws {
            let seed = testSeed("aDamagedLeaderReplacesNothing")
            var layout = Layout.ring(shards: 1, nodes: 2, replicas: 2)
            layout.storage = ["write_buffer_bytes = \"1MiB\"", "block_cache_bytes = \"4MiB\""]
            layout.replication = ["log_retention_bytes = \"1MiB\""]
            try await TestCluster.running(layout, router: false) { cluster in
                let keys = (0..<200).map { "kept-\($0)" }
                for key in keys {
                    let path = APIPath.key(key.utf8) + "?ack=all"
                    let response = try await HTTP.send(.PUT, path, to: cluster.nodes[0], body: Array(key.utf8))
                    try #require(response.status == 204)
                }
                let position = try await HTTP.position(of: "shard-0", at: cluster.nodes[1])
                #expect(try await cluster.node(1).terminate() == .exited(0))
                let load = Load(
                    cluster: cluster, ledger: Ledger(), name: "heavy", routes: [.direct], valueBytesMax: 200_000)
                try await eventually("the log to forget its start") {
                    try await load.writeMore(50, writers: 4, seed: seed)
                    // What it has in memory goes as well.
                    try await cluster.node(0).killHard()
                    try await cluster.startNode(0)
                    return (try await cluster.status(of: "shard-0", at: 0)?.logFirstLsn ?? 0) > position.lsn + 1
                }
                let folder = "\(cluster.dataDirectory(0))/shards/shard-0/db"
                let table = try #require(Damage.tables(in: folder).first)
                try Damage.flipBit(ofFile: table)

                try await cluster.startNode(1)
                try await eventually("the replicator to be told why there is no snapshot") {
                    let status = try await HTTP.document(
                        ReplicatorStatus.self, APIPath.status, from: cluster.replicator)
                    return status.shards.first?.followers.first?.lastError?.contains("\(table) is damaged") ?? false
                }
                #expect(try cluster.node(0).log.contains("\(table) is damaged"))
                for key in keys {
                    let response = try await HTTP.get(APIPath.key(key.utf8), from: cluster.nodes[1])
                    #expect(response.status == 200 && response.text == key, "seed \(seed): \(key): \(response.status)")
                }
            }
        }

        /// Nobody has read what is damaged: the scrub names it, while the node runs.
        @Test(.timeLimit(.minutes(5)))
        func scrubNamesADamagedTable() async throws {
            try await TestCluster.running(.ring(shards: 1, nodes: 2, replicas: 2)) { cluster in
                for number in 0..<100 {
                    let path = APIPath.key("key-\(number)".utf8) + "?ack=all"
                    let response = try await HTTP.send(
                        .PUT, path, to: cluster.nodes[0], body: Array("value-\(number)".utf8))
                    try #require(response.status == 204)
                }
                // A start makes tables of the log.
                try await cluster.node(1).killHard()
                try await cluster.startNode(1)
                try await cluster.waitForConvergence()
                let whole = try await cluster.kv(["scrub", "shard-0"])
                #expect(whole.status == .exited(0), "\(whole)")
                for node in cluster.nodes { #expect(whole.output.contains("\(node)")) }

                let folder = "\(cluster.dataDirectory(1))/shards/shard-0/db"
                let table = try #require(Damage.tables(in: folder).first)
                try Damage.flipBit(ofFile: table)
                let damaged = try await cluster.kv(["scrub", "shard-0", "--json"])
                #expect(damaged.status == .exited(4), "\(damaged)")
                #expect(damaged.output.contains("\(table) is damaged"), "\(damaged)")
                #expect(try cluster.node(1).log.contains("\(table) is damaged"))
                // The leader, which is whole, was read as well.
                #expect(damaged.output.contains("\(cluster.nodes[0])"))
            }
        }
    }
}
