import Core
import Testing

@testable import LoadGenerator

@Suite struct RecorderTests {
    private static let second = Recorder.intervalLength

    private func shared(threads: Int = 1) throws -> Shared {
        var settings = LoadSettings(
            workload: Workload.all[0], records: 1, seeds: [.init(host: "127.0.0.1", port: 1)], seed: 1)
        settings.threads = threads
        return Shared(settings, topology: nil, isLoad: false)
    }

    @Test func secondsAndTheWhole() throws {
        let shared = try shared()
        var recorder = Recorder(start: 5 * Self.second, shared: shared)
        recorder.answered(.read, nanoseconds: 1_000_000)
        recorder.failed(.update, .status(503))
        recorder.advance(to: 6 * Self.second - 1)
        #expect(shared.timeline.intervals.isEmpty)
        // Three seconds in one look: the first has everything, the others nothing.
        recorder.advance(to: 8 * Self.second)
        recorder.answered(.read, nanoseconds: 3_000_000)
        recorder.failed(.update, .timeout)
        recorder.failed(.update, .timeout)
        let whole = recorder.finish(at: 8 * Self.second + Self.second / 2)
        let intervals = shared.timeline.finish()
        #expect(intervals.map(\.end) == [1, 2, 3, 3.5] && intervals.map(\.span) == [1, 1, 1, 0.5])
        #expect(intervals.map { $0.operations[.read]?.count ?? 0 } == [1, 0, 0, 1])
        #expect(intervals.map { $0.operations[.update]?.errors ?? 0 } == [1, 0, 0, 2])
        #expect(whole[.read]?.answered == 2 && whole[.read]?.longest == 3_000_000 && whole[.read]?.mean == 2_000_000)
        #expect(whole[.update]?.failures == [.status(503): 1, .timeout: 2])
        #expect(whole[.update]?.count == 3 && whole[.update]?.errors == 3 && whole[.update]?.mean == nil)
        #expect(whole[.insert] == nil)
    }

    /// The last moments of a run say nothing by themselves, and count in the whole.
    @Test func aShortEndIsNoInterval() throws {
        let shared = try shared()
        var recorder = Recorder(start: 0, shared: shared)
        recorder.advance(to: Self.second)
        recorder.answered(.read, nanoseconds: 1_000)
        #expect(recorder.finish(at: Self.second + 1_000)[.read]?.answered == 1)
        #expect(shared.timeline.finish().count == 1)
    }

    @Test func threadsAreAddedUp() throws {
        let shared = try shared(threads: 2)
        var recorders = (0..<2).map { _ in Recorder(start: 0, shared: shared) }
        for index in 0..<2 { recorders[index].answered(.read, nanoseconds: UInt64(index + 1) * 1_000_000) }
        recorders[0].advance(to: 2 * Self.second)
        #expect(shared.timeline.intervals.isEmpty)
        recorders[1].advance(to: Self.second)
        #expect(shared.timeline.intervals.map { $0.operations[.read]?.count } == [2])
        #expect(shared.timeline.intervals[0].operations[.read]?.max == 2_000_000)
        // One that ends before the other leaves a second behind.
        _ = recorders[1].finish(at: Self.second)
        #expect(shared.timeline.finish().map(\.end) == [1, 2])
    }

    @Test func latenciesAreExactToThreeDigits() {
        var result = OperationResult()
        let latencies: [UInt64] = [50_000, 123_456, 9_876_543, 1_234_567_890, OperationResult.latencyMax * 2]
        for latency in latencies { result.record(latency) }
        let buckets = result.buckets
        #expect(buckets.map(\.count) == [1, 1, 1, 1, 1])
        for (bucket, latency) in zip(buckets, latencies.map { min($0, OperationResult.latencyMax) }) {
            #expect(bucket.upper >= latency && Double(bucket.upper - latency) <= max(256, Double(latency) / 1_000))
        }
        #expect(result.longest == OperationResult.latencyMax)
    }
}
