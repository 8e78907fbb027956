import Synchronization
import Testing

@testable import Observability

@Suite struct MetricsTests {
    @Test func expositionIsStable() {
        let registry = MetricsRegistry()
        registry.counter("kv_requests_total", help: "Requests.", labels: ["method": "GET", "code": "200"]).increment(
            by: 3)
        registry.counter("kv_requests_total", help: "Requests.", labels: ["method": "PUT", "code": "204"]).increment()
        registry.gauge("kv_connections", help: "Open \\ now\nin all.").set(-2)
        registry.gauge("kv_ratio", help: "Ratio.") { 0.25 }
        registry.counter("kv_cpu_seconds_total", help: "CPU.") { 12 }
        let histogram = registry.histogram(
            "kv_size", help: "Sizes.", labels: ["shard": "a\"\\\n"], buckets: HistogramBuckets(bounds: [1, 10, 100]))
        for value: UInt64 in [0, 1, 2, 10, 11, 100, 101] { histogram.observe(value) }
        #expect(
            registry.exposition() == #"""
                # HELP kv_requests_total Requests.
                # TYPE kv_requests_total counter
                kv_requests_total{code="200",method="GET"} 3
                kv_requests_total{code="204",method="PUT"} 1
                # HELP kv_connections Open \\ now\nin all.
                # TYPE kv_connections gauge
                kv_connections -2
                # HELP kv_ratio Ratio.
                # TYPE kv_ratio gauge
                kv_ratio 0.25
                # HELP kv_cpu_seconds_total CPU.
                # TYPE kv_cpu_seconds_total counter
                kv_cpu_seconds_total 12
                # HELP kv_size Sizes.
                # TYPE kv_size histogram
                kv_size_bucket{shard="a\"\\\n",le="1"} 2
                kv_size_bucket{shard="a\"\\\n",le="10"} 4
                kv_size_bucket{shard="a\"\\\n",le="100"} 6
                kv_size_bucket{shard="a\"\\\n",le="+Inf"} 7
                kv_size_sum{shard="a\"\\\n"} 225
                kv_size_count{shard="a\"\\\n"} 7

                """#)
    }

    @Test func latencyIsExposedInSeconds() {
        let registry = MetricsRegistry()
        let histogram = registry.histogram("kv_latency_seconds", help: "Latency.")
        histogram.observe(Duration.microseconds(25))
        histogram.observe(Duration.milliseconds(1_500))
        histogram.observe(Duration.seconds(-1))
        histogram.observe(Duration.seconds(3_600))
        let lines = registry.exposition().split(separator: "\n")
        #expect(lines.contains("kv_latency_seconds_bucket{le=\"2.5e-05\"} 2"))
        #expect(lines.contains("kv_latency_seconds_bucket{le=\"0.0001\"} 2"))
        #expect(lines.contains("kv_latency_seconds_bucket{le=\"1\"} 2"))
        #expect(lines.contains("kv_latency_seconds_bucket{le=\"2.5\"} 3"))
        #expect(lines.contains("kv_latency_seconds_bucket{le=\"10\"} 3"))
        #expect(lines.contains("kv_latency_seconds_bucket{le=\"+Inf\"} 4"))
        #expect(lines.contains("kv_latency_seconds_sum 3601.500025"))
        #expect(lines.contains("kv_latency_seconds_count 4"))
    }

    /// Every line by the grammar of the format, every family once, buckets cumulative and complete.
    @Test func expositionKeepsTheRulesOfTheFormat() throws {
        let registry = MetricsRegistry()
        registry.registerProcessMetrics(role: "router", version: "0.1.0")
        for shard in ["a", "b"] {
            let histogram = registry.histogram("h_seconds", help: "H.", labels: ["shard": shard])
            for value: UInt64 in [1, 30_000, 2_000_000, .max / 4] { histogram.observe(value) }
            registry.counter("c_total", help: "C.", labels: ["shard": shard]).increment()
        }
        let text = registry.exposition()
        #expect(text.hasSuffix("\n"))
        let sample =
            /([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-zA-Z_][a-zA-Z0-9_]*="[^"]*"(?:,[a-zA-Z_][a-zA-Z0-9_]*="[^"]*")*\})? (NaN|[+-]Inf|-?[0-9.]+(?:e[+-]?[0-9]+)?)/
        var typed: [String] = []
        var lastBucket: (series: String, value: Double) = ("", 0)
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
            if line.hasPrefix("# HELP ") { continue }
            if line.hasPrefix("# TYPE ") {
                let fields = line.split(separator: " ")
                #expect(fields.count == 4 && ["counter", "gauge", "histogram"].contains(fields[3]))
                #expect(!typed.contains(String(fields[2])), "\(fields[2]) twice")
                typed.append(String(fields[2]))
                continue
            }
            let match = try #require(line.wholeMatch(of: sample), "not a sample: \(line)")
            let family = try #require(typed.last)
            #expect(["", "_bucket", "_sum", "_count"].map { family + $0 }.contains(String(match.1)), "\(line)")
            guard match.1 == family + "_bucket" else { continue }
            let series = String(match.2 ?? "").replacing(/,?le="[^"]*"/, with: "")
            let value = try #require(Double(match.3))
            if series == lastBucket.series { #expect(value >= lastBucket.value, "\(line)") }
            lastBucket = (series, value)
        }
        #expect(typed.contains("process_resident_memory_bytes"))
        #expect(text.contains("h_seconds_bucket{shard=\"a\",le=\"+Inf\"} 4\n"))
        #expect(text.contains("h_seconds_count{shard=\"b\"} 4\n"))
    }

    @Test func seriesThatComeAndGo() {
        let registry = MetricsRegistry()
        let roles = Mutex(["a": "leader", "b": "follower"])
        registry.gauges("distribkv_lsn", help: "Where it is.") {
            roles.withLock { $0 }.sorted { $0.key < $1.key }.map { .init(labels: ["shard": $0, "role": $1], value: 7) }
        }
        #expect(
            registry.exposition() == """
                # HELP distribkv_lsn Where it is.
                # TYPE distribkv_lsn gauge
                distribkv_lsn{role="leader",shard="a"} 7
                distribkv_lsn{role="follower",shard="b"} 7

                """)
        roles.withLock { $0 = ["a": "follower"] }
        #expect(registry.exposition().hasSuffix("gauge\ndistribkv_lsn{role=\"follower\",shard=\"a\"} 7\n"))
    }

    @Test func registeringAgainGivesTheSameMetric() {
        let registry = MetricsRegistry()
        let first = registry.counter("c_total", help: "C.", labels: ["a": "1", "b": "2"])
        #expect(first === registry.counter("c_total", help: "C.", labels: ["b": "2", "a": "1"]))
        #expect(first !== registry.counter("c_total", help: "C.", labels: ["a": "1"]))
        #expect(registry.gauge("g", help: "G.") === registry.gauge("g", help: "G."))
        #expect(registry.histogram("h", help: "H.") === registry.histogram("h", help: "H."))
    }

    @Test func nothingIsLostBetweenThreads() async {
        let registry = MetricsRegistry()
        let counter = registry.counter("c_total", help: "C.")
        let gauge = registry.gauge("g", help: "G.")
        let histogram = registry.histogram("h", help: "H.", buckets: .counts)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    for value: UInt64 in 0..<5_000 {
                        counter.increment()
                        gauge.add(value % 2 == 0 ? 1 : -1)
                        histogram.observe(value)
                    }
                }
            }
        }
        #expect(counter.value == 40_000)
        #expect(gauge.value == 0)
        #expect(histogram.snapshot.counts.reduce(0, +) == 40_000)
        #expect(histogram.snapshot.sum == 8 * 4_999 * 5_000 / 2)
        // 4,096 is the last bound: 4,097 to 4,999 are above it.
        #expect(histogram.snapshot.counts.last == 8 * 903)
    }

    @Test func numbersAreShortAndExact() {
        for (value, text) in [
            (0, "0"), (1, "1"), (-1, "-1"), (0.5, "0.5"), (1e15, "1000000000000000"), (.infinity, "+Inf"),
            (-.infinity, "-Inf"), (2.5e-5, "2.5e-05"),
        ] as [(Double, String)] { #expect(ExpositionText.number(value) == text) }
        #expect(ExpositionText.number(.nan) == "NaN")
    }

    @Test func names() {
        for name in ["a", "_a", "a:b", "A9_"] { #expect(ExpositionText.isMetricName(name), "\(name)") }
        for name in ["", "9a", "a-b", "a b", "ä", "a.b", "@"] { #expect(!ExpositionText.isMetricName(name), "\(name)") }
        #expect(!ExpositionText.isLabelName("a:b"))
    }

    @Test func processUsageIsPlausible() throws {
        let resident = try #require(ProcessUsage.residentBytes)
        #expect(resident > 1 << 20)
        #expect(ProcessUsage.cpuSeconds > 0)
    }
}
