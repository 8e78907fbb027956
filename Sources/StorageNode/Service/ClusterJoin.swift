import Configuration
import Core
import DistribKVClient
import Logging
import NIOCore
import NIOHTTP1
import Sharding
import Wire

/// Does what a ``JoinProgress`` says, over connections to nodes.
struct ClusterJoin: Sendable {
    /// Where the caller has something to do.
    enum Step {
        /// Serve by this topology, then go on.
        case serve(Topology)
        /// The end: the node is a replica of every shard asked for.
        case joined(Topology)
        /// The end: nobody could be asked, but the node was one before.
        case unconfirmed(Topology)
    }

    private var progress: JoinProgress
    private let node: NodeAddress
    private let connections: NodeConnections
    private let logger: Logger
    private let started = ContinuousClock.now
    private var loggedFailure: String?

    private static let requestTimeout = TimeAmount.seconds(5)

    /// - Parameters:
    ///   - known: the topology of the data directory or of sharding.toml.
    ///   - hasData: whether this node has served from its data directory before.
    init(
        node: NodeAddress, settings: JoinSettings, known: Topology?, hasData: Bool, connections: NodeConnections,
        logger: Logger
    ) {
        progress = JoinProgress(
            node: node, settings: settings, known: known, hasData: hasData, jitter: { Double.random(in: 0.5...1) })
        self.node = node
        self.connections = connections
        self.logger = logger
    }

    /// Goes on to the next step.
    ///
    /// Throws `KVError` with the one line to show where the node cannot join, `CancellationError`.
    mutating func advance() async throws -> Step {
        while true {
            try Task.checkCancellation()
            switch progress.next(at: elapsed) {
            case .fetchTopology(let seed):
                await send(NodeRequest(method: .GET, target: APIPath.topology), to: seed)
            case .register(let shard, let leader, let target):
                logger.info("joining", metadata: ["shard": "\(shard)", "leader": "\(leader)"])
                let body = ByteBuffer(bytes: try DocumentCoding.encode(MembershipRequest(node: node)))
                let request = NodeRequest(
                    method: .POST, target: target, headers: [("content-type", MediaType.json)], body: body)
                await send(request, to: leader)
            case .wait(let until):
                logFailure()
                try await Task.sleep(until: started + until, clock: .continuous)
            case .serve(let topology): return .serve(topology)
            case .joined(let topology): return .joined(topology)
            case .unconfirmed(let topology, let reason):
                logger.warning("the cluster could not be asked: going on as before", metadata: ["reason": "\(reason)"])
                return .unconfirmed(topology)
            case .failed(let error): throw error
            }
        }
    }

    private var elapsed: Duration { ContinuousClock.now - started }

    private mutating func send(_ request: NodeRequest, to address: NodeAddress) async {
        let event: JoinProgress.Event
        do {
            event = .answer(
                try await connections.execute(request, to: address, deadline: .now() + ClusterJoin.requestTimeout))
        } catch {
            event = .failure("\(error)")
        }
        progress.receive(event, at: elapsed)
    }

    /// Once for each reason: who waits wants to know for what.
    private mutating func logFailure() {
        guard let reason = progress.lastFailure, reason != loggedFailure else { return }
        loggedFailure = reason
        logger.warning("cannot join yet: trying again", metadata: ["reason": "\(reason)"])
    }
}
