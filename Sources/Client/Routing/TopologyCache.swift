import Core
import NIOCore
import NIOHTTP1
import Sharding
import Synchronization
import Wire

/// The newest topology seen, and the one refresh that may be under way.
///
/// Invariant: the epoch never goes back.
final class TopologyCache: Sendable {
    enum Need {
        /// There was none when the caller looked; by now there may be one.
        case any
        /// Fetched at most `intervalMin` ago.
        case newer
        case current
    }

    private struct State {
        var topology: Topology?
        var refresh: EventLoopFuture<Topology>?
        var refreshedAt: NIODeadline?
        /// The seed or node that answered last; asked first next time.
        var lastAnswering: NodeAddress?
    }

    /// Nodes that a search asks, all at once.
    private static let searchWidth = 8

    private let seeds: [NodeAddress]
    private let connections: NodeConnections
    private let timeoutPerNode: TimeAmount
    private let searchPatience: TimeAmount
    private let intervalMin: TimeAmount
    private let state = Mutex(State())

    /// - Parameters:
    ///   - timeoutPerNode: how long one node may take to answer before the next is asked.
    ///   - intervalMin: a refresh this soon after the last one answers with what that one found.
    ///   - searchPatience: how long the others have in a search once one has answered.
    init(
        seeds: [NodeAddress], connections: NodeConnections, timeoutPerNode: TimeAmount, searchPatience: TimeAmount,
        intervalMin: TimeAmount
    ) {
        self.seeds = seeds
        self.connections = connections
        self.timeoutPerNode = timeoutPerNode
        self.searchPatience = searchPatience
        self.intervalMin = intervalMin
    }

    var current: Topology? { state.withLock { $0.topology } }

    /// Fetches the topology from the first node that answers, or joins the refresh that is under way.
    ///
    /// Fails with `KVError(.unavailable)` where nobody answers; what was known before stays.
    /// - Parameters:
    ///   - first: who is asked first, as they are known to have a new one.
    ///   - epoch: the least epoch wanted; an older document is taken only where nobody has a newer one.
    ///   - need: whether what is known, or was fetched just now, is good enough.
    func refresh(
        _ need: Need = .newer, asking first: [NodeAddress] = [], epoch: UInt64 = 0, on eventLoop: any EventLoop
    ) -> EventLoopFuture<Topology> {
        refresh(need, epoch: epoch, width: 1, on: eventLoop) { self.candidates(first: first, $0) }
    }

    /// Looks for a topology of at least `epoch`: asks several nodes at once, and takes the first that has it, else the
    /// newest there is.
    ///
    /// For when a node that was to serve a request does not: a node that was cut off goes on telling its old topology.
    func search(
        for epoch: UInt64, asking first: [NodeAddress], on eventLoop: any EventLoop
    ) -> EventLoopFuture<Topology> {
        refresh(.newer, epoch: epoch, width: Self.searchWidth, on: eventLoop) {
            Array(self.candidates(first: first, $0).prefix(Self.searchWidth))
        }
    }

    private func refresh(
        _ need: Need, epoch: UInt64, width: Int, on eventLoop: any EventLoop,
        candidates: (State) -> [NodeAddress]
    ) -> EventLoopFuture<Topology> {
        enum Step {
            case join(EventLoopFuture<Topology>)
            case known(Topology)
            case fetch(EventLoopPromise<Topology>, candidates: [NodeAddress])
        }
        let step = state.withLock { state -> Step in
            // Somebody else may have found it meanwhile.
            if let topology = state.topology, epoch > 0, topology.epoch >= epoch { return .known(topology) }
            if let refresh = state.refresh { return .join(refresh) }
            if let topology = state.topology, let last = state.refreshedAt {
                switch need {
                case .any: return .known(topology)
                case .newer: if .now() < last + intervalMin { return .known(topology) }
                case .current: break
                }
            }
            let promise = eventLoop.makePromise(of: Topology.self)
            state.refresh = promise.futureResult
            return .fetch(promise, candidates: candidates(state))
        }
        switch step {
        case .join(let refresh): return refresh.hop(to: eventLoop)
        case .known(let topology): return eventLoop.makeSucceededFuture(topology)
        case .fetch(let promise, let candidates):
            let (connections, timeout) = (connections, timeoutPerNode)
            let terms = TopologySearch.Terms(epoch: max(epoch, 1), width: width, patience: searchPatience)
            TopologySearch.start(candidates, terms, on: eventLoop) { address in
                try await Self.fetch(from: address, connections, timeout: timeout)
            } completion: { result in
                promise.completeWith(self.adopt(result))
            }
            return promise.futureResult
        }
    }

    private func candidates(first: [NodeAddress], _ state: State) -> [NodeAddress] {
        var candidates: [NodeAddress] = []
        let nodes = state.topology?.nodes.shuffled() ?? []
        for address in first + [state.lastAnswering].compactMap({ $0 }) + seeds + nodes
        where !candidates.contains(address) {
            candidates.append(address)
        }
        return candidates
    }

    /// Ends the refresh with what was found.
    private func adopt(_ result: Result<TopologySearch.Found, KVError>) -> Result<Topology, any Error> {
        state.withLock { state in
            state.refresh = nil
            state.refreshedAt = .now()
            return Result {
                let found = try result.get()
                state.lastAnswering = found.from
                if let known = state.topology, try !found.topology.supersedes(known) { return known }
                state.topology = found.topology
                return found.topology
            }
        }
    }

    private static func fetch(
        from address: NodeAddress, _ connections: NodeConnections, timeout: TimeAmount
    ) async throws -> Topology {
        let request = NodeRequest(method: .GET, target: APIPath.topology)
        let response = try await connections.execute(request, to: address, deadline: .now() + timeout)
        guard response.status == 200 else {
            throw KVError(.unavailable, "GET \(APIPath.topology) was answered with status \(response.status)")
        }
        return try Topology(json: response.body.readableBytesView)
    }
}
