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

    /// For a follower to get what was written before.
    private static let levelPatience = Duration.seconds(2)

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
        for shard in topology.shards {
            let lsn = try await position(of: shard, at: shard.leader)
            before[shard.name] = lsn
            for follower in shard.followers { try await waitUntilLevel(follower, shard, with: lsn) }
        }
        let result = try await paused {
            let refresh: @Sendable () async -> Topology? = { [client] in try? await client.refreshTopology() }
            return try await LoadRun(load, .load, topology: topology, refresh: refresh).run()
        }
        let found = try await followers(of: result, before)
        return Outcome(load: result, followers: found)
    }

    /// One that is behind already has batches to catch up with that nobody knows the keys of. One that does not answer is
    /// left as it is: it may be stopped for what follows.
    private func waitUntilLevel(_ follower: NodeAddress, _ shard: ShardTopology, with lsn: UInt64) async throws {
        let deadline = ContinuousClock.now + Self.levelPatience
        while let found = try? await position(of: shard, at: follower), found < lsn {
            guard .now < deadline else {
                let batches = "\(Format.count(lsn - found)) \(lsn - found == 1 ? "batch" : "batches")"
                throw CommandFailure(
                    status: .unavailable,
                    message:
                        "\(follower) is \(batches) of \(shard.name) behind already: wait "
                        + "until kv status shows no lag, then measure")
            }
            try await Task.sleep(for: Self.lookInterval)
        }
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
        of result: LoadResult, _ before: [String: UInt64]
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
                        // Of one that does not answer it is known that it lacks what was written.
                        let first = (try? await position(of: shard, at: follower)) ?? before[shard.name] ?? 0
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
