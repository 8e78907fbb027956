import Core
import Foundation
import Testing

@testable import BenchReport

@Suite struct LatencySummaryTests {
    @Test func percentilesAreTheBoundsOfTheirBuckets() throws {
        // 1,000 requests of 1 µs to 1,000 µs, a bucket each.
        let buckets = (1...1_000).map { (upper: UInt64($0), count: UInt64(1)) }
        let latency = try #require(LatencySummary(buckets: buckets))
        #expect([latency.p50, latency.p90, latency.p99, latency.p999, latency.max] == [500, 900, 990, 999, 1_000])
        #expect(latency.mean == 500.5)
        #expect(latency.count == 1_000)
        #expect([0, 0.1, 0.11, 99.91, 100].map(latency.value(atPercentile:)) == [1, 1, 2, 1_000, 1_000])
    }

    @Test func theLongestIsAKnownOneAndBoundsThePercentiles() throws {
        let buckets: [(upper: UInt64, count: UInt64)] = [(100, 3), (250, 0), (2_047, 1)]
        let latency = try #require(LatencySummary(buckets: buckets, mean: 80, max: 2_000))
        #expect(latency.max == 2_000)
        #expect(latency.p99 == 2_000)
        #expect(latency.p50 == 100)
        #expect(latency.mean == 80)
        #expect(latency.histogram == [.init(upper: 100, count: 3), .init(upper: 2_047, count: 1)])
    }

    @Test func nanosecondsBecomeMicroseconds() throws {
        let buckets: [(upper: UInt64, count: UInt64)] = [(1_010, 1), (1_020, 2), (5_000_000, 1)]
        let latency = try #require(
            LatencySummary(buckets: buckets, microseconds: 0.001, mean: 1_250_762, max: 4_999_999))
        #expect(latency.histogram == [.init(upper: 1, count: 3), .init(upper: 5_000, count: 1)])
        #expect(latency.mean == 1_250.8)
        #expect(latency.max == 5_000)
    }

    @Test func nothingRecordedIsNothingKnown() {
        #expect(LatencySummary(buckets: [(upper: UInt64(7), count: UInt64(0))]) == nil)
    }
}

@Suite struct RunReportTests {
    @Test func theDocumentIsGolden() throws {
        let json = String(decoding: try Samples.mixed.json(), as: UTF8.self)
        #expect(json == Samples.mixedJSON + "\n")
        #expect(try RunReport(json: Array(json.utf8), name: "a.json") == Samples.mixed)
    }

    @Test func totalsAreThoseOfTheOperations() {
        let report = Samples.mixed
        #expect(report.requests == 1_204)
        #expect(report.errors == 4)
        #expect(report.throughput == 600)
        // 6 ms of CPU for 1,204 requests.
        #expect(report.clientMicroseconds == 4.983)
        #expect(report.operationNames == ["read", "update"])
        #expect(RunReport.ordered(["zap", "delete", "read", "aim"]) == ["read", "delete", "aim", "zap"])
    }

    @Test func aRunWithoutAnAnswerHasNoLatency() throws {
        let report = RunReport(
            started: Samples.started, settings: [:], machine: Samples.machine, durationSeconds: 1, clientSeconds: 0,
            operations: ["read": .init(count: 2, errorsByType: ["timeout": 2, "503": 0], latency: nil)], timeline: [])
        let json = try report.json()
        #expect(
            String(decoding: json, as: UTF8.self).contains(
                #""operations":{"read":{"count":2,"errors":2,"errors_by_type":{"timeout":2}}}"#))
        #expect(try RunReport(json: json, name: "a.json") == report)
        #expect(report.throughput == 0)
    }

    @Test(arguments: [
        ("", "a.json is no report of kv bench: give a file that its --json wrote"),
        ("{}", "a.json is no report of kv bench: give a file that its --json wrote"),
        (
            #"{"format":1,"program":"kv bench failover"}"#,
            "a.json is no report of kv bench: give a file that its --json wrote"
        ),
        (
            #"{"format":2,"program":"kv bench"}"#,
            "a.json has format 2, and this kv reads 1: measure again with one version"
        ),
        (#"{"format":1,"program":"kv bench"}"#, "a.json is damaged: started is missing"),
        (
            Samples.mixedJSON.replacing(#""count":1002"#, with: #""count":"x""#),
            "a.json is damaged: operations.read.count is not what it should be"
        ),
    ])
    func whatIsNoReportIsToldInOneLine(json: String, message: String) {
        let error = #expect(throws: KVError.self) { try RunReport(json: Array(json.utf8), name: "a.json") }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message == message)
    }
}

@Suite struct RunTableTests {
    @Test func theTableIsGolden() {
        #expect(
            RunTable.render(Samples.mixed) == """
                600.0 answers/s: 1,204 requests in 2.0 s, 5.0 µs of kv's own CPU each

                OPERATION  REQUESTS  PER SECOND  ERRORS  MEAN µs  P50 µs   P90 µs   P99 µs  P99.9 µs   MAX µs
                read          1,002       500.0       2    110.5   100.0    149.0    149.0     149.0    149.0
                update          202       100.0       2  1,250.2   900.0  2,000.0  2,000.0   2,000.0  2,000.0

                errors of read: 503: 2
                errors of update: 429: 1, timeout: 1
                verified 1,000 values: 1 stale, 0 wrong, 0 missing

                """)
    }

    @Test func rowsAreForScripts() {
        #expect(
            RunTable.rows(Samples.mixed).map { $0.joined(separator: "\t") } == [
                "read\t1002\t500.0\t2\t110.5\t100.0\t149.0\t149.0\t149.0\t149.0",
                "update\t202\t100.0\t2\t1250.2\t900.0\t2000.0\t2000.0\t2000.0\t2000.0",
            ])
    }

    @Test func theMostFrequentErrorComesFirst() {
        #expect(RunTable.errorTypes(["b": 3, "a": 3, "503": 1_000]) == "503: 1,000, a: 3, b: 3")
    }
}
