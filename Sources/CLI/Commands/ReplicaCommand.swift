import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Wire

struct ReplicaCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replica",
        abstract: "Lists, adds and removes the replicas of a shard.",
        subcommands: [ListReplicas.self, AddReplica.self, RemoveReplica.self])
}

struct ListReplicas: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Prints shard, role and node of every replica, by the topology.")

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The shard's name; every shard where none is given.")
    var shard: String?

    func run() async throws {
        let topology = try await cluster.withClient { try await $0.refreshTopology() }
        let shards = try shard.map { [try topology.shardForCommand($0)] } ?? topology.shards
        let rows = shards.flatMap { shard in
            shard.replicas.map { [shard.name, $0 == shard.leader ? "leader" : "follower", $0.description] }
        }
        try await output.write(
            json: rows.map { ReplicaEntry(shard: $0[0], role: $0[1], node: $0[2]) },
            table: TextTable.render([["SHARD", "ROLE", "NODE"]] + rows), raw: TextTable.raw(rows))
    }
}

struct AddReplica: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add",
        abstract: "Makes a node that runs hold a replica of a shard.",
        discussion: """
            A new node is started with storage-node --join URL --shard SHARD, which does this too.
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var replica: ReplicaArguments

    func run() async throws {
        try await cluster.withClient { client in
            let before = try await replica.shard(client)
            guard !before.replicas.contains(replica.node) else {
                return try await output.write(
                    ReplicaChange(before, replica.node, epoch: nil),
                    "\(replica.node) holds a replica of \(before.name) already")
            }
            let request = try NodeRequest.post(
                APIPath.replicas(shard: before.name), MembershipRequest(node: replica.node))
            let topology = try await replica.change(before, request, client, timeout: timeout)
            try await output.write(
                ReplicaChange(topology.shard(named: before.name) ?? before, replica.node, epoch: topology.epoch),
                "\(replica.node) follows \(before.name) from epoch \(topology.epoch) on; it serves reads once it has "
                    + "caught up: see kv status")
        }
    }

    private var timeout: TimeAmount { cluster.requestTimeout(default: 10) }
}

struct RemoveReplica: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove",
        abstract: "Takes the replica of a shard away from a node.",
        discussion: """
            The node does not have to run. A leader is not removed: move the leadership first, with kv failover. Where \
            other followers are left, one of them has to have everything that the leader has: so nothing that several \
            replicas have is left to the leader alone.
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var replica: ReplicaArguments
    @Flag(help: "Also where no other follower has everything that the leader has.")
    var force = false

    func run() async throws {
        try await cluster.withClient { client in
            let before = try await replica.shard(client)
            guard before.leader != replica.node else {
                throw CommandFailure(
                    status: .unavailable,
                    message: "\(replica.node) leads \(before.name): move the leadership first, with "
                        + "kv failover \(before.name) --to FOLLOWER")
            }
            guard before.followers.contains(replica.node) else {
                return try await output.write(
                    ReplicaChange(before, replica.node, epoch: nil),
                    "\(replica.node) holds no replica of \(before.name): nothing to remove")
            }
            let request = NodeRequest(
                method: .DELETE,
                target: APIPath.replica(shard: before.name, node: replica.node) + (force ? "?force=true" : ""))
            let topology = try await replica.change(before, request, client, timeout: timeout)
            let after = topology.shard(named: before.name) ?? before
            let left = after.replicas.count
            try await output.write(
                ReplicaChange(after, replica.node, epoch: topology.epoch),
                "\(replica.node) holds no replica of \(before.name) any more, from epoch \(topology.epoch) on; "
                    + "\(left) \(left == 1 ? "replica is" : "replicas are") left")
        }
    }

    private var timeout: TimeAmount { cluster.requestTimeout(default: 10) }
}

/// A replica by the topology, as JSON.
struct ReplicaEntry: Encodable {
    var shard: String
    var role: String
    var node: String
}

/// What adding or removing a replica came to.
struct ReplicaChange: Encodable {
    var shard: String
    var node: String
    /// False where there was nothing to change.
    var isChanged: Bool
    /// From which epoch on; nil where nothing changed.
    var epoch: UInt64?
    /// The shard's replicas now, the leader first.
    var replicas: [String]

    /// - Parameter epoch: of the topology after the change; nil where there was nothing to change.
    init(_ shard: ShardTopology, _ node: NodeAddress, epoch: UInt64?) {
        self.shard = shard.name
        self.node = node.description
        isChanged = epoch != nil
        self.epoch = epoch
        replicas = shard.replicas.map(\.description)
    }
}

extension OutputOptions {
    fileprivate func write(_ change: ReplicaChange, _ text: String) async throws {
        let row = [change.shard, change.node, change.isChanged ? "changed" : "unchanged"] + change.replicas
        try await write(json: change, table: text + "\n", raw: TextTable.raw([row]))
    }
}

/// A shard and a node.
struct ReplicaArguments: ParsableArguments {
    @Argument(help: "The shard's name.")
    var shard: String
    @Argument(help: ArgumentHelp("The node's address.", valueName: "host:port"), transform: FlagText.address)
    var node: NodeAddress

    func shard(_ client: KVClient) async throws -> ShardTopology {
        try await client.refreshTopology().shardForCommand(shard)
    }

    /// Asks the leader for a change; the topology after it.
    func change(
        _ shard: ShardTopology, _ request: NodeRequest, _ client: KVClient, timeout: TimeAmount
    ) async throws -> Topology {
        let response = try await client.ask(shard.leader, request, timeout: timeout)
        return try Topology(json: response.body.readableBytesView)
    }
}
