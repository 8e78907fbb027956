import BenchReport
import Foundation

/// Reports that tests compare with.
enum Samples {
    static let started = Date(timeIntervalSince1970: 1_796_000_000)
    static let machine = RunReport.Machine(cpu: "Test <CPU> & Co", cores: 2, kernel: "Linux 6.1")

    /// Two operations, two seconds, some errors.
    static let mixed = RunReport(
        started: started, settings: ["workload": "a", "records": "1000", "via": "direct"], machine: machine,
        durationSeconds: 2, clientSeconds: 0.006,
        operations: [
            "read": .init(
                count: 1_002, errorsByType: ["503": 2],
                latency: LatencySummary(
                    buckets: [(upper: 100, count: 800), (upper: 150, count: 200)], mean: 110.5, max: 149)),
            "update": .init(
                count: 202, errorsByType: ["timeout": 1, "429": 1],
                latency: LatencySummary(
                    buckets: [(upper: 900, count: 150), (upper: 2_000, count: 50)], mean: 1_250.24)),
        ],
        timeline: [
            .init(
                endSeconds: 1, spanSeconds: 1,
                operations: [
                    "read": .init(count: 501, errors: 1, latency: (p50: 99.96, p99: 140, max: 149)),
                    "update": .init(count: 101, errors: 1, latency: (p50: 900, p99: 1_900, max: 2_000)),
                ]),
            .init(
                endSeconds: 2, spanSeconds: 1,
                operations: [
                    "read": .init(count: 501, errors: 1, latency: (p50: 101, p99: 141, max: 148)),
                    "update": .init(count: 101, errors: 1, latency: nil),
                ]),
        ],
        verification: .init(checked: 1_000, stale: 1))

    static let mixedJSON =
        #"{"client_cpu_us":4.983,"duration_s":2,"format":1,"machine":{"cores":2,"cpu":"Test <CPU> & Co","kernel":"Linux 6.1"},"#
        + #""operations":{"read":{"count":1002,"errors":2,"errors_by_type":{"503":2},"histogram":[[100,800],[150,200]],"#
        + #""max_us":149,"mean_us":110.5,"p50_us":100,"p90_us":149,"p999_us":149,"p99_us":149},"#
        + #""update":{"count":202,"errors":2,"errors_by_type":{"429":1,"timeout":1},"histogram":[[900,150],[2000,50]],"#
        + #""max_us":2000,"mean_us":1250.2,"p50_us":900,"p90_us":2000,"p999_us":2000,"p99_us":2000}},"#
        + #""program":"kv bench","requests":1204,"settings":{"records":"1000","via":"direct","workload":"a"},"#
        + #""started":"2026-11-30T00:53:20Z","throughput":600,"#
        + #""timeline":[{"operations":{"read":{"count":501,"errors":1,"max_us":149,"p50_us":100,"p99_us":140},"#
        + #""update":{"count":101,"errors":1,"max_us":2000,"p50_us":900,"p99_us":1900}},"span_s":1,"t_s":1},"#
        + #"{"operations":{"read":{"count":501,"errors":1,"max_us":148,"p50_us":101,"p99_us":141},"#
        + #""update":{"count":101,"errors":1}},"span_s":1,"t_s":2}],"#
        + #""verification":{"checked":1000,"missing":0,"stale":1,"wrong":0}}"#
}
