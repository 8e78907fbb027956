import Core
import Logging
import Sharding
import Synchronization

/// The highest topology seen so far, and how a higher one is fetched.
///
/// Every answer of a node carries its epoch; one above the own makes ``run(fetch:)`` ask that node for its
/// document. The epoch only rises.
final class TopologyTracker: Sendable {
    private struct Sighting: Sendable {
        let epoch: UInt64
        let node: NodeAddress
    }

    private static let sightingsMax = 16
    private static let retryInterval = Duration.milliseconds(200)

    private let state: Mutex<Topology>
    private let epoch: Atomic<UInt64>
    private let logger: Logger
    private let sightings: AsyncStream<Sighting>
    private let sightingsContinuation: AsyncStream<Sighting>.Continuation
    /// The current topology first, then each new one; a reader that is late gets the newest. For one reader.
    let updates: AsyncStream<Topology>
    private let updatesContinuation: AsyncStream<Topology>.Continuation

    init(_ topology: Topology, logger: Logger) {
        state = Mutex(topology)
        epoch = Atomic(topology.epoch)
        self.logger = logger
        (sightings, sightingsContinuation) = AsyncStream.makeStream(
            bufferingPolicy: .bufferingNewest(TopologyTracker.sightingsMax))
        (updates, updatesContinuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        updatesContinuation.yield(topology)
    }

    var topology: Topology { state.withLock { $0 } }

    /// Takes note of the epoch in an answer of `node`; one load where it is not higher.
    func observe(epoch: UInt64, of node: NodeAddress) {
        guard epoch > self.epoch.load(ordering: .relaxed) else { return }
        sightingsContinuation.yield(Sighting(epoch: epoch, node: node))
    }

    /// Ends ``updates``.
    func finish() {
        updatesContinuation.finish()
        sightingsContinuation.finish()
    }

    /// Fetches what was sighted, until cancelled or finished. For one task.
    func run(fetch: (NodeAddress) async throws -> Topology) async {
        for await sighting in sightings where sighting.epoch > epoch.load(ordering: .relaxed) {
            do {
                try adopt(try await fetch(sighting.node), from: sighting.node)
            } catch {
                if Task.isCancelled { return }
                logger.warning(
                    "cannot fetch a newer topology; trying again",
                    metadata: ["node": "\(sighting.node)", "epoch": "\(sighting.epoch)", "error": "\(error)"])
                // The next answer of the node brings the epoch again; only the pace is held here.
                do { try await Task.sleep(for: TopologyTracker.retryInterval) } catch { return }
            }
        }
    }

    private func adopt(_ topology: Topology, from node: NodeAddress) throws {
        let isNewer = try state.withLock { current in
            guard try topology.supersedes(current) else { return false }
            current = topology
            return true
        }
        guard isNewer else { return }
        epoch.store(topology.epoch, ordering: .relaxed)
        logger.info("took a newer topology", metadata: ["node": "\(node)", "epoch": "\(topology.epoch)"])
        updatesContinuation.yield(topology)
    }
}
