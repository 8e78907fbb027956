import Core
import NIOCore
import Sharding

/// Asks nodes for the topology, some at a time, until one has the epoch wanted. Confined to its event loop.
final class TopologySearch {
    struct Found: Sendable {
        var topology: Topology
        var from: NodeAddress
    }

    typealias Fetch = @Sendable (NodeAddress) async throws -> Topology

    struct Terms: Sendable {
        /// The least epoch that ends the search.
        var epoch: UInt64
        /// Nodes asked at once.
        var width: Int
        /// How long the others have once anybody has answered: one of them may be as dead as the node that this search
        /// is about.
        var patience: TimeAmount
    }

    private let terms: Terms
    private let eventLoop: any EventLoop
    private let fetch: Fetch
    private var completion: ((Result<Found, KVError>) -> Void)?
    private var waiting: ArraySlice<NodeAddress>
    private var asked = 0
    private var best: Found?
    private var failures: [String] = []
    private var patienceEnds: Scheduled<Void>?

    private init(
        _ candidates: [NodeAddress], _ terms: Terms, eventLoop: any EventLoop, fetch: @escaping Fetch,
        completion: @escaping (Result<Found, KVError>) -> Void
    ) {
        self.eventLoop = eventLoop
        self.terms = terms
        self.fetch = fetch
        self.completion = completion
        self.waiting = candidates[...]
    }

    /// Calls `completion` once, on the event loop: with the first topology of the epoch wanted, else with the newest
    /// that anybody has once all have been asked; fails with `unavailable` where nobody answers.
    static func start(
        _ candidates: [NodeAddress], _ terms: Terms, on eventLoop: any EventLoop, fetch: @escaping Fetch,
        completion: @escaping @Sendable (Result<Found, KVError>) -> Void
    ) {
        eventLoop.execute {
            TopologySearch(
                candidates, terms, eventLoop: eventLoop, fetch: fetch, completion: completion
            ).advance()
        }
    }

    private func advance() {
        guard completion != nil else { return }
        while asked < terms.width, let address = waiting.popFirst() {
            asked += 1
            // A task, as decoding the document would hold up the event loop.
            let fetch = fetch
            eventLoop.makeFutureWithTask { try await fetch(address) }.assumeIsolated().whenComplete { result in
                self.asked -= 1
                self.take(result, from: address)
                self.advance()
            }
        }
        guard asked == 0 else { return awaitOthers() }
        if let best { return complete(.success(best)) }
        complete(
            .failure(
                KVError(
                    .unavailable, "no router or node answers with the topology: \(failures.joined(separator: "; "))")))
    }

    private func awaitOthers() {
        guard completion != nil, patienceEnds == nil, let best, terms.width > 1 else { return }
        patienceEnds = eventLoop.assumeIsolated().scheduleTask(in: terms.patience) {
            self.complete(.success(self.best ?? best))
        }
    }

    private func take(_ result: Result<Topology, any Error>, from address: NodeAddress) {
        switch result {
        case .success(let topology):
            do {
                let isBest = try best.map { try topology.supersedes($0.topology) } ?? true
                if isBest { best = Found(topology: topology, from: address) }
            } catch {
                failures.append("\(address): \(error)")
            }
            if topology.epoch >= terms.epoch, let best { complete(.success(best)) }
        case .failure(let error): failures.append("\(address): \(error)")
        }
    }

    private func complete(_ result: Result<Found, KVError>) {
        patienceEnds?.cancel()
        completion?(result)
        completion = nil
    }
}
