import Core
import Testing

@testable import BenchReport

@Suite struct RunComparisonTests {
    /// A run of reads alone: `rates` per second, all of them as long as `latency`.
    private func run(
        _ file: String, rates: [UInt64], latency: UInt64, settings: [String: String] = ["workload": "c"],
        clientSeconds: Double = 0
    ) -> RunComparison.Source {
        let count = rates.reduce(0, +)
        let buckets: [(upper: UInt64, count: UInt64)] = [(latency, count)]
        let known: (p50: Double, p99: Double, max: Double) = (Double(latency), Double(latency), Double(latency))
        let report = RunReport(
            started: Samples.started, settings: settings, machine: Samples.machine,
            durationSeconds: Double(rates.count), clientSeconds: clientSeconds,
            operations: ["read": .init(count: count, latency: LatencySummary(buckets: buckets))],
            timeline: rates.enumerated().map { second, rate in
                let read = RunReport.IntervalOperation(count: rate, errors: 0, latency: known)
                return .init(endSeconds: Double(second + 1), spanSeconds: 1, operations: ["read": read])
            })
        return .init(file: file, report: report)
    }

    @Test func oneRunASideSpreadsAsItsSeconds() throws {
        // Candidate by baseline, of all pairs: 2 × 80, 2 × 90, 4 × 100 … by 100; 10 % are cut off at each end.
        let comparison = try RunComparison(
            baseline: [run("a", rates: [UInt64](repeating: 100, count: 10), latency: 500, clientSeconds: 0.004)],
            candidate: [
                run("b", rates: [10, 110, 120, 130, 140, 150, 160, 170, 180, 990], latency: 400, clientSeconds: 0.004)
            ])
        #expect(comparison.spread == .seconds)
        let throughput = try #require(comparison.operations["read"]?[.throughput])
        #expect(
            throughput == .init(baseline: 100, candidate: 216, ratio: 2.16, low: 1.1, high: 1.8, change: .better))
        #expect(comparison.total[.throughput] == throughput)
        let p99 = try #require(comparison.operations["read"]?[.p99])
        #expect(p99 == .init(baseline: 500, candidate: 400, ratio: 0.8, low: 0.8, high: 0.8, change: .better))
        // The timeline says nothing of these.
        let p999 = try #require(comparison.operations["read"]?[.p999])
        #expect(p999 == .init(baseline: 500, candidate: 400, ratio: 0.8))
        #expect(comparison.total[.clientCPU] == .init(baseline: 4, candidate: 1.852, ratio: 0.463))
    }

    @Test func severalRunsSpreadAsTheirPairs() throws {
        let comparison = try RunComparison(
            baseline: [("a1", 100), ("a2", 120), ("a3", 80)].map { run($0.0, rates: [$0.1], latency: 200) },
            candidate: [("b1", 90), ("b2", 60)].map { run($0.0, rates: [$0.1], latency: 1_000) })
        #expect(comparison.spread == .runs)
        #expect(
            comparison.operations["read"]?[.throughput]
                == .init(baseline: 100, candidate: 75, ratio: 0.75, low: 0.5, high: 1.125, change: .unclear))
        #expect(
            comparison.operations["read"]?[.p999]
                == .init(baseline: 200, candidate: 1_000, ratio: 5, low: 5, high: 5, change: .worse))
    }

    @Test func slowerIsWorse() throws {
        let comparison = try RunComparison(
            baseline: [run("a", rates: [100, 100], latency: 500)], candidate: [run("b", rates: [90, 80], latency: 500)])
        #expect(comparison.total[.throughput]?.change == .worse)
        #expect(comparison.operations["read"]?[.p50]?.change == .unclear)
    }

    @Test func otherWorkIsRefusedUnlessAllowed() throws {
        let a = run("a", rates: [100], latency: 1, settings: ["workload": "c", "via": "direct", "router": "one:1"])
        let b = run("b", rates: [100], latency: 1, settings: ["workload": "a", "router": "two:2", "seed": "9"])
        let error = #expect(throws: KVError.self) { try RunComparison(baseline: [a], candidate: [b]) }
        #expect(error?.code == .invalidArgument)
        #expect(
            error?.message
                == "the runs differ in via (direct, -), workload (c, a): measure with the same settings, or use "
                + "--allow-different")
        let comparison = try RunComparison(baseline: [a], candidate: [b], allowDifferent: true)
        #expect(comparison.differences == ["via": ["direct", "-"], "workload": ["c", "a"]])
        #expect(throws: KVError.self) { try RunComparison(baseline: [], candidate: [a]) }
        // Runs of one side too.
        #expect(throws: KVError.self) { try RunComparison(baseline: [a, b], candidate: [a]) }
    }

    @Test func theTableIsGolden() throws {
        var b = run("b.json", rates: [150, 150], latency: 250, settings: ["workload": "a"], clientSeconds: 0.003)
        b.report.operations["update"] = .init(count: 2, latency: nil)
        b.report.machine.cores = 4
        let comparison = try RunComparison(
            baseline: [run("a.json", rates: [100, 100], latency: 500, clientSeconds: 0.001)], candidate: [b],
            allowDifferent: true)
        #expect(
            ComparisonTable.render(comparison) == """
                baseline   a.json
                candidate  b.json

                OPERATION  FIGURE      BASELINE  CANDIDATE  RATIO   LOW  HIGH  CHANGE
                read       answers/s      100.0      150.0   1.50  1.50  1.50  better
                           p50 µs         500.0      250.0   0.50  0.50  0.50  better
                           p99 µs         500.0      250.0   0.50  0.50  0.50  better
                           p99.9 µs       500.0      250.0   0.50     -     -  -
                           max µs         500.0      250.0   0.50  0.50  0.50  better
                update     answers/s          -        1.0      -     -     -  -
                           p50 µs             -          -      -     -     -  -
                           p99 µs             -          -      -     -     -  -
                           p99.9 µs           -          -      -     -     -  -
                           max µs             -          -      -     -     -  -
                all        answers/s      100.0      150.0   1.50  1.50  1.50  better
                           own CPU µs       5.0       10.0   2.00     -     -  -

                RATIO is candidate / baseline. There is one run of each: 80% of all pairs of their seconds lie between \
                LOW and HIGH; give several runs to see how runs differ.
                The runs differ in workload: c, a.
                They were measured on different machines.

                """)
        #expect(
            ComparisonTable.rows(comparison)[0] == [
                "read", "answers/s", "100.0", "150.0", "1.5", "1.5", "1.5", "better",
            ])
    }

    @Test func theDocumentIsGolden() throws {
        let comparison = try RunComparison(
            baseline: [run("a.json", rates: [300], latency: 3)], candidate: [run("b.json", rates: [100], latency: 3)])
        let run =
            #"[{"file":"a.json","machine":{"cores":2,"cpu":"Test <CPU> & Co","kernel":"Linux 6.1"},"#
            + #""started":"2026-11-30T00:53:20Z"}]"#
        let same = #"{"baseline":3,"candidate":3,"change":"unclear","high":1,"low":1,"ratio":1}"#
        let slower = #"{"baseline":300,"candidate":100,"change":"worse","high":0.3333,"low":0.3333,"ratio":0.3333}"#
        let json =
            #"{"baseline":\#(run),"candidate":\#(run.replacing("a.json", with: "b.json")),"differences":{},"#
            + #""format":1,"operations":{"read":{"max_us":\#(same),"p50_us":\#(same),"#
            + #""p999_us":{"baseline":3,"candidate":3,"ratio":1},"p99_us":\#(same),"throughput":\#(slower)}},"#
            + #""program":"kv bench compare","spread":"seconds","#
            + #""total":{"client_cpu_us":{"baseline":0,"candidate":0},"throughput":\#(slower)}}"#
        #expect(String(decoding: try comparison.json(), as: UTF8.self) == json + "\n")
    }

    @Test func longTimelinesAreThinnedEvenly() throws {
        let many = (1...10_000).map(Double.init)
        let bounds = try #require(Quantiles.ratios(of: many, to: [1], share: 0.8))
        #expect((995...1_025).contains(bounds.low) && (8_975...9_005).contains(bounds.high), "\(bounds)")
        #expect(Quantiles.ratios(of: many, to: [0], share: 1) == nil)
        #expect(Quantiles.median([4, 1, 2, 3]) == 2.5)
    }
}
