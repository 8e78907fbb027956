import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// What `kv status` knows: the topology, and what every node says of itself.
struct ClusterStatus: Encodable, Sendable {
    struct Node: Encodable, Sendable {
        var address: NodeAddress
        /// Why it does not answer; nil where it does.
        var error: String?
        var epoch: UInt64?
        var version: String?
        var uptimeSeconds: Double?
        var durability: String?
    }

    struct Replica: Encodable, Sendable {
        var address: NodeAddress
        /// By the topology.
        var role: PositionDocument.Role
        /// `ok`, or what is wrong.
        var state: String
        var term: UInt64?
        var lsn: UInt64?
        /// Batches behind the leader; nil where one of the two is not known or their terms differ.
        var lagBatches: UInt64?
        var keysEstimate: UInt64?
        /// Disk and memtables.
        var bytes: UInt64?
    }

    struct Shard: Encodable, Sendable {
        var name: String
        var term: UInt64
        var slots: Int
        var replicas: [Replica]
    }

    var cluster: String
    var epoch: UInt64
    var nodes: [Node]
    var shards: [Shard]

    var isHealthy: Bool { shards.allSatisfy { $0.replicas.allSatisfy { $0.state == "ok" } } }

    /// Puts together the topology and the nodes' own answers.
    init(topology: Topology, answers: [NodeAddress: Result<StorageNodeStatus, KVError>]) {
        cluster = topology.cluster
        epoch = topology.epoch
        nodes = topology.nodes.map { address in
            var node = Node(address: address)
            switch answers[address] {
            case .success(let status)?:
                node.epoch = status.epoch
                node.version = status.version
                node.uptimeSeconds = status.uptimeSeconds
                node.durability = status.durability
            case .failure(let error)?: node.error = error.description
            case nil: node.error = "was not asked"
            }
            return node
        }
        shards = topology.shards.map { shard in
            func status(_ address: NodeAddress) -> StorageNodeStatus.Shard? {
                try? answers[address]?.get().shards.first { $0.name == shard.name }
            }
            let leader = status(shard.leader)
            let replicas = shard.replicas.map { address in
                Self.replica(
                    address, role: address == shard.leader ? .leader : .follower, of: shard, answers[address],
                    status(address), leader: leader)
            }
            let slots = shard.slots.reduce(0) { $0 + Int($1.last.rawValue - $1.first.rawValue) + 1 }
            return Shard(name: shard.name, term: shard.term, slots: slots, replicas: replicas)
        }
    }

    private static func replica(
        _ address: NodeAddress, role: PositionDocument.Role, of shard: ShardTopology,
        _ answer: Result<StorageNodeStatus, KVError>?, _ status: StorageNodeStatus.Shard?,
        leader: StorageNodeStatus.Shard?
    ) -> Replica {
        var replica = Replica(address: address, role: role, state: "ok")
        guard let status else {
            if case .failure(let error)? = answer {
                replica.state = "down: \(error)"
            } else {
                replica.state = "the node does not host this shard"
            }
            return replica
        }
        replica.term = status.term
        replica.lsn = status.lsn
        replica.keysEstimate = status.keysEstimate
        replica.bytes = status.diskBytes + status.memtableBytes
        if role == .follower, let leader, leader.term == status.term {
            // The two were asked one after the other: a follower can be ahead of what its leader had said.
            replica.lagBatches = leader.lsn - min(leader.lsn, status.lsn)
        }
        if let failure = status.failure {
            replica.state = "refuses writes: \(failure)"
        } else if status.role != role {
            replica.state = "calls itself \(status.role.rawValue)"
        }
        return replica
    }

    /// Asks every node of the topology, all at once.
    static func ask(_ client: KVClient, timeout: TimeAmount) async throws -> ClusterStatus {
        let topology = try await client.refreshTopology()
        let answers = await withTaskGroup(of: (NodeAddress, Result<StorageNodeStatus, KVError>).self) { group in
            for address in topology.nodes {
                group.addTask { (address, await ask(address, client, timeout: timeout)) }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        return ClusterStatus(topology: topology, answers: answers)
    }

    private static func ask(
        _ address: NodeAddress, _ client: KVClient, timeout: TimeAmount
    ) async -> Result<StorageNodeStatus, KVError> {
        do {
            let request = NodeRequest(method: .GET, target: APIPath.status)
            let response = try await client.connections.execute(request, to: address, deadline: .now() + timeout)
            guard response.status == 200 else {
                throw KVError(.unavailable, "GET \(APIPath.status) was answered with status \(response.status)")
            }
            return .success(try DocumentCoding.decode(StorageNodeStatus.self, from: response.body.readableBytesView))
        } catch let failure as NodeFailure {
            return .failure(failure.error)
        } catch {
            return .failure(error as? KVError ?? KVError(.internalError, "asking \(address) failed", cause: error))
        }
    }
}
