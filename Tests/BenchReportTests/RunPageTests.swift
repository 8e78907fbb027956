import Testing

@testable import BenchReport

@Suite struct RunPageTests {
    @Test func numbersAreThoseOfTheReport() throws {
        let page = try #require(PageDocument(RunPage(Samples.mixed).html()))
        #expect(page.all("h1").map(\.text) == ["kv bench: workload a"])
        #expect(
            page.all("header").isEmpty == false
                && page.all("p")[0].text
                    == "2026-11-30 00:53:20 UTC · 2.0 s measured · 1,204 requests"
        )
        let tiles = zip(page.all("b").map(\.text), page.all("span").map(\.text)).map { "\($0) \($1)" }
        #expect(
            Array(tiles) == [
                "600 answers per second", "100 µs p50 of read", "149 µs p99 of read", "149 µs p99.9 of read",
                "4 errors, 0.33%", "1 bad of 1,000 verified", "4.98 µs own CPU per request",
            ])
        #expect(
            page.rows("read") == [
                ["read", "1,002", "500.0", "2", "111 µs", "100 µs", "149 µs", "149 µs", "149 µs", "149 µs"],
                ["read", "503", "2"],
            ])
        #expect(page.rows("update").contains(["update", "timeout", "1"]))
        #expect(page.rows("1,000") == [["1,000", "1", "0", "0"]])
        #expect(page.rows("2.0 s").last == ["2.0 s", "update", "100.0", "1", "-", "-", "-"])
        #expect(page.all("dt").map(\.text) == ["records", "via", "workload", "processor", "cores", "kernel"])
        #expect(page.all("dd").map(\.text) == ["1000", "direct", "a", "Test <CPU> & Co", "2", "Linux 6.1"])
    }

    @Test func plotsAreDrawnToScale() throws {
        let page = try #require(PageDocument(RunPage(Samples.mixed).html()))
        let plots = page.all("svg").filter { $0.attributes["role"] == "img" }
        #expect(
            plots.compactMap { $0.attributes["aria-label"] } == [
                "Answers per second over time, by operation", "Latency by percentile, by operation",
                "Latency of read over time: p50, p99 and the longest",
                "Latency of update over time: p50, p99 and the longest", "Errors per second over time, by operation",
            ])
        // The axes: x from 66 to 466 for 2 s, y from 224 up to 12 for 500/s.
        #expect(RunPlots(Samples.mixed).throughput.y.highest == 500)
        let lines = page.elements.filter { $0.name == "path" && ($0.attributes["class"] ?? "").hasPrefix("line") }
        func path(_ style: String, _ index: Int) -> String? {
            let found = lines.filter { $0.attributes["class"] == style && $0.attributes["d"] != "M1 5H25" }
            return found.count > index ? found[index].attributes["d"] : nil
        }
        #expect(path("line c0", 0) == "M166 12L366 12")
        #expect(path("line c1", 0) == "M166 181.6L366 181.6")
        // Nothing was answered in the second half: a dot. 900 µs on decades from 100 µs to 10 ms.
        #expect(path("line c1", 2) == "M166 122.9h0")
        // Errors on top of each other: one of each operation per second.
        let bars = page.all("rect", class: "bar c1").map(\.attributes)
        #expect(bars.map { $0["y"] } == ["12", "12"] && bars.map { $0["height"] } == ["106", "106"])
        #expect(page.all("rect", class: "bar c0").map { $0.attributes["y"] } == ["118", "118"])
    }

    /// Chance decides which of two halves has more: the page does not.
    @Test(arguments: [(100, 120, "read"), (100, 130, "update"), (120, 100, "read")] as [(UInt64, UInt64, String)])
    func theHeadIsOfTheOperationWithClearlyMostRequests(reads: UInt64, updates: UInt64, name: String) throws {
        var report = Samples.mixed
        report.operations["read"]?.count = reads
        report.operations["update"]?.count = updates
        let page = try #require(PageDocument(RunPage(report).html()))
        #expect(page.all("span").map(\.text).contains("p50 of \(name)"))
    }

    @Test func textIsEscaped() throws {
        let evil = "</title><script>alert(\"1\")</script>&amp;'\u{1}"
        var report = Samples.mixed
        report.settings = ["workload": evil, evil: evil]
        report.machine.cpu = evil
        report.operations[evil] = .init(count: 1, errorsByType: [evil: 1], latency: nil)
        report.timeline[0].operations[evil] = .init(count: 1, errors: 1, latency: nil)
        let page = try #require(PageDocument(RunPage(report).html()))
        #expect(page.all("script").isEmpty)
        let shown = "</title><script>alert(\"1\")</script>&amp;'\u{FFFD}"
        #expect(page.all("title").first?.text == "kv bench: workload \(shown)")
        #expect(page.all("dt").first?.text == shown && page.all("dd").first?.text == shown)
        #expect(page.rows(shown) == [[shown, "1", "0.0", "1", "-", "-", "-", "-", "-", "-"], [shown, shown, "1"]])
    }

    @Test func nothingIsFetchedOrRun() {
        let html = RunPage(Samples.mixed).html()
        for text in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link", " on"] {
            #expect(!html.replacing(" on ", with: " ").contains(text), "\(text)")
        }
        #expect(html.contains("default-src 'none'"))
    }

    @Test func aRunWithoutAnAnswerHasItsPageToo() throws {
        let report = RunReport(
            started: Samples.started, settings: [:], machine: Samples.machine, durationSeconds: 0, clientSeconds: 0,
            operations: ["read": .init(count: 0, latency: nil)], timeline: [])
        let page = try #require(PageDocument(RunPage(report).html()))
        #expect(page.all("h1").map(\.text) == ["kv bench"])
        #expect(page.all("svg").filter { $0.attributes["role"] == "img" }.count == 1)
        #expect(page.rows("read") == [["read", "0", "0.0", "0", "-", "-", "-", "-", "-", "-"]])
    }
}

@Suite struct RunPlotsTests {
    @Test func longRunsAreMergedToTheWorst() throws {
        var report = Samples.mixed
        report.timeline = (1...601).map { second in
            let worst: (p50: Double, p99: Double, max: Double) = (Double(second), 50, Double(1_000 - second))
            let read = RunReport.IntervalOperation(count: 10, errors: 1, latency: second % 3 == 0 ? nil : worst)
            return RunReport.Interval(endSeconds: Double(second), spanSeconds: 1, operations: ["read": read])
        }
        let plots = RunPlots(report)
        #expect(plots.merged == 3)
        #expect(plots.intervals.count == 201)
        let second = plots.intervals[1]
        #expect(second.endSeconds == 6 && second.spanSeconds == 3)
        let read = try #require(second.operations["read"])
        #expect([read.count, read.errors] == [30, 3])
        #expect([read.p50, read.p99, read.max] == [5, 50, 996])
        #expect(plots.intervals[200].operations["read"]?.count == 10)
    }

    @Test func theCurveGoesThroughEveryPercentile() throws {
        let buckets = (1...10_000).map { (upper: UInt64($0), count: UInt64(1)) }
        let latency = try #require(LatencySummary(buckets: buckets))
        let curve = RunPlots.curve(latency)
        #expect(curve.count < 900)
        #expect(curve.first?.x == 1)
        #expect(curve.last == Plot.Point(x: 10_000, y: 10_000))
        for percentile in [50, 90, 99, 99.9] {
            let x = 1 / (1 - percentile / 100)
            let at = try #require(curve.first { $0.x >= x * 0.999 })
            #expect(abs(at.y - latency.value(atPercentile: percentile)) < 100, "\(percentile): \(at)")
        }
        #expect(zip(curve, curve.dropFirst()).allSatisfy { $0.x <= $1.x && $0.y <= $1.y })
    }
}

@Suite struct AxisTests {
    private func named(_ axis: Axis) -> [String] { axis.ticks.map(\.label).filter { !$0.isEmpty } }

    @Test func ticksAreRound() {
        #expect(named(.fromZero(to: 52_345, label: Quantity.rate)) == ["0", "20k", "40k", "60k"])
        #expect(named(.fromZero(to: 500, label: Quantity.rate)) == ["0", "100", "200", "300", "400", "500"])
        #expect(named(.fromZero(to: 0, label: Quantity.rate)) == ["0", "0.2"])
        #expect(named(.time(to: 10)) == ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"])
        #expect(named(.time(to: 600)) == ["0 min", "2 min", "4 min", "6 min", "8 min", "10 min"])
        #expect(named(.latency(120, 9_000)) == ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms", "10 ms"])
        #expect(named(.latency(90, 1_100_000)) == ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"])
        #expect(named(.percentile(count: 5_000)) == ["0%", "90%", "99%", "99.9%"])
        #expect(named(.percentile(count: 10_000_000)).last == "99.99999%")
    }

    @Test func decadesAreOfOneLength() {
        let axis = Axis.latency(100, 10_000)
        #expect([100, 1_000, 10_000].map { (axis.place($0) * 100).rounded() } == [0, 50, 100])
        #expect([0, 1e9].map(axis.place) == [0, 1])
    }

    @Test func quantitiesHaveThreeDigits() {
        #expect([0.42, 9.996, 87.04, 999.4].map(Quantity.latency) == ["0.42 µs", "10 µs", "87 µs", "999 µs"])
        #expect([999.6, 1_250, 999_600, 12_345_678].map(Quantity.latency) == ["1 ms", "1.25 ms", "1 s", "12.3 s"])
        #expect([0, 99.96, 51_234, 1_000_000].map(Quantity.rate) == ["0", "100", "51.2k", "1M"])
        #expect([1.05, 1.5, 0.001].map(Quantity.digits) == ["1.05", "1.5", "0"])
    }
}
