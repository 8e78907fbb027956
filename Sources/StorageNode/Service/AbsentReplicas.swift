import Core
import NIOCore
import Shard
import Sharding
import Synchronization
import Wire

/// What is left of the replicas of this node that are damaged and do not open, by the names of their shards.
///
/// Each is looked at when somebody asks for it, and forgotten when the replica is open or not this node's any more.
final class AbsentReplicas: Sendable {
    private struct State {
        var replicas: [String: AbsentReplica] = [:]
        /// Being looked at.
        var opening: Set<String> = []
    }

    private let state = Mutex(State())
    private let opener: ReplicaOpener

    init(opener: ReplicaOpener) { self.opener = opener }

    /// Blocks.
    ///
    /// Throws a `Problem` where the replica is not one to be rebuilt, or somebody is looking at it at this moment,
    /// `KVError(.storageFailed)`.
    func replica(ofShard name: String, in view: NodeView) throws -> AbsentReplica {
        guard let (shard, reason) = view.damagedAbsence(ofShardNamed: name) else {
            throw view.absence(ofShardNamed: name)
        }
        let (known, begins) = state.withLock { state in
            (state.replicas[name], state.replicas[name] == nil && state.opening.insert(name).inserted)
        }
        if let known { return known }
        guard begins else { throw Problem(.unavailable, "The replica of \(name) is being looked at: try again.") }
        // Two of them would each take the files of a snapshot for theirs.
        let result = Result { try opener.remains(of: shard, cluster: view.topology.cluster, because: reason) }
        return try state.withLock { state in
            state.opening.remove(name)
            let replica = try result.get()
            state.replicas[name] = replica
            return replica
        }
    }

    /// The one that was looked at; nil if none was.
    func known(ofShard name: String) -> AbsentReplica? { state.withLock { $0.replicas[name] } }

    func forget(_ name: String) { state.withLock { _ = $0.replicas.removeValue(forKey: name) } }

    /// Keeps those of the shards alone whose replica is absent in `view`.
    func keep(to view: NodeView) {
        let absent = view.absentReplicas
        state.withLock { state in state.replicas = state.replicas.filter { absent[$0.key] != nil } }
    }

    /// Gives up snapshots that nobody goes on with. Blocks.
    func tidy() {
        for replica in state.withLock({ Array($0.replicas.values) }) { replica.tidySnapshots() }
    }
}

extension NodeView {
    /// The shard and what is wrong, if its replica here is damaged, does not open and can be rebuilt: from the leader,
    /// which is another node.
    func damagedAbsence(ofShardNamed name: some StringProtocol) -> (shard: ShardTopology, reason: KVError)? {
        guard let position = position(ofShardNamed: name), replicas[position] == nil, !leads[position],
            case .failed(let reason) = absences[position], reason.code == .corrupted
        else { return nil }
        return (topology.shards[position], reason)
    }
}

extension Node {
    /// What a damaged replica that does not open answers to the question where it stands, so that it is rebuilt.
    ///
    /// Throws a `Problem` that says what is in the way.
    func absentPosition(ofShard name: String, on eventLoop: any EventLoop) async throws -> PositionDocument {
        let view = self.view
        let (replica, isBlocked) = try await readers.run(on: eventLoop) { [keeper] in
            let replica = try keeper.absent.replica(ofShard: name, in: view)
            return (replica, replica.isBlocked)
        }.get()
        guard !isBlocked else {
            throw Problem(
                .unavailable,
                "The replica of \(name) is damaged (\(replica.reason)) and is not rebuilt: an earlier damaged database, "
                    + "\(replica.configuration.directory)/db.damaged, may hold writes that are nowhere else. Look at it and "
                    + "remove it.")
        }
        if !replica.knowsPromise { try await learnTerms(for: replica, view) }
        return PositionDocument(
            shard: name, role: .follower, position: replica.position, damaged: replica.reason.description)
    }

    /// Where the promise of a replica cannot be read, the others say which terms there are: a candidate that it may have
    /// promised one has promised it to itself.
    private func learnTerms(for replica: AbsentReplica, _ view: NodeView) async throws {
        let name = replica.configuration.name
        let others = view.topology.shard(named: name)?.replicas.filter { $0 != address } ?? []
        let answers = await withTaskGroup(of: (NodeAddress, UInt64?).self) { group in
            for other in others {
                group.addTask { (other, try? await self.peers.history(ofShard: name, at: other).newestTerm) }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        let silent = others.filter { answers[$0] == nil }
        guard silent.isEmpty else {
            throw Problem(
                .unavailable,
                "The replica of \(name) is damaged (\(replica.reason)) and waits for every other replica to say which "
                    + "terms there are: \(silent.map(\.description).joined(separator: ", ")) does not answer.")
        }
        replica.learn(newestTerm: answers.values.max() ?? 0)
    }
}
