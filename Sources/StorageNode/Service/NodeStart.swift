import Configuration
import Core
import DistribKVClient
import Logging
import NIOCore
import NIOPosix
import Sharding
import Wire

/// Finds out which topology a node starts with: that of sharding.toml, of its data directory or of the cluster it
/// joins, whichever is newest.
struct NodeStart {
    let configuration: StorageNodeConfiguration
    /// Reach the cluster.
    let connections: NodeConnections
    /// Threads that may block.
    let blocking: NIOThreadPool

    /// What to begin with.
    struct Plan: Sendable {
        var topology: Topology
        /// The node has to be taken in by the cluster once it serves; nil where it has been.
        var join: ClusterJoin?
    }

    /// Decides what to serve by, and saves it where this node is in it.
    ///
    /// Throws `KVError` with the one line to show where there is no topology, or the node cannot join.
    func plan() async throws -> Plan {
        let persisted = PersistedTopology(directory: configuration.dataDirectory)
        let saved = try await blocking.runIfActive { try persisted.load() }
        let choice = try TopologyChoice.choose(file: configuration.topology, saved: saved)
        if let note = choice?.note { configuration.logger.notice("\(note)") }
        let plan: Plan
        if let settings = configuration.join {
            plan = try await join(settings, known: choice?.topology, hasData: saved != nil)
        } else if let choice {
            plan = Plan(topology: choice.topology)
        } else {
            throw NodeStart.nothing(configuration)
        }
        if plan.join == nil { try check(plan.topology) }
        // What belongs to a cluster that has not taken this node in is not kept: it may be another one next time.
        let isMember = plan.topology.nodes.contains(configuration.address)
        if plan.topology != saved, isMember || saved != nil || plan.join == nil {
            try await blocking.runIfActive { [topology = plan.topology] in try persisted.save(topology) }
        }
        return plan
    }

    private func join(_ settings: JoinSettings, known: Topology?, hasData: Bool) async throws -> Plan {
        var join = ClusterJoin(
            node: configuration.address, settings: settings, known: known, hasData: hasData,
            connections: connections, logger: configuration.logger)
        switch try await join.advance() {
        case .serve(let topology): return Plan(topology: topology, join: join)
        case .joined(let topology), .unconfirmed(let topology): return Plan(topology: topology)
        }
    }

    /// Has the cluster take the node in, which serves by now, and adopts the topology that says so.
    ///
    /// Throws `KVError` with the one line to show, `CancellationError`.
    static func finish(_ join: ClusterJoin, keeper: TopologyKeeper) async throws {
        var join = join
        while true {
            switch try await join.advance() {
            case .serve: continue
            case .joined(let topology), .unconfirmed(let topology):
                do {
                    // The leader has shown it to this node as well, most likely: then there is nothing to do.
                    _ = try await keeper.adopt(topology, from: "joining")
                } catch let problem as Problem {
                    throw KVError(.unavailable, "cannot go by the cluster's topology: \(problem.detail)")
                }
                return
            }
        }
    }

    /// Saves what the next start needs to know. Blocks.
    static func saveRecord(_ configuration: StorageNodeConfiguration) throws {
        guard let record = configuration.record else { return }
        try PersistedNode(directory: configuration.dataDirectory).save(record)
    }

    // MARK: Refusals

    private static func nothing(_ configuration: StorageNodeConfiguration) -> KVError {
        KVError(
            .invalidConfiguration,
            "nothing says which cluster this node is of: name its sharding.toml with --config, or a running cluster "
                + "with --join URL --shard NAME, or the --data-dir of a node that has run before "
                + "(\(configuration.dataDirectory) is new)")
    }

    /// An operator may have written a wrong address into sharding.toml or a flag; a topology that was learnt may have
    /// given this node's replicas to others, and then it serves none.
    private func check(_ topology: Topology) throws(KVError) {
        let address = configuration.address
        guard !topology.nodes.contains(address) else { return }
        guard topology == configuration.topology else {
            return configuration.logger.warning(
                """
                this node is no replica of any shard now: it redirects all requests and keeps the files it has; \
                it comes back with --join URL --shard NAME
                """,
                metadata: ["node": "\(address)", "epoch": "\(topology.epoch)"])
        }
        let nodes = topology.nodes.map(\.description).joined(separator: ", ")
        throw KVError(
            .invalidConfiguration,
            "no shard names \(address) as address or replica; use --advertise with one of \(nodes)")
    }
}
