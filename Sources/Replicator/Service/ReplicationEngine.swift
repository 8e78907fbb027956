import Core
import Curl
import Logging
import Observability
import Sharding
import Synchronization
import Wire

/// Runs one ``ShardRunner`` for each shard of the topology, and restarts those that a new topology changes.
final class ReplicationEngine: Sendable {
    let tracker: TopologyTracker
    private let client: CurlClient
    private let transport: CurlTransport
    private let limits: ReplicationLimits
    private let logger: Logger
    private let runners = Mutex<[String: ShardRunner]>([:])
    private let running = Atomic(false)

    /// - Throws: `CurlError` where libcurl cannot be started.
    init(topology: Topology, limits: ReplicationLimits, metrics: MetricsRegistry, logger: Logger) throws {
        let tracker = TopologyTracker(topology, logger: logger)
        self.tracker = tracker
        self.limits = limits
        self.logger = logger
        self.client = try CurlClient(limits: limits.transfers)
        self.transport = CurlTransport(client: client, limits: limits, metrics: ReplicatorMetrics(metrics)) {
            epoch, node in
            tracker.observe(epoch: epoch, of: node)
        }
        let budget = transport.budget
        metrics.registerBudgets([Budget(name: "frames", bytesMax: budget.bytesMax) { budget.usedBytes }])
    }

    var topology: Topology { tracker.topology }
    var isRunning: Bool { running.load(ordering: .relaxed) }

    /// In the order of the topology.
    var shards: [ReplicatorStatus.Shard] {
        let runners = runners.withLock { $0 }
        return topology.shards.compactMap { runners[$0.name]?.status() }
    }

    /// Runs until ``stop()`` or until the task is cancelled; once.
    func run() async {
        running.store(true, ordering: .relaxed)
        await withDiscardingTaskGroup { group in
            group.addTask { await self.tracker.run { try await self.transport.topology(from: $0) } }
            group.addTask { await self.watchEpochs() }
            for await topology in tracker.updates {
                for runner in apply(topology) { group.addTask { await runner.run() } }
            }
            running.store(false, ordering: .relaxed)
            tracker.finish()
            group.cancelAll()
        }
        await client.shutdown()
    }

    func stop() { tracker.finish() }

    /// A leader that is gone cannot say that another one leads, and while it answers nothing its followers are asked
    /// for nothing: so some node is asked every now and then, whatever else goes on.
    private func watchEpochs() async {
        var turn = 0
        while !Task.isCancelled {
            do { try await Task.sleep(for: limits.epochInterval) } catch { return }
            let nodes = topology.nodes
            turn += 1
            await transport.askEpoch(of: nodes[turn % nodes.count])
        }
    }

    /// Stops the runners that no longer fit and returns the new ones. An old one may still be ending when its
    /// successor begins: for a follower that is the same as two replicators.
    private func apply(_ topology: Topology) -> [ShardRunner] {
        let limits = limits.shared(
            shards: topology.shards.count, followers: topology.shards.reduce(0) { $0 + $1.followers.count })
        let (stopped, started) = runners.withLock { runners -> ([ShardRunner], [ShardRunner]) in
            var next: [String: ShardRunner] = [:]
            var started: [ShardRunner] = []
            for shard in topology.shards {
                if let runner = runners[shard.name], runner.limits == limits,
                    runner.shard.hasSameReplicas(as: shard)
                {
                    next[shard.name] = runners.removeValue(forKey: shard.name)
                } else {
                    let runner = ShardRunner(
                        shard: shard, limits: limits, transport: transport, logger: logger,
                        seed: .random(in: 0...UInt64.max))
                    next[shard.name] = runner
                    started.append(runner)
                }
            }
            let stopped = Array(runners.values)
            runners = next
            return (stopped, started)
        }
        for runner in stopped { runner.stop() }
        return started
    }
}

extension ShardTopology {
    /// Whether the same nodes have the same roles in the same term; slots do not matter here.
    func hasSameReplicas(as other: ShardTopology) -> Bool {
        leader == other.leader && term == other.term && followers == other.followers
    }
}

extension ReplicationLimits {
    /// What libcurl may work on at once: every shard has at most one long poll, every follower three requests.
    var transfers: CurlClient.Limits {
        var transfers = CurlClient.Limits()
        transfers.inFlightMax = 1_024
        transfers.waitingMax = 4_096
        return transfers
    }
}
