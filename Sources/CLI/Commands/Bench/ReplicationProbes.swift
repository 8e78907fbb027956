import BenchReport
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Synchronization
import Wire

/// Writes at a fixed rate, each followed to every follower: a read there that demands the write's version is answered
/// when the follower has it.
final class ReplicationProbes: Sendable {
    struct Plan: Sendable {
        /// Per second.
        var rate: Double
        var duration: Duration
        /// Of the beginning, which is not measured.
        var warmUp: Duration
        /// What in `{}` leads a key to each shard, and the shard.
        var shards: [(shard: ShardTopology, tag: String)]
        var prefix: String
        var valueBytes: Int
        var write: WriteOptions

        var count: Int { max(1, Int(rate * (warmUp + duration).seconds)) }
        func due(_ number: Int) -> Duration { .seconds(Double(number) / rate) }
    }

    /// Under way at once; one more is not sent and counts as an error.
    static let inFlightMax = 4_096
    static let timeToLive = TimeAmount.hours(2)
    /// For a follower to get a write.
    static let lagMax = TimeAmount.seconds(60)
    /// After a follower has sent a read to the leader before its time.
    private static let pause = Duration.milliseconds(1)

    private struct Tally {
        var latencies: [UInt64] = []
        var errors: [String: UInt64] = [:]

        var operation: RunReport.Operation {
            RunReport.Operation(
                count: UInt64(latencies.count) + errors.values.reduce(0, +), errorsByType: errors,
                latency: LatencySummary(nanoseconds: latencies))
        }
    }

    private struct State {
        var inFlight = 0
        var write = Tally()
        /// By follower and what was measured.
        var followers: [NodeAddress: [String: Tally]] = [:]
    }

    private let plan: Plan
    private let client: KVClient
    private let state = Mutex(State())

    init(_ plan: Plan, _ client: KVClient) {
        self.plan = plan
        self.client = client
    }

    func run(from start: ContinuousClock.Instant) async {
        await withDiscardingTaskGroup { group in
            for number in 0..<plan.count {
                let due = start + plan.due(number)
                if due > .now, (try? await Task.sleep(until: due, tolerance: .zero)) == nil { return }
                let isMeasured = plan.due(number) >= plan.warmUp
                let mayBegin = state.withLock { state in
                    guard state.inFlight < Self.inFlightMax else {
                        if isMeasured { state.write.errors["unsent", default: 0] += 1 }
                        return false
                    }
                    state.inFlight += 1
                    return true
                }
                guard mayBegin else { continue }
                group.addTask {
                    await self.probe(number, due: due, isMeasured)
                    self.state.withLock { $0.inFlight -= 1 }
                }
            }
        }
    }

    var write: RunReport.Operation { state.withLock { $0.write.operation } }

    var followers: [String: ReplicationRunReport.Follower] {
        let found = state.withLock { $0.followers }
        return Dictionary(
            uniqueKeysWithValues: found.map { address, tallies in
                (
                    address.description,
                    ReplicationRunReport.Follower(
                        lag: tallies["lag"]?.operation, visible: tallies["visible"]?.operation,
                        read: tallies["read"]?.operation)
                )
            })
    }

    // MARK: One write

    private func probe(_ number: Int, due: ContinuousClock.Instant, _ isMeasured: Bool) async {
        let (shard, tag) = plan.shards[number % plan.shards.count]
        let key = Array("{\(tag)}\(plan.prefix)/\(number)".utf8)
        var options = plan.write
        options.ttl = Self.timeToLive
        let version: Version
        do throws(KVError) {
            let value = ByteBuffer(repeating: UInt8(ascii: "."), count: plan.valueBytes)
            version = try await client.put(key, value, options: options)
        } catch {
            if isMeasured { state.withLock { $0.write.errors[error.code.description, default: 0] += 1 } }
            return
        }
        let written = ContinuousClock.now
        if isMeasured { state.withLock { $0.write.latencies.append((written - due).nanoseconds) } }
        await withDiscardingTaskGroup { group in
            for follower in shard.followers {
                group.addTask { await self.follow(key, version, to: follower, due, written, isMeasured) }
            }
        }
    }

    private func follow(
        _ key: [UInt8], _ version: Version, to follower: NodeAddress, _ due: ContinuousClock.Instant,
        _ written: ContinuousClock.Instant, _ isMeasured: Bool
    ) async {
        let error = await wait(for: version, of: key, at: follower)
        let visible = ContinuousClock.now
        // Of the same kind, and nothing to wait for.
        let isRead = error == nil ? await read(key, nil, at: follower) == .answered : false
        let read = ContinuousClock.now
        guard isMeasured else { return }
        state.withLock { state in
            func note(_ name: String, _ time: Duration?, _ error: String?) {
                if let error {
                    state.followers[follower, default: [:]][name, default: Tally()].errors[error, default: 0] += 1
                } else if let time {
                    state.followers[follower, default: [:]][name, default: Tally()].latencies.append(time.nanoseconds)
                }
            }
            note("lag", visible - written, error)
            note("visible", visible - due, error)
            if isRead { note("read", read - visible, nil) }
        }
    }

    /// nil when the follower has it, else why it is not known to have it.
    private func wait(for version: Version, of key: [UInt8], at follower: NodeAddress) async -> String? {
        let deadline = NIODeadline.now() + Self.lagMax
        while NIODeadline.now() < deadline {
            switch await read(key, version, at: follower) {
            case .answered: return nil
            // It has waited for a while, or cannot: once more.
            case .redirected: if (try? await Task.sleep(for: Self.pause)) == nil { return "cancelled" }
            case .failed(let error): return error
            }
        }
        return "not-in-time"
    }

    private enum Answer: Equatable {
        case answered, redirected
        case failed(String)
    }

    private func read(_ key: [UInt8], _ version: Version?, at follower: NodeAddress) async -> Answer {
        let fields = version.map { [(KVHeader.minVersion, $0.hexDigits)] } ?? []
        let request = NodeRequest(method: .HEAD, target: APIPath.key(key), headers: fields)
        do {
            let response = try await client.connections.execute(
                request, to: follower, deadline: .now() + Self.lagMax)
            if response.isRedirect { return .redirected }
            return response.status == 200 ? .answered : .failed(String(response.status))
        } catch {
            return .failed((error as? NodeFailure)?.error.code.description ?? "\(error)")
        }
    }
}
