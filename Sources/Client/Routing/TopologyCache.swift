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

    private let seeds: [NodeAddress]
    private let connections: NodeConnections
    private let timeoutPerNode: TimeAmount
    private let intervalMin: TimeAmount
    private let state = Mutex(State())

    /// - Parameters:
    ///   - timeoutPerNode: how long one node may take to answer before the next is asked.
    ///   - intervalMin: a refresh this soon after the last one answers with what that one found.
    init(seeds: [NodeAddress], connections: NodeConnections, timeoutPerNode: TimeAmount, intervalMin: TimeAmount) {
        self.seeds = seeds
        self.connections = connections
        self.timeoutPerNode = timeoutPerNode
        self.intervalMin = intervalMin
    }

    var current: Topology? { state.withLock { $0.topology } }

    /// Fetches the topology, or joins the refresh that is under way.
    ///
    /// Fails with `KVError(.unavailable)` where nobody answers; what was known before stays.
    /// - Parameters:
    ///   - hint: who is asked first, as it is known to have a new one.
    ///   - epoch: the least epoch wanted; an older document is taken only where nobody has a newer one.
    ///   - need: whether what is known, or was fetched just now, is good enough.
    func refresh(
        hint: NodeAddress? = nil, epoch: UInt64 = 0, _ need: Need = .newer, on eventLoop: any EventLoop
    ) -> EventLoopFuture<Topology> {
        enum Step {
            case join(EventLoopFuture<Topology>)
            case known(Topology)
            case fetch(EventLoopPromise<Topology>, candidates: [NodeAddress])
        }
        let step = state.withLock { state -> Step in
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
            return .fetch(promise, candidates: candidates(hint: hint, state))
        }
        switch step {
        case .join(let refresh): return refresh.hop(to: eventLoop)
        case .known(let topology): return eventLoop.makeSucceededFuture(topology)
        case .fetch(let promise, let candidates):
            // A task, as decoding the document would hold up the event loop; the promise is what awaits it.
            promise.completeWithTask { [self] in try await fetch(from: candidates, epoch: epoch) }
            return promise.futureResult
        }
    }

    private func candidates(hint: NodeAddress?, _ state: State) -> [NodeAddress] {
        var candidates: [NodeAddress] = []
        let nodes = state.topology?.nodes.shuffled() ?? []
        for address in [hint, state.lastAnswering].compactMap({ $0 }) + seeds + nodes
        where !candidates.contains(address) {
            candidates.append(address)
        }
        return candidates
    }

    private func fetch(from candidates: [NodeAddress], epoch: UInt64) async throws -> Topology {
        var failures: [String] = []
        var best: (topology: Topology, from: NodeAddress)?
        for address in candidates where best?.topology.epoch ?? 0 < max(epoch, 1) {
            do {
                let topology = try await fetch(from: address)
                if topology.epoch >= best?.topology.epoch ?? 0 { best = (topology, address) }
                if topology.epoch >= epoch { break }
            } catch {
                failures.append("\(address): \(error)")
            }
        }
        return try state.withLock { state in
            state.refresh = nil
            state.refreshedAt = .now()
            guard let best else {
                throw KVError(
                    .unavailable, "no router or node answers with the topology: \(failures.joined(separator: "; "))")
            }
            state.lastAnswering = best.from
            let newest: Topology
            if let known = state.topology, known.epoch >= best.topology.epoch {
                newest = known
            } else {
                newest = best.topology
            }
            state.topology = newest
            return newest
        }
    }

    private func fetch(from address: NodeAddress) async throws -> Topology {
        let request = NodeRequest(method: .GET, target: APIPath.topology)
        let response = try await connections.execute(request, to: address, deadline: .now() + timeoutPerNode)
        guard response.status == 200 else {
            throw KVError(.unavailable, "GET \(APIPath.topology) was answered with status \(response.status)")
        }
        return try Topology(json: response.body.readableBytesView)
    }
}
