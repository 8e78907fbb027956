import Core
import DistribKVClient
import Logging
import NIOCore
import NIOHTTP1
import Sharding
import Synchronization
import Wire

/// What this router knows of the cluster: the topology of the highest epoch seen, and each node's health.
///
/// Every change makes a new ``RoutingTable`` and hands it to the subscribers, each on its event loop. All methods
/// are safe from any thread. Invariants: the epoch never falls; there is a health for exactly the nodes of the
/// topology; tables are made in the order of their generations.
final class ClusterView: Sendable {
    private struct Subscriber: Sendable {
        let eventLoop: any EventLoop
        let apply: @Sendable (RoutingTable) -> Void
    }

    private struct State {
        var table: RoutingTable
        var health: [NodeAddress: NodeHealth]
        var subscribers: [Subscriber] = []
        /// A topology is being fetched; no second one meanwhile.
        var isFetching = false
        /// A node that claims an epoch it does not have must not keep the router fetching.
        var fetchNotBefore = NIODeadline.uptimeNanoseconds(0)
    }

    /// From the end of one fetch of a topology that brought nothing to the next.
    static let fetchPause = TimeAmount.milliseconds(500)
    private static let fetchTimeout = TimeAmount.seconds(5)

    private let state: Mutex<State>
    /// Of the topology this router was started with.
    private let fileEpoch: UInt64
    private let transport: any NodeTransport
    private let logger: Logger

    /// - Parameter transport: fetches topologies; its answers may be as large as a topology.
    /// - Throws: where the topology cannot be encoded.
    init(topology: Topology, transport: any NodeTransport, logger: Logger) throws {
        let document = try TopologyDocument(topology)
        let health = Dictionary(uniqueKeysWithValues: document.nodes.map { ($0, NodeHealth()) })
        self.state = Mutex(
            State(table: RoutingTable(generation: 1, document: document, health: health), health: health))
        self.fileEpoch = topology.epoch
        self.transport = transport
        self.logger = logger
    }

    var table: RoutingTable { state.withLock { $0.table } }

    /// Has `apply` called on `eventLoop` with every table from now on. Tables may arrive out of order there: keep
    /// the one with the highest generation.
    func subscribe(on eventLoop: any EventLoop, _ apply: @escaping @Sendable (RoutingTable) -> Void) {
        state.withLock { $0.subscribers.append(Subscriber(eventLoop: eventLoop, apply: apply)) }
    }

    /// Lets go of all subscribers.
    func close() { state.withLock { $0.subscribers.removeAll() } }

    /// Every node of the topology with its health, sorted by address.
    var nodes: [(address: NodeAddress, health: NodeHealth)] {
        state.withLock { state in
            state.table.nodes.map { (address: $0, health: state.health[$0] ?? NodeHealth()) }
        }
    }

    // MARK: Health

    /// `address` answered a look at its `/readyz`.
    func answered(_ address: NodeAddress, ready: Bool, epoch: UInt64?, at now: NIODeadline) {
        update(address) { $0.answered(ready: ready, epoch: epoch, at: now) }
    }

    /// `address` could not be reached or did not behave like a node.
    func failed(_ address: NodeAddress, reason: String) {
        update(address) { $0.failed(reason) }
    }

    private func update(_ address: NodeAddress, _ change: (inout NodeHealth) -> Bool) {
        let changed = state.withLock { state -> (Publication, NodeHealth)? in
            guard var health = state.health[address] else { return nil }
            let changed = change(&health)
            state.health[address] = health
            guard changed else { return nil }
            return (makeTable(of: state.table.document, in: &state), health)
        }
        guard let (publication, health) = changed else { return }
        publish(publication)
        let metadata: Logger.Metadata = ["node": "\(address)", "reason": "\(health.lastError ?? "")"]
        switch health.condition {
        case .dead: logger.warning("node does not answer: routing around it", metadata: metadata)
        case .notReady: logger.notice("node is not ready: reads go elsewhere", metadata: ["node": "\(address)"])
        case .ready, .unknown: logger.info("node is ready", metadata: ["node": "\(address)"])
        }
    }

    // MARK: Topology

    /// A node answered with `epoch`: fetches its topology where that is higher than the one known.
    /// - Parameter eventLoop: carries the fetch; of the transport's group.
    func saw(epoch: UInt64, of address: NodeAddress, on eventLoop: any EventLoop) {
        let now = eventLoop.now
        let mayFetch = state.withLock { state in
            guard epoch > state.table.topology.epoch, !state.isFetching, now >= state.fetchNotBefore else {
                return false
            }
            state.isFetching = true
            return true
        }
        guard mayFetch else { return }
        transport.execute(
            NodeRequest(method: .GET, target: APIPath.topology), to: address, on: eventLoop,
            deadline: now + ClusterView.fetchTimeout
        ).whenComplete { result in
            let adopted = self.fetched(result, from: address)
            self.state.withLock { state in
                state.isFetching = false
                if !adopted { state.fetchNotBefore = eventLoop.now + ClusterView.fetchPause }
            }
        }
    }

    /// - Returns: whether it raised the epoch.
    private func fetched(_ result: Result<NodeResponse, any Error>, from address: NodeAddress) -> Bool {
        do {
            let response = try result.get()
            guard response.status == 200 else {
                throw KVError(.invalidData, "GET \(APIPath.topology) was answered \(response.status)")
            }
            return try adopt(Topology(json: response.body.readableBytesView), from: address)
        } catch {
            logger.warning(
                "the topology could not be fetched", metadata: ["node": "\(address)", "reason": "\(error.reason)"])
            return false
        }
    }

    /// Takes `topology` where it supersedes the one known.
    /// - Parameter address: the node that has it, for the log.
    /// - Returns: whether it did.
    /// - Throws: `KVError(.invalidData)` where it belongs to another cluster.
    @discardableResult func adopt(_ topology: Topology, from address: NodeAddress) throws -> Bool {
        let document = try TopologyDocument(topology)
        let next = try state.withLock { state -> Publication? in
            let known = state.table.topology
            guard topology.cluster == known.cluster else {
                throw KVError(
                    .invalidData, "it belongs to cluster \"\(topology.cluster)\", this router to \"\(known.cluster)\"")
            }
            guard try topology.supersedes(known) else { return nil }
            state.health = Dictionary(
                uniqueKeysWithValues: document.nodes.map { ($0, state.health[$0] ?? NodeHealth()) })
            return makeTable(of: document, in: &state)
        }
        guard let next else { return false }
        publish(next)
        logger.notice(
            "takes a newer topology than that of sharding.toml",
            metadata: ["epoch": "\(topology.epoch)", "sharding_toml": "\(fileEpoch)", "from": "\(address)"])
        return true
    }

    // MARK: Publishing

    private struct Publication {
        let table: RoutingTable
        let subscribers: [Subscriber]
    }

    private func makeTable(of document: TopologyDocument, in state: inout State) -> Publication {
        state.table = RoutingTable(
            generation: state.table.generation + 1, document: document, health: state.health)
        return Publication(table: state.table, subscribers: state.subscribers)
    }

    private func publish(_ publication: Publication) {
        for subscriber in publication.subscribers {
            subscriber.eventLoop.execute { subscriber.apply(publication.table) }
        }
    }
}
