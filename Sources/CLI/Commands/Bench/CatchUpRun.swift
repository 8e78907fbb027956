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
        let (result, ends) = try await paused { () -> (LoadResult, [Standing]) in
            let refresh: @Sendable () async -> Topology? = { [client] in try? await client.refreshTopology() }
            let result = try await LoadRun(load, .load, topology: topology, refresh: refresh).run()
            guard !result.wasInterrupted, !Task.isCancelled else { throw Self.interrupted }
            // Before anybody goes on: a follower may have it all at once then.
            return (result, try await standings(before, keys: result.answered))
        }
        let found = await followers(ends)
        guard !Task.isCancelled else { throw Self.interrupted }
        return Outcome(load: result, followers: found)
    }

    private static var interrupted: CommandFailure {
        CommandFailure(status: .interrupted, message: "interrupted: how followers catch up was not measured")
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

    /// Where a follower of a shard stands when the writes are over.
    private struct Standing: Sendable {
        let shard: ShardTopology
        let follower: NodeAddress
        var first: UInt64
        let target: UInt64
        var keysPerBatch = 0.0
    }

    /// Asks all at once. Of one that does not answer it is known that it lacks what was written.
    private func standings(_ before: [String: UInt64], keys: Int) async throws -> [Standing] {
        var standings: [Standing] = []
        var batches: UInt64 = 0
        for shard in topology.shards {
            let first = before[shard.name] ?? 0
            let target = try await position(of: shard, at: shard.leader)
            batches += target - min(target, first)
            standings += shard.followers.map { Standing(shard: shard, follower: $0, first: first, target: target) }
        }
        // The writers of all shards group alike.
        let keysPerBatch = batches > 0 ? Double(keys) / Double(batches) : 0
        return await withTaskGroup(of: Standing.self) { group in
            for standing in standings {
                group.addTask {
                    var standing = standing
                    standing.keysPerBatch = keysPerBatch
                    if let lsn = try? await position(of: standing.shard, at: standing.follower) { standing.first = lsn }
                    return standing
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
    }

    private func followers(_ standings: [Standing]) async -> [String: ReplicationRunReport.Follower] {
        let deadline = ContinuousClock.now + patience
        return await withTaskGroup(of: (NodeAddress, ReplicationRunReport.CatchUp).self) { group in
            for standing in standings {
                group.addTask {
                    var tracker = CatchUpTracker(
                        first: standing.first, target: standing.target, keysPerBatch: standing.keysPerBatch,
                        at: Self.now())
                    await watch(&tracker, standing.shard, standing.follower, until: deadline)
                    return (standing.follower, tracker.result)
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
