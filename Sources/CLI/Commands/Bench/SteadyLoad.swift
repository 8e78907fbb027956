import BenchReport
import Core
import DistribKVClient
import NIOCore
import Synchronization

/// Writes and reads at a fixed rate, whatever becomes of those before, and a ledger of what was acknowledged.
///
/// Every write has a key of its own; the shards take turns. Latencies count from the moment at which a request was due.
final class SteadyLoad: Sendable {
    struct Plan: Sendable {
        /// Writes per second, and as many reads.
        var rate: Double
        var duration: Duration
        /// Of this run: its keys are nobody else's.
        var prefix: String
        /// Names of shards, and what in `{}` leads a key there.
        var shards: [(name: String, tag: String)]
        var valueBytes: Int
        var write: WriteOptions
        var read: ReadOptions

        /// Of writes, and of reads.
        var count: Int { max(1, Int(rate * duration.seconds)) }

        func due(_ number: Int) -> Duration { .seconds(Double(number) / rate) }
        func shard(of number: Int) -> Int { number % shards.count }

        func key(_ number: Int) -> String { "{\(shards[shard(of: number)].tag)}\(prefix)/\(number)" }

        /// A write to the same shard about half way back: it has had time to be acknowledged.
        func readNumber(_ number: Int) -> Int { number / shards.count / 2 * shards.count + shard(of: number) }

        func value(_ number: Int) -> ByteBuffer {
            let text = key(number)
            return ByteBuffer(string: text + String(repeating: ".", count: max(0, valueBytes - text.utf8.count)))
        }
    }

    /// Requests of one kind under way at once; one more is not sent and counts as an error.
    static let inFlightMax = 16_384
    /// Writes of a run, and reads: each is remembered.
    static let countMax = 2_000_000
    /// How long the values live: they are of no use after the run.
    static let timeToLive = TimeAmount.hours(2)
    private static let readBackWidth = 64
    /// Reads in the end that may fail before the rest is given up: each takes its time.
    private static let unreadableMax = 128

    private enum Kind: Int { case write, read }

    private struct Tally {
        var gap = GapFinder()
        var latencies: [UInt64] = []
        var errors: [String: UInt64] = [:]
    }

    private struct State {
        var ledger: WriteLedger
        /// By shard and kind.
        var tallies: [[Tally]]
        var inFlight = [0, 0]
    }

    private let plan: Plan
    private let client: KVClient
    private let state: Mutex<State>

    init(_ plan: Plan, _ client: KVClient) {
        self.plan = plan
        self.client = client
        let tallies = plan.shards.map { _ in [Tally(), Tally()] }
        state = Mutex(State(ledger: WriteLedger(count: plan.count), tallies: tallies))
    }

    /// Offers the load; returns when the last request has ended.
    func run(from start: ContinuousClock.Instant) async {
        await withDiscardingTaskGroup { group in
            for number in 0..<plan.count {
                let due = start + plan.due(number)
                if due > .now, (try? await Task.sleep(until: due, tolerance: .zero)) == nil { return }
                if enter(.write, number) { group.addTask { await self.write(number, due: due, from: start) } }
                if enter(.read, number) { group.addTask { await self.read(number, due: due, from: start) } }
            }
        }
    }

    /// By shard, then `write` and `read`.
    func operations() -> [String: [String: FailoverRunReport.Operation]] {
        let end = UInt64(max(0, plan.duration.seconds) * 1e9)
        let tallies = state.withLock { $0.tallies }
        var operations: [String: [String: FailoverRunReport.Operation]] = [:]
        for (shard, kinds) in zip(plan.shards, tallies) {
            for (name, tally) in zip(["write", "read"], kinds) {
                let count = UInt64(tally.latencies.count) + tally.errors.values.reduce(0, +)
                let latency = LatencySummary(nanoseconds: tally.latencies)
                let requests = RunReport.Operation(count: count, errorsByType: tally.errors, latency: latency)
                operations[shard.name, default: [:]][name] = .init(
                    requests: requests, gap: tally.gap.longest(until: end))
            }
        }
        return operations
    }

    /// Reads every acknowledged write from its leader.
    /// - Parameter keptUpTo: what a failover said of the version up to which everything is kept.
    func readBack(keptUpTo: UInt64?) async -> FailoverRunReport.LostWrites {
        let expected = state.withLock { $0.ledger.expected }
        var failures = 0
        await withTaskGroup(of: (Int, WriteLedger.Finding).self) { group in
            var next = expected.makeIterator()
            func add() {
                guard failures < Self.unreadableMax, let number = next.next() else { return }
                group.addTask { (number, await self.finding(number)) }
            }
            for _ in 0..<Self.readBackWidth { add() }
            for await (number, finding) in group {
                if finding == .unreadable { failures += 1 }
                state.withLock { $0.ledger.found(finding, at: number) }
                add()
            }
        }
        return state.withLock { $0.ledger.summary(keptUpTo: keptUpTo, key: plan.key) }
    }

    // MARK: Requests

    private func write(_ number: Int, due: ContinuousClock.Instant, from start: ContinuousClock.Instant) async {
        var options = plan.write
        options.ttl = Self.timeToLive
        do throws(KVError) {
            let version = try await client.put(plan.key(number).utf8, plan.value(number), options: options)
            succeeded(.write, number, due, start) { $0.ledger.acknowledged(number, version: version.rawValue) }
        } catch {
            failed(.write, number, error)
        }
    }

    private func read(_ number: Int, due: ContinuousClock.Instant, from start: ContinuousClock.Instant) async {
        do throws(KVError) {
            // Whether it is there is looked at in the end.
            _ = try await client.get(plan.key(plan.readNumber(number)).utf8, options: plan.read)
            succeeded(.read, number, due, start) { _ in }
        } catch {
            failed(.read, number, error)
        }
    }

    private func finding(_ number: Int) async -> WriteLedger.Finding {
        do throws(KVError) {
            let entry = try await client.get(plan.key(number).utf8, options: ReadOptions(consistency: .leader))
            guard let entry else { return .missing }
            return entry.value == plan.value(number) ? .kept : .wrong
        } catch {
            return .unreadable
        }
    }

    private func enter(_ kind: Kind, _ number: Int) -> Bool {
        state.withLock { state in
            guard state.inFlight[kind.rawValue] < Self.inFlightMax else {
                state.tallies[plan.shard(of: number)][kind.rawValue].errors["unsent", default: 0] += 1
                return false
            }
            state.inFlight[kind.rawValue] += 1
            return true
        }
    }

    private func succeeded(
        _ kind: Kind, _ number: Int, _ due: ContinuousClock.Instant, _ start: ContinuousClock.Instant,
        _ change: (inout State) -> Void
    ) {
        let now = ContinuousClock.now
        state.withLock { state in
            state.inFlight[kind.rawValue] -= 1
            let shard = plan.shard(of: number)
            state.tallies[shard][kind.rawValue].latencies.append((now - due).nanoseconds)
            state.tallies[shard][kind.rawValue].gap.succeeded(at: (now - start).nanoseconds)
            change(&state)
        }
    }

    private func failed(_ kind: Kind, _ number: Int, _ error: KVError) {
        state.withLock { state in
            state.inFlight[kind.rawValue] -= 1
            let type = error.code.description
            state.tallies[plan.shard(of: number)][kind.rawValue].errors[type, default: 0] += 1
        }
    }
}

extension Duration {
    /// 0 for what is negative.
    var nanoseconds: UInt64 { UInt64(max(0, seconds * 1e9)) }
}
