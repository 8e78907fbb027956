import Configuration
import Core
import Logging
import NIOPosix
import Shard
import Sharding
import Synchronization

/// Changes what a node serves: topologies that it adopts, replicas that are replaced.
///
/// One change at a time. A topology is on disk before anything is done by it, and no change is left half done: what
/// cannot be done of it (a replica that does not open) is logged and shown in the view.
final class TopologyKeeper: Sendable {
    /// How long writes that were accepted before their leader stepped down wait to be sent to the new one.
    private static let stepDownHoldMilliseconds: UInt64 = 1_000

    let views: NodeViews
    private let address: NodeAddress
    let opener: ReplicaOpener
    /// The replicas that do not open.
    let absent: AbsentReplicas
    private let persisted: PersistedTopology
    private let threads: NIOThreadPool
    private let logger: Logger
    /// Held by whoever makes a change.
    private let changes = Turnstile()
    private let isClosed = Atomic<Bool>(false)
    /// Writes that are held since the start, by the names of their shards.
    private let startHolds = Mutex<[String: WriteHold]>([:])

    /// - Parameter threads: may block; outlive the keeper.
    init(configuration: StorageNodeConfiguration, view: NodeView, opener: ReplicaOpener, threads: NIOThreadPool) {
        views = NodeViews(view)
        address = configuration.address
        self.opener = opener
        absent = AbsentReplicas(opener: opener)
        persisted = PersistedTopology(directory: configuration.dataDirectory)
        self.threads = threads
        logger = configuration.logger
    }

    var topology: Topology { views.current.topology }

    // MARK: Turns

    /// Proves that no other change runs. Not to be kept.
    struct Change: ~Copyable {
        fileprivate let turn: Turn
        fileprivate init(_ turn: Turn) { self.turn = turn }
    }

    /// Runs `body` when every change before it is done; keep it bounded, others wait meanwhile.
    ///
    /// Throws `KVError(.unavailable)` once the node stops, `CancellationError`, and what `body` throws.
    func change<Result: Sendable>(
        _ body: @Sendable (borrowing Change) async throws -> Result
    ) async throws -> Result {
        let change = Change(try await changes.pass())
        defer { withExtendedLifetime(change.turn) {} }
        guard !isClosed.load(ordering: .acquiring) else { throw KVError(.unavailable, "this node is stopping") }
        return try await body(change)
    }

    // MARK: Topologies

    /// Adopts `topology` where it supersedes the current one; where both have one epoch, what is made of the two.
    /// - Parameter source: where it comes from, for the log.
    /// - Returns: whether it did.
    ///
    /// Throws a `Problem` where it is refused, `KVError` where it cannot be saved.
    func adopt(_ topology: Topology, from source: String) async throws -> Bool {
        try await change { change in
            try await self.adopt(topology, from: source, change)
        }
    }

    /// As ``adopt(_:from:)``, for whoever makes a change.
    func adopt(_ shown: Topology, from source: String, _ change: borrowing Change) async throws -> Bool {
        let view = views.current
        let adoption = TopologyAdoption(
            address: address, current: view.topology, roles: view.openReplicas.mapValues(\.role),
            absent: Set(view.absentReplicas.keys))
        let topology = try adoption.incoming(shown)
        switch try adoption.decide(on: topology) {
        case .refuse(let problem): throw problem
        case .ignore: return false
        case .adopt(let steps):
            logger.notice(
                "adopts a newer topology",
                metadata: [
                    "epoch": "\(topology.epoch)", "before": "\(view.topology.epoch)", "from": "\(source)",
                ])
            try await perform(steps, topology, change)
            return true
        }
    }

    /// Saves a topology, durably, without going by it yet.
    func persist(_ topology: Topology, _ change: borrowing Change) async throws {
        try await threads.runIfActive { [persisted] in try persisted.save(topology) }
    }

    /// What the steps of an adoption change before they are published.
    private struct Work {
        var replicas: [String: ShardReplica]
        var absences: [String: ReplicaAbsence]
        var holds: [(replica: ShardReplica, hold: WriteHold)] = []
        var leaving: [String: ShardReplica] = [:]
    }

    private func perform(
        _ steps: [TopologyAdoption.Step], _ topology: Topology, _ change: borrowing Change
    ) async throws {
        let view = views.current
        var work = Work(replicas: view.openReplicas, absences: view.absentReplicas)
        for case .close(let shard) in steps { work.leaving[shard] = work.replicas.removeValue(forKey: shard) }
        for shard in view.topology.shards
        where !(topology.shard(named: shard.name)?.replicas.contains(address) ?? false) {
            work.absences[shard.name] = nil
        }
        for step in steps {
            switch step {
            case .persist: try await persist(topology, change)
            case .follow(let shard, let term): await follow(shard, term, &work)
            case .open(let shard): await open(shard, topology, &work)
            case .lead(let shard, let term): await lead(shard, term, work)
            case .publish:
                try await publish(topology, work.replicas, work.absences, change)
                for (replica, hold) in work.holds { await replica.release(hold) }
            case .close(let shard): await close(shard, work.leaving[shard])
            }
        }
    }

    /// Writes that wait in a leader that steps down are held until event loops know where to send them.
    private func follow(_ shard: String, _ term: UInt64, _ work: inout Work) async {
        guard let replica = work.replicas[shard] else { return }
        var hold = startHolds.withLock { $0.removeValue(forKey: shard) }
        do throws(KVError) {
            if hold == nil, replica.role.isLeader {
                hold = try? await replica.hold(milliseconds: TopologyKeeper.stepDownHoldMilliseconds)
            }
            if let hold { work.holds.append((replica, hold)) }
            do throws(KVError) {
                try await replica.become(.follower(term: term), during: hold)
            } catch  where error.code == .timedOut {
                try await replica.become(.follower(term: term))
            }
        } catch {
            logger.error("cannot follow", metadata: ["shard": "\(shard)", "term": "\(term)", "reason": "\(error)"])
        }
    }

    private func lead(_ shard: String, _ term: UInt64, _ work: Work) async {
        do throws(KVError) {
            try await work.replicas[shard]?.become(.leader(term: term))
        } catch {
            logger.error("cannot lead", metadata: ["shard": "\(shard)", "term": "\(term)", "reason": "\(error)"])
        }
    }

    private func open(_ name: String, _ topology: Topology, _ work: inout Work) async {
        guard let shard = topology.shard(named: name) else { return }
        do {
            work.replicas[name] = try await opener.open(shard, cluster: topology.cluster, joins: true)
            work.absences[name] = nil
        } catch {
            work.absences[name] = opener.absence(
                of: name, because: error as? KVError ?? KVError(.internalError, "\(error)"))
        }
    }

    private func close(_ shard: String, _ replica: ShardReplica?) async {
        do throws(KVError) {
            try await replica?.close()
            logger.notice("replica closed: the topology gives it to other nodes", metadata: ["shard": "\(shard)"])
        } catch {
            logger.error("replica did not close cleanly", metadata: ["shard": "\(shard)", "reason": "\(error)"])
        }
    }

    // MARK: Replicas

    /// As ``Node/replaceReplica(ofShard:because:_:)``.
    func replaceReplica(
        ofShard name: String, because absence: ReplicaAbsence,
        _ replace:
            @Sendable (_ old: any RebuildableReplica, _ reopen: @Sendable () async throws -> ShardReplica) async throws
            -> ShardReplica
    ) async throws {
        try await change { change in
            let before = self.views.current
            guard let position = before.position(ofShardNamed: name),
                let old: any RebuildableReplica = before.replicas[position]
                    ?? (before.damagedAbsence(ofShardNamed: name) != nil ? self.absent.known(ofShard: name) : nil)
            else { throw KVError(.notFound, "this node serves no replica of \(name)") }
            var replicas = before.openReplicas
            var absences = before.absentReplicas
            replicas[name] = nil
            absences[name] = absence
            try await self.publish(before.topology, replicas, absences, change)
            do {
                let shard = before.topology.shards[position]
                replicas[name] = try await replace(old) {
                    try await self.opener.open(shard, cluster: before.topology.cluster)
                }
                absences[name] = nil
                try await self.publish(before.topology, replicas, absences, change)
            } catch {
                let reason = error as? KVError ?? KVError(.internalError, "\(error)")
                self.logger.error(
                    "replica is out of service", metadata: ["shard": "\(name)", "reason": "\(reason)"])
                // One that was absent is so for the reason that it was.
                absences[name] = before.absences[position] ?? .failed(reason)
                self.absent.forget(name)
                try await self.publish(before.topology, replicas, absences, change)
                throw error
            }
        }
    }

    /// Serves by `topology` with these replicas; returns when every event loop does.
    private func publish(
        _ topology: Topology, _ replicas: [String: ShardReplica], _ absences: [String: ReplicaAbsence],
        _ change: borrowing Change
    ) async throws {
        let view = try NodeView(
            generation: views.current.generation + 1, topology: topology, address: address, replicas: replicas,
            absences: absences)
        absent.keep(to: view)
        await views.publish(view)
    }

    /// Goes by a topology that was persisted and whose roles are in force, with the replicas that are open.
    func publish(_ topology: Topology, _ change: borrowing Change) async throws {
        let view = views.current
        try await publish(topology, view.openReplicas, view.absentReplicas, change)
    }

    // MARK: Start and stop

    /// Holds the writes of a shard that is led here until ``releaseStartHold(ofShard:)``, or for `milliseconds`.
    func holdFromStart(_ replica: ShardReplica, milliseconds: UInt64) async throws {
        let hold = try await replica.hold(milliseconds: milliseconds)
        startHolds.withLock { $0[replica.configuration.name] = hold }
    }

    func releaseStartHold(ofShard name: String) async {
        guard let hold = startHolds.withLock({ $0.removeValue(forKey: name) }) else { return }
        await views.current.replica(ofShardNamed: name)?.release(hold)
    }

    /// Waits for the change under way, then syncs and closes every replica; throws the first failure once all have
    /// been tried. Once.
    func close() async throws {
        let turn = try await changes.pass()
        defer { withExtendedLifetime(turn) {} }
        isClosed.store(true, ordering: .releasing)
        views.close()
        var failure: KVError?
        for replica in views.current.openReplicas.values {
            do throws(KVError) {
                try await replica.close()
            } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }
}
