import Core
import Sharding

/// What a test cluster looks like; becomes its sharding.toml.
struct Layout: Sendable {
    /// Nodes by number, leader first.
    struct Shard: Sendable {
        var name: String
        var replicas: [Int]
    }

    var shards: [Shard]
    var epoch = 1
    var durability = "os"
    /// Further keys, by table.
    var storage: [String] = ["block_cache_bytes = \"8MiB\"", "write_buffer_bytes = \"8MiB\""]
    var replication: [String] = []
    var router: [String] = ["health_interval_ms = 200"]
    /// Nodes beyond those that a shard names. They are started one by one.
    var spareNodes = 0
    /// Whether every node is reached through a proxy of its own, so that the network can fail.
    var proxied = false

    /// Shard n is led by node n and followed by the next ones, round the circle.
    static func ring(shards: Int, nodes: Int, replicas: Int, durability: String = "os") -> Layout {
        let shards = (0..<shards).map { shard in
            Shard(name: "shard-\(shard)", replicas: (0..<replicas).map { (shard + $0) % nodes })
        }
        return Layout(shards: shards, durability: durability)
    }

    static func single(durability: String = "os") -> Layout {
        ring(shards: 1, nodes: 1, replicas: 1, durability: durability)
    }

    var nodeCount: Int { (shards.flatMap(\.replicas).max() ?? -1) + 1 + spareNodes }

    func toml(nodes: [NodeAddress]) -> String {
        var text = "[cluster]\nname = \"test\"\nepoch = \(epoch)\n"
        text += "[storage]\ndurability = \"\(durability)\"\n" + storage.map { $0 + "\n" }.joined()
        text += "[replication]\n" + replication.map { $0 + "\n" }.joined()
        text += "[router]\n" + router.map { $0 + "\n" }.joined()
        for (index, shard) in shards.enumerated() {
            let addresses = shard.replicas.map { "\"\(nodes[$0])\"" }
            text += "[[shards]]\nname = \"\(shard.name)\"\nidx = \(index)\naddress = \(addresses[0])\n"
            text += "replicas = [\(addresses.dropFirst().joined(separator: ", "))]\n"
        }
        return text
    }
}
