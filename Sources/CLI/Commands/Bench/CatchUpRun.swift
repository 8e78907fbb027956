import BenchReport
import Core
import DistribKVClient
import Glibc
import LoadGenerator
import NIOCore
import NIOHTTP1
import Sharding
import TerminalText
import Wire

/// Writes keys as fast as it goes, and then watches the followers get what they lack.
struct CatchUpRun {
    /// Between looks at where a follower stands.
    private static let lookInterval = Duration.milliseconds(10)
    /// For a node to say where it stands; longer than a follower that is started takes.
    private static let positionTimeout = TimeAmount.seconds(2)

    let client: KVClient
    let topology: Topology
    let load: LoadSettings
    /// A process of this machine that stands still while the keys are written; nil where somebody else sees to it.
    let pausedProcess: pid_t?
    /// After the writes.
    let patience: Duration

    struct Outcome {
        var load: LoadResult
        var followers: [String: ReplicationRunReport.Follower]
    }

    func run() async throws -> Outcome {
        var before: [String: UInt64] = [:]
        var known: [NodeAddress: [String: UInt64]] = [:]
        for shard in topology.shards {
            before[shard.name] = try await position(of: shard, at: shard.leader)
            for follower in shard.followers {
                known[follower, default: [:]][shard.name] = try? await position(of: shard, at: follower)
            }
        }
        let result = try await paused {
            let refresh: @Sendable () async -> Topology? = { [client] in try? await client.refreshTopology() }
            return try await LoadRun(load, .load, topology: topology, refresh: refresh).run()
        }
        let found = try await followers(of: result, before, known)
        return Outcome(load: result, followers: found)
    }

    /// Has the process stand still for as long as `body` takes, whatever comes of it.
    private func paused<Result>(_ body: () async throws -> Result) async throws -> Result {
        guard let pausedProcess else { return try await body() }
        guard kill(pausedProcess, SIGSTOP) == 0 else {
            let reason = String(cString: strerror(errno))
            throw CommandFailure(status: .usage, message: "--pause: cannot stop process \(pausedProcess): \(reason)")
        }
        defer { kill(pausedProcess, SIGCONT) }
        return try await body()
    }

    private func followers(
        of result: LoadResult, _ before: [String: UInt64], _ known: [NodeAddress: [String: UInt64]]
    ) async throws -> [String: ReplicationRunReport.Follower] {
        // Writers of all shards group alike: a shard's share of the keys is its share of the batches.
        var targets: [String: UInt64] = [:]
        for shard in topology.shards { targets[shard.name] = try await position(of: shard, at: shard.leader) }
        let batches = targets.reduce(0) { $0 + $1.value - min($1.value, before[$1.key] ?? 0) }
        let keysPerBatch = batches > 0 ? Double(result.answered) / Double(batches) : 0
        let deadline = ContinuousClock.now + patience
        return await withTaskGroup(of: (NodeAddress, ReplicationRunReport.CatchUp).self) { group in
            for shard in topology.shards {
                for follower in shard.followers {
                    let target = targets[shard.name] ?? 0
                    group.addTask {
                        let now = try? await position(of: shard, at: follower)
                        // Of one that has not been heard it is known that it lacks what was written.
                        let first = now ?? known[follower]?[shard.name] ?? before[shard.name] ?? 0
                        var tracker = CatchUpTracker(
                            first: first, target: target, keysPerBatch: keysPerBatch, at: Self.now())
                        await watch(&tracker, shard, follower, until: deadline)
                        return (follower, tracker.result)
                    }
                }
            }
            var all: [NodeAddress: ReplicationRunReport.CatchUp] = [:]
            for await (follower, caughtUp) in group { all[follower] = all[follower].map { $0 + caughtUp } ?? caughtUp }
            return Dictionary(uniqueKeysWithValues: all.map { ($0.description, .init(catchUp: $1)) })
        }
    }

    private func watch(
        _ tracker: inout CatchUpTracker, _ shard: ShardTopology, _ follower: NodeAddress,
        until deadline: ContinuousClock.Instant
    ) async {
        while !tracker.isDone, .now < deadline {
            if let lsn = try? await position(of: shard, at: follower) { tracker.observe(lsn: lsn, at: Self.now()) }
            guard (try? await Task.sleep(for: Self.lookInterval)) != nil else { return }
        }
    }

    private func position(of shard: ShardTopology, at node: NodeAddress) async throws(KVError) -> UInt64 {
        let request = NodeRequest(method: .GET, target: APIPath.position(shard: shard.name))
        return try await client.ask(node, request, for: PositionDocument.self, timeout: Self.positionTimeout).lsn
    }

    private static func now() -> UInt64 { NIODeadline.now().uptimeNanoseconds }
}
