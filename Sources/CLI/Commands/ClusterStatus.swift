import TerminalText
import Core
import DistribKVClient
import ImportPipeline
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
        /// It does what the topology says and can answer.
        var isHealthy: Bool
        /// What it does, or what is wrong.
        var state: String
        var term: UInt64?
        var lsn: UInt64?
        /// Batches behind the leader; nil where one of the two is not known or their terms differ.
        var lagBatches: UInt64?
        /// Batches by which a follower is ahead of its leader, which must not be: the leader has lost the end of its log.
        var aheadBatches: UInt64?
        /// By how much it may be behind, as it says itself.
        var lagMilliseconds: UInt64?
        var keysEstimate: UInt64?
        /// Disk and memtables.
        var bytes: UInt64?
        /// While it is rebuilt.
        var snapshot: SnapshotProgress?
        /// What is damaged in it.
        var damage: String?
        /// A damaged database that was kept.
        var setAside: String?
        /// Writes it had and the shard's history has not.
        var diverged: [DivergedWrites] = []
    }

    struct Shard: Encodable, Sendable {
        var name: String
        var term: UInt64
        var slots: Int
        var replicas: [Replica]
    }

    var cluster: String
    /// The newest that anybody has.
    var epoch: UInt64
    var nodes: [Node]
    var shards: [Shard]

    var isHealthy: Bool { shards.allSatisfy { $0.replicas.allSatisfy(\.isHealthy) } }

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
        var replica = Replica(address: address, role: role, isHealthy: false, state: "down")
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
        replica.lagMilliseconds = role == .follower ? status.lagMilliseconds : nil
        replica.snapshot = status.snapshot
        replica.diverged = status.diverged ?? []
        replica.damage = status.damage
        replica.setAside = status.setAside
        if role == .follower, let leader, leader.term == status.term {
            replica.lagBatches = leader.lsn - min(leader.lsn, status.lsn)
            if status.lsn > leader.lsn { replica.aheadBatches = status.lsn - leader.lsn }
        }
        if let damage = status.damage {
            replica.state = "damaged: " + (status.snapshot.map(Self.rebuilding) ?? damage)
        } else if let failure = status.failure {
            replica.state = Self.failing(failure, status.state)
        } else if let snapshot = status.snapshot {
            replica.state = Self.rebuilding(snapshot)
        } else if status.state == .installing {
            replica.state = "installing a snapshot"
        } else if status.role != role {
            replica.state = "calls itself \(status.role.rawValue)"
        } else if let ahead = replica.aheadBatches {
            replica.state = "\(Format.count(ahead)) ahead of its leader"
        } else if status.state == .joining {
            replica.state = "joining"
        } else {
            replica.isHealthy = true
            replica.state = role == .leader ? "leading" : "following"
        }
        return replica
    }

    private static func failing(_ failure: String, _ state: ReplicaState?) -> String {
        if failure.hasPrefix("the replica is not open") { return failure }
        return state == nil || state == .failed ? "refuses writes: \(failure)" : "fails: \(failure)"
    }

    /// `rebuilding 45 %, 120.0 MB/s, 8 s left`
    private static func rebuilding(_ snapshot: SnapshotProgress) -> String {
        let fraction = snapshot.bytesTotal > 0 ? Double(snapshot.bytesDone) / Double(snapshot.bytesTotal) : 0
        var text = "rebuilding \(Int(min(1, fraction) * 100)) %"
        text += ", \(Format.decimal(Double(snapshot.bytesPerSecond) / 1e6)) MB/s"
        if let left = snapshot.secondsLeft { text += ", \(Format.decimal(max(0, min(left, 1e9)))) s left" }
        return text
    }

    /// Asks every node of the topology, all at once; again where one of them knows a newer topology.
    static func ask(_ client: KVClient, timeout: TimeAmount) async throws -> ClusterStatus {
        var topology = try await client.refreshTopology()
        var answers = await ask(topology.nodes, client, timeout: timeout)
        let newest = try await client.topology()
        if newest.epoch != topology.epoch {
            topology = newest
            answers = await ask(topology.nodes, client, timeout: timeout)
        }
        // All were asked at once: a follower may have got what its leader did not have when it answered. What the leader
        // says after that counts.
        let status = ClusterStatus(topology: topology, answers: answers)
        let overtaken = Set(
            status.shards.filter { $0.replicas.contains { $0.aheadBatches != nil } }.compactMap(
                \.replicas.first?.address))
        guard !overtaken.isEmpty else { return status }
        for (address, answer) in await ask(Array(overtaken), client, timeout: timeout) {
            answers[address] = Self.newer(answer, answers[address], topology)
        }
        return ClusterStatus(topology: topology, answers: answers)
    }

    /// What a node said the second time, and of shards that it follows what it said the first time: their leaders may not
    /// have been asked again.
    private static func newer(
        _ second: Result<StorageNodeStatus, KVError>, _ first: Result<StorageNodeStatus, KVError>?, _ topology: Topology
    ) -> Result<StorageNodeStatus, KVError> {
        guard case .success(var status) = second, case .success(let before)? = first else { return second }
        for (index, shard) in status.shards.enumerated()
        where topology.shard(named: shard.name)?.leader != status.node {
            if let earlier = before.shards.first(where: { $0.name == shard.name }) { status.shards[index] = earlier }
        }
        return .success(status)
    }

    private static func ask(
        _ nodes: [NodeAddress], _ client: KVClient, timeout: TimeAmount
    ) async -> [NodeAddress: Result<StorageNodeStatus, KVError>] {
        await withTaskGroup(of: (NodeAddress, Result<StorageNodeStatus, KVError>).self) { group in
            for address in nodes {
                group.addTask {
                    let request = NodeRequest(method: .GET, target: APIPath.status)
                    do throws(KVError) {
                        let status = try await client.ask(
                            address, request, for: StorageNodeStatus.self, timeout: timeout)
                        return (address, .success(status))
                    } catch {
                        return (address, .failure(error))
                    }
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }
}
