import Core
import Logging
import Shard
import Sharding

/// What the event loops of a storage node share, and the changes to what it serves.
///
/// Changes are made one at a time; what is served is the current ``NodeView``.
final class Node: Sendable {
    let configuration: StorageNodeConfiguration
    let views: NodeViews
    let readers: ReaderPool
    /// For what reads or writes whole databases.
    let snapshotWork = ReaderPool(threads: 2, waitingMax: 16)
    let metrics: NodeMetrics
    let started = ContinuousClock.now
    private let opener: ReplicaOpener
    /// Held by whoever changes what is served.
    private let changes = Turnstile()
    var logger: Logger { configuration.logger }

    /// What the node serves now. Event loops keep their own and are handed every new one.
    var view: NodeView { views.current }

    init(configuration: StorageNodeConfiguration, view: NodeView, opener: ReplicaOpener, readers: ReaderPool) {
        self.configuration = configuration
        self.views = NodeViews(view)
        self.opener = opener
        self.readers = readers
        self.metrics = NodeMetrics(views: views)
    }

    // MARK: Changes

    /// Takes this node's replica of a shard out of service, has `change` put another in its place, and serves that.
    ///
    /// Reads and writes of the shard are redirected to its leader meanwhile. No other change of replicas or topology
    /// runs at the same time.
    /// - Parameter change: gets the replica, which no event loop hands to a new request any more (those under way may
    ///   still use it until it is closed), and what opens the directory of the shard anew in the role the topology
    ///   gives to this node. Returns the replica to serve, having closed the other.
    ///
    /// Throws `KVError(.notFound)` where no replica of the shard is served here, `.unavailable` once the node stops,
    /// and what `change` throws: the replica is then absent, with that as the reason.
    func replaceReplica(
        ofShard name: String, because absence: ReplicaAbsence,
        _ change:
            @Sendable (_ old: ShardReplica, _ reopen: @Sendable () async throws -> ShardReplica) async throws ->
            ShardReplica
    ) async throws {
        let turn = try await changes.pass()
        defer { withExtendedLifetime(turn) {} }
        let before = view
        guard let position = before.position(ofShardNamed: name), let old = before.replicas[position] else {
            throw KVError(.notFound, "this node serves no replica of \(name)")
        }
        var replicas = before.openReplicas
        var absences = before.absentReplicas
        replicas[name] = nil
        absences[name] = absence
        try await publish(before.topology, replicas, absences)
        do {
            let shard = before.topology.shards[position]
            replicas[name] = try await change(old) {
                try await self.opener.open(shard, cluster: before.topology.cluster)
            }
            absences[name] = nil
            try await publish(before.topology, replicas, absences)
        } catch {
            let reason = error as? KVError ?? KVError(.internalError, "\(error)")
            logger.error("replica is out of service", metadata: ["shard": "\(name)", "reason": "\(reason)"])
            absences[name] = .failed(reason)
            try await publish(before.topology, replicas, absences)
            throw error
        }
    }

    /// For whoever holds the turn.
    private func publish(
        _ topology: Topology, _ replicas: [String: ShardReplica], _ absences: [String: ReplicaAbsence]
    ) async throws {
        try await views.publish(
            NodeView(
                generation: view.generation + 1, topology: topology, address: configuration.address,
                replicas: replicas, absences: absences))
    }

    // MARK: Stopping

    /// Calls the readers of logs that wait back, so that a shutdown need not wait for them.
    func stopWaiting() {
        for replica in view.openReplicas.values { replica.stopWaiting() }
    }

    /// Ends the threads; what runs on them is waited for.
    func stopThreads() async throws {
        try await readers.shutdown()
        try await snapshotWork.shutdown()
    }

    /// Waits for the change under way, then syncs and closes every replica; throws the first failure once all have
    /// been tried. Once.
    func close() async throws {
        let turn = try await changes.pass()
        defer { withExtendedLifetime(turn) {} }
        views.close()
        var failure: KVError?
        for replica in view.openReplicas.values {
            do throws(KVError) {
                try await replica.close()
            } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }
}
