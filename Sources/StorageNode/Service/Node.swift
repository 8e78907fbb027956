import Core
import DistribKVClient
import Logging
import ServiceSupport
import Shard
import Sharding

/// What the event loops of a storage node share.
final class Node: Sendable {
    let configuration: StorageNodeConfiguration
    let keeper: TopologyKeeper
    let peers: Peers
    /// Carries parts of batches to the leaders of their shards.
    let batchConnections: NodeConnections
    let answerBudget = AnswerBudget(bytesMax: 256 << 20)
    let readers: ReaderPool
    /// For pages of scans, so that they do not hold up reads of single keys.
    let scanners = ReaderPool(threads: 2, waitingMax: 256)
    /// For scans of what is not here.
    let scanConnections: NodeConnections
    let scansInFlight = ScansInFlight()
    /// For what reads or writes whole databases.
    let snapshotWork = ReaderPool(threads: 2, waitingMax: 16)
    /// For what is due every second: short, and never behind the work above.
    let upkeep = ReaderPool(threads: 1, waitingMax: 4)
    let metrics: NodeMetrics
    let clockWatch: ClockWatch
    let started = ContinuousClock.now
    var logger: Logger { configuration.logger }
    var address: NodeAddress { configuration.address }
    var views: NodeViews { keeper.views }

    /// What the node serves now. Event loops keep their own and are handed every new one.
    var view: NodeView { keeper.views.current }

    init(
        configuration: StorageNodeConfiguration, keeper: TopologyKeeper, peers: Peers,
        batchConnections: NodeConnections, scanConnections: NodeConnections, readers: ReaderPool
    ) {
        self.configuration = configuration
        self.keeper = keeper
        self.peers = peers
        self.batchConnections = batchConnections
        self.readers = readers
        self.scanConnections = scanConnections
        clockWatch = ClockWatch(configuration.clock.bounded, logger: configuration.logger)
        self.metrics = NodeMetrics(
            views: keeper.views, clock: clockWatch, shared: keeper.opener.shared, budgets: keeper.opener.budgets)
    }

    /// Takes this node's replica of a shard out of service, has `replace` put another in its place, and serves that.
    ///
    /// Reads and writes of the shard are redirected to its leader meanwhile. No other change of replicas or topology
    /// runs at the same time.
    /// - Parameter replace: gets the replica, or what is left of one that does not open, which no event loop hands to a new request any more (those under way may
    ///   still use it until it is closed), and what opens the directory of the shard anew in the role the topology
    ///   gives to this node. Returns the replica to serve, having closed the other.
    ///
    /// Throws `KVError(.notFound)` where no replica of the shard is served here, `.unavailable` once the node stops,
    /// and what `replace` throws: the replica is then absent, with that as the reason.
    func replaceReplica(
        ofShard name: String, because absence: ReplicaAbsence,
        _ replace:
            @Sendable (_ old: any RebuildableReplica, _ reopen: @Sendable () async throws -> ShardReplica) async throws
            -> ShardReplica
    ) async throws {
        try await keeper.replaceReplica(ofShard: name, because: absence, replace)
    }

    /// Calls the readers of logs that wait back, so that a shutdown need not wait for them.
    func stopWaiting() {
        for replica in view.openReplicas.values { replica.stopWaiting() }
    }

    /// Ends the threads; what runs on them is waited for.
    func stopThreads() async throws {
        try await readers.shutdown()
        try await scanners.shutdown()
        try await snapshotWork.shutdown()
        try await upkeep.shutdown()
    }
}
