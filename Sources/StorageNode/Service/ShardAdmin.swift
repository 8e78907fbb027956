import Core
import Logging
import NIOCore
import NIOPosix
import Shard
import Sharding
import Synchronization
import Wire

/// What can be asked of a node about its part in a shard: who its replicas are, who leads it.
///
/// Every operation is bounded in time; each throws a `Problem` that says what to do.
final class ShardAdmin: Sendable {
    let node: Node
    let spreading: TopologySpreading
    /// Operations under way; more are refused.
    private static let operationsMax = 64
    private let operations = Atomic<Int>(0)
    /// Writes held on request, by the names of their shards.
    private let holds = Mutex<[String: WriteHold]>([:])

    init(node: Node) {
        self.node = node
        spreading = TopologySpreading(
            address: node.address, keeper: node.keeper, peers: node.peers, logger: node.logger)
    }

    // MARK: Limits

    /// Makes room for an operation; false where there are too many. Each `true` is followed by one ``end()``.
    func begin() -> Bool {
        guard operations.add(1, ordering: .relaxed).newValue <= ShardAdmin.operationsMax else {
            end()
            return false
        }
        return true
    }

    func end() { operations.subtract(1, ordering: .relaxed) }

    // MARK: Membership

    /// How often a change is made anew because another node changed the topology at the same time.
    private static let changesMax = 5

    /// Makes a change of the topology and brings it to every node; returns the topology then.
    /// - Parameter next: the next topology; nil where there is nothing to change.
    func changeTopology(
        to next: @escaping @Sendable (Topology) throws -> Topology?, because reason: String
    ) async throws -> Topology {
        for _ in 0..<ShardAdmin.changesMax {
            let before = node.keeper.topology
            let isChanged = try await node.keeper.change { change in
                guard let next = try next(self.node.keeper.topology) else { return false }
                return try await self.node.keeper.adopt(next, from: reason, change)
            }
            guard isChanged else { return node.keeper.topology }
            // Nodes that left are told as well, and a newer topology that one has is taken: then once more.
            await spreading.showToAll(and: before.nodes)
        }
        return node.keeper.topology
    }

    /// How long a removal waits for another follower to have what the leader has.
    private static let catchUpTimeout = TimeAmount.seconds(3)

    /// Takes the replica on `address` away.
    ///
    /// Where other followers are left, one of them first has everything that this leader has: what several replicas
    /// have acknowledged is never left to the leader alone.
    /// - Parameter force: does not wait for that.
    func remove(
        _ address: NodeAddress, from replica: ShardReplica, force: Bool, on eventLoop: any EventLoop
    ) async throws -> Topology {
        let name = replica.configuration.name
        let followers = node.keeper.topology.shard(named: name)?.followers ?? []
        replica.acks.mark(address, isLeaving: true)
        // Once the topology has changed it is none of the followers, and this does nothing.
        defer { replica.acks.mark(address, isLeaving: false) }
        if followers.contains(address), followers.count > 1, !force {
            let position = replica.position
            let isKept = try await replica.acks.wait(
                until: .level(.replicas(2)), has: position.lsn, on: eventLoop,
                deadline: .now() + ShardAdmin.catchUpTimeout
            ).get()
            guard isKept else {
                throw Problem(
                    .followerBehind,
                    "No other follower has all of \(name) up to lsn \(position.lsn) yet, and what \(address) has could be "
                        + "lost with this leader: wait until kv status shows one close, or use --force.")
            }
        }
        return try await changeTopology(
            to: { try $0.removing(address, from: name) }, because: "\(address) leaves \(name)")
    }

    // MARK: Histories and promises

    func history(of replica: ShardReplica, on eventLoop: any EventLoop) async throws -> HistoryDocument {
        let (history, newest) = try await node.readers.run(on: eventLoop) {
            (try replica.history(), try replica.newestPromise())
        }.get()
        let role = replica.role
        return HistoryDocument(
            position: replica.document(at: history.end), history: history, newestTerm: newest.term,
            promisedTo: newest.candidate,
            leaderLastSeen: role.isLeader ? nil : replica.freshness.leaderLastSeen)
    }

    func fence(
        _ replica: ShardReplica, _ request: FenceRequest, on eventLoop: any EventLoop
    ) async throws -> HistoryDocument {
        try await replica.fence(term: request.term, candidate: request.candidate)
        return try await history(of: replica, on: eventLoop)
    }

    // MARK: Holding writes

    func hold(_ replica: ShardReplica, milliseconds: UInt64) async throws -> PositionDocument {
        let hold = try await replica.hold(milliseconds: milliseconds)
        holds.withLock { $0[replica.configuration.name] = hold }
        return PositionDocument(shard: replica.configuration.name, role: .leader, position: hold.position)
    }

    /// Nothing where no writes are held on request.
    func release(_ replica: ShardReplica) async {
        guard let hold = holds.withLock({ $0.removeValue(forKey: replica.configuration.name) }) else { return }
        await replica.release(hold)
    }
}
