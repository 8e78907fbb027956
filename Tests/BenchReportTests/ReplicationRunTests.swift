import Core
import Foundation
import Testing

@testable import BenchReport

@Suite struct CatchUpTrackerTests {
    /// Feeds (seconds, lsn).
    private func tracker(
        first: UInt64, target: UInt64, keysPerBatch: Double = 10, _ seen: [(Double, UInt64)]
    ) -> CatchUpTracker {
        var tracker = CatchUpTracker(first: first, target: target, keysPerBatch: keysPerBatch, at: 1_000_000_000)
        for (seconds, lsn) in seen { tracker.observe(lsn: lsn, at: UInt64(seconds * 1e9)) }
        return tracker
    }

    @Test func timeRunsFromTheFirstMovementToTheEnd() {
        // It stood until 5 s; was started then.
        let done = tracker(first: 100, target: 300, [(2, 100), (5, 100), (5.5, 180), (6, 299), (7, 300), (9, 300)])
        #expect(done.isDone)
        #expect(done.result == .init(keysBehind: 2_000, isDone: true, seconds: 2, keysPerSecond: 1_000))
    }

    @Test func oneThatMovesAtOnceIsTimedFromTheEndOfTheWrites() {
        let done = tracker(first: 100, target: 300, keysPerBatch: 2.5, [(1.5, 200), (2, 310)])
        #expect(done.result == .init(keysBehind: 500, isDone: true, seconds: 1, keysPerSecond: 500))
    }

    @Test func aStopOnTheWayCounts() {
        let done = tracker(first: 100, target: 300, [(2, 101), (10, 101), (12, 300)])
        #expect(done.result.seconds == 11)
    }

    @Test func oneThatLacksNothingHasNoRate() {
        #expect(
            tracker(first: 300, target: 300, []).result
                == .init(keysBehind: 0, isDone: true, seconds: nil, keysPerSecond: nil))
        // It was fed between the two questions.
        #expect(tracker(first: 301, target: 300, [(2, 302)]).result.keysBehind == 0)
    }

    @Test func oneThatDoesNotCatchUpIsNotDone() {
        let behind = tracker(first: 100, target: 300, [(2, 150), (3, 299)])
        #expect(!behind.isDone)
        #expect(behind.result == .init(keysBehind: 2_000, isDone: false, seconds: nil, keysPerSecond: nil))
    }

    @Test func shardsOfOneFollowerAddUp() {
        let sum =
            ReplicationRunReport.CatchUp(keysBehind: 600, isDone: true, seconds: 2, keysPerSecond: 300)
            + ReplicationRunReport.CatchUp(keysBehind: 1_000, isDone: true, seconds: 4, keysPerSecond: 250)
        #expect(sum == .init(keysBehind: 1_600, isDone: true, seconds: 4, keysPerSecond: 400))
        let open = sum + .init(keysBehind: 1, isDone: false, seconds: nil, keysPerSecond: nil)
        #expect(!open.isDone && open.keysPerSecond == nil)
    }
}

@Suite struct ReplicationRunReportTests {
    private static func operation(_ nanoseconds: [UInt64], errors: [String: UInt64] = [:]) -> RunReport.Operation {
        let count = UInt64(nanoseconds.count) + errors.values.reduce(0, +)
        return RunReport.Operation(
            count: count, errorsByType: errors, latency: LatencySummary(nanoseconds: nanoseconds))
    }

    private static let lag = ReplicationRunReport(
        started: Samples.started, settings: ["rate": "1000.0"], machine: Samples.machine, durationSeconds: 10,
        writesPerSecond: 999.96, writeErrors: ["503": 3, "timeout": 4], write: operation([100_000, 300_000]),
        followers: [
            "127.0.0.1:2": .init(
                lag: operation([700_000], errors: ["not-in-time": 1]),
                visible: operation([900_000], errors: ["not-in-time": 1]), read: operation([90_000])),
            "127.0.0.1:1": .init(lag: operation([1_234_567]), visible: operation([2_000_000])),
        ])

    @Test func theTableOfLagIsGolden() {
        #expect(
            ReplicationRunTable.render(Self.lag) == """
                1,000.0 writes/s acknowledged in 10.0 s; failed: timeout: 4, 503: 3

                MEASURED  FOLLOWER     COUNT  ERRORS   P50 µs   P90 µs   P99 µs  P99.9 µs   MAX µs
                write                      2       0    100.0    300.0    300.0     300.0    300.0
                lag       127.0.0.1:1      1       0  1,234.6  1,234.6  1,234.6   1,234.6  1,234.6
                visible   127.0.0.1:1      1       0  2,000.0  2,000.0  2,000.0   2,000.0  2,000.0
                lag       127.0.0.1:2      2       1    700.0    700.0    700.0     700.0    700.0
                visible   127.0.0.1:2      2       1    900.0    900.0    900.0     900.0    900.0
                read      127.0.0.1:2      1       0     90.0     90.0     90.0      90.0     90.0

                errors of lag at 127.0.0.1:2: not-in-time: 1
                errors of visible at 127.0.0.1:2: not-in-time: 1
                write: from when it was due to the leader's answer; lag: from there until the follower has it; visible: both;
                read: a read of the follower that waits for nothing, which is a part of lag.

                """)
        #expect(!Self.lag.isComplete)
    }

    private static let catchUp = ReplicationRunReport(
        started: Samples.started, settings: ["catch-up": "1000"], machine: Samples.machine, durationSeconds: 2,
        writesPerSecond: 500, writeErrors: [:], write: nil,
        followers: [
            "a:1": .init(catchUp: .init(keysBehind: 1_000, isDone: true, seconds: 0.50004, keysPerSecond: 1_999.84)),
            "b:1": .init(catchUp: .init(keysBehind: 0, isDone: true, seconds: nil, keysPerSecond: nil)),
            "c:1": .init(catchUp: .init(keysBehind: 990, isDone: false, seconds: nil, keysPerSecond: nil)),
        ])

    @Test func theTableOfCatchingUpIsGolden() {
        #expect(
            ReplicationRunTable.render(Self.catchUp) == """
                500.0 writes/s acknowledged in 2.0 s

                FOLLOWER  KEYS BEHIND  CAUGHT UP IN s  KEYS/s
                a:1             1,000             0.5   2,000
                b:1                 0               -       -
                c:1               990   not caught up       -

                """)
        #expect(!Self.catchUp.isComplete)
        var complete = Self.catchUp
        complete.followers["c:1"] = nil
        #expect(complete.isComplete)
    }

    @Test func theDocumentIsGolden() throws {
        let json = try Self.catchUp.json()
        #expect(
            String(decoding: json, as: UTF8.self)
                == #"{"duration_s":2,"followers":{"#
                + #""a:1":{"catch_up":{"is_done":true,"keys_behind":1000,"keys_per_second":1999.8,"took_s":0.5}},"#
                + #""b:1":{"catch_up":{"is_done":true,"keys_behind":0}},"#
                + #""c:1":{"catch_up":{"is_done":false,"keys_behind":990}}},"#
                + #""format":1,"machine":{"cores":2,"cpu":"Test <CPU> & Co","kernel":"Linux 6.1"},"#
                + #""program":"kv bench replication","settings":{"catch-up":"1000"},"started":"2026-11-30T00:53:20Z","#
                + #""write_errors":{},"writes_per_second":500}"# + "\n")
        for report in [Self.lag, Self.catchUp] {
            let decoded = try JSONDecoder.iso.decode(ReplicationRunReport.self, from: Data(report.json()))
            #expect(decoded == report)
        }
        let lag = String(decoding: try Self.lag.json(), as: UTF8.self)
        #expect(lag.contains(#""127.0.0.1:2":{"lag":{"count":2,"errors":1,"errors_by_type":{"not-in-time":1},"#))
    }
}
