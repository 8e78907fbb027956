import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Wire

/// Looks at `/readyz` of every node, again and again, and tells ``ClusterView`` what it saw.
///
/// Confined to its event loop, whose clock it goes by.
final class HealthPoller {
    /// Over all nodes: with more than these in an interval, each is looked at less often, so that the looks do not take a
    /// router's processor from its requests.
    static let looksPerSecondMax = 100

    private let eventLoop: any EventLoop
    private let cluster: ClusterView
    private let transport: any NodeTransport
    private let interval: TimeAmount
    private let timeout: TimeAmount
    private var random: any RandomNumberGenerator
    /// The next look at each node, or the one under way.
    private var watched: [NodeAddress: Watch] = [:]
    private var generation: UInt64 = 0
    private var isStopped = false

    private struct Watch {
        /// Tells the watch of a node that left and came back from the one before.
        let id: UInt64
        /// nil while a request is under way.
        var next: Scheduled<Void>?
        /// Failed at its last look, and not at the one before.
        var isSuspect = false
    }

    /// - Parameters:
    ///   - transport: used for nothing that could keep a look waiting, or a busy node would look dead.
    ///   - interval: between two looks at a node, a fifth more or less at random.
    init(
        eventLoop: any EventLoop, cluster: ClusterView, transport: any NodeTransport, interval: TimeAmount,
        timeout: TimeAmount, random: any RandomNumberGenerator
    ) {
        self.eventLoop = eventLoop
        self.cluster = cluster
        self.transport = transport
        self.interval = interval
        self.timeout = timeout
        self.random = random
    }

    /// Watches exactly the nodes of `table`, the new ones at once; an older table than the last is ignored.
    func watch(_ table: RoutingTable) {
        guard !isStopped, table.generation > generation else { return }
        generation = table.generation
        let gone = Set(watched.keys).subtracting(table.nodes)
        for address in gone { watched.removeValue(forKey: address)?.next?.cancel() }
        for address in table.nodes where watched[address] == nil {
            watched[address] = Watch(id: generation)
            look(at: address)
        }
    }

    func stop() {
        isStopped = true
        for watch in watched.values { watch.next?.cancel() }
        watched.removeAll()
    }

    private func look(at address: NodeAddress) {
        guard let id = watched[address]?.id else { return }
        watched[address]?.next = nil
        transport.execute(
            NodeRequest(method: .GET, target: APIPath.readyz), to: address, on: eventLoop,
            deadline: eventLoop.now + timeout
        ).assumeIsolated().whenComplete { result in
            // Stopped, or gone from the topology, while the request was under way.
            guard self.watched[address]?.id == id else { return }
            let failed = !self.report(result, of: address)
            let delay = self.delay(afterFirstFailure: failed && self.watched[address]?.isSuspect == false)
            self.watched[address]?.isSuspect = failed
            self.watched[address]?.next = self.eventLoop.assumeIsolated().scheduleTask(in: delay) {
                self.look(at: address)
            }
        }
    }

    /// - Returns: whether the node is alive.
    private func report(_ result: Result<NodeResponse, any Error>, of address: NodeAddress) -> Bool {
        switch result {
        case .success(let response) where response.status == 200 || response.status == 503:
            cluster.answered(
                address, ready: response.status == 200, epoch: response.epoch, at: eventLoop.now)
            if let epoch = response.epoch { cluster.saw(epoch: epoch, of: address, on: eventLoop) }
            return true
        case .success(let response):
            cluster.failed(
                address, reason: "GET \(APIPath.readyz) was answered \(response.status): is a storage node there?")
            return false
        case .failure(let error):
            cluster.failed(address, reason: error.reason)
            return false
        }
    }

    /// A node that failed for the first time is looked at again sooner: it takes two failures to be sure.
    private func delay(afterFirstFailure: Bool) -> TimeAmount {
        let shared = 1_000_000_000 * Int64(watched.count) / Int64(HealthPoller.looksPerSecondMax)
        let usual = max(interval.nanoseconds, shared)
        let base = afterFirstFailure ? interval.nanoseconds / 4 : usual
        return .nanoseconds(base * Int64.random(in: 80...120, using: &random) / 100)
    }
}
