import TerminalText

/// The plots of a run.
struct RunPlots {
    /// Points along the time; of a longer run several intervals are one point.
    static let pointsMax = 300

    let report: RunReport
    let intervals: [RunReport.Interval]
    /// Intervals of the report in one of ``intervals``.
    let merged: Int

    init(_ report: RunReport) {
        self.report = report
        merged = (max(report.timeline.count, 1) + Self.pointsMax - 1) / Self.pointsMax
        intervals = Self.merge(report.timeline, by: merged)
    }

    /// The class of an operation's colour: always the same one for those that there are.
    static func style(of operation: String) -> String {
        switch operation {
        case "read": "c0"
        case "update": "c1"
        case "insert": "c2"
        case "scan": "c3"
        case "read_modify_write": "c4"
        case "delete": "c5"
        default: "c6"
        }
    }

    var throughput: Plot {
        let names = report.operationNames
        let rate = { (interval: RunReport.Interval, name: String) -> Double in
            guard let operation = interval.operations[name], interval.spanSeconds > 0 else { return 0 }
            return Double(operation.answered) / interval.spanSeconds
        }
        let highest = intervals.flatMap { interval in names.map { rate(interval, $0) } }.max() ?? 0
        let series = names.map { name in
            Plot.Series(
                style: Self.style(of: name), shape: .line,
                parts: parts { Plot.Point(x: middle($0), y: rate($0, name)) })
        }
        return Plot(
            title: "Answers per second over time, by operation", x: time,
            y: .fromZero(to: highest, label: Quantity.rate), xName: "time", yName: "answers per second",
            series: series,
            notes: notes { interval in names.map { "\($0) \(Format.count(UInt64(rate(interval, $0).rounded())))/s" } })
    }

    /// By percentile, as HdrHistogram plots it; nil where nothing was answered.
    var percentiles: Plot? {
        let known = report.operationNames.compactMap { name in
            report.operations[name]?.latency.map { (name, $0) }
        }
        guard let count = known.map({ $0.1.count }).max(), let y = latencyAxis(known.map { $0.1 }) else { return nil }
        return Plot(
            title: "Latency by percentile, by operation", x: .percentile(count: count), y: y, xName: "percentile",
            yName: "latency",
            series: known.map { name, latency in
                Plot.Series(style: Self.style(of: name), shape: .line, parts: [Self.curve(latency)])
            })
    }

    /// Of one operation; nil where nothing was answered.
    func latency(of name: String) -> Plot? {
        let all = intervals.flatMap(\.operations.values)
        guard intervals.contains(where: { $0.operations[name]?.max != nil }), let lowest = all.compactMap(\.p50).min(),
            let highest = all.compactMap(\.max).max()
        else { return nil }
        // One for all operations, so that they can be compared.
        let y = Axis.latency(lowest, highest)
        let style = Self.style(of: name)
        func line(_ shape: Plot.Series.Shape, _ value: (RunReport.IntervalOperation) -> Double?) -> Plot.Series {
            Plot.Series(
                style: style, shape: shape,
                parts: parts { interval in
                    interval.operations[name].flatMap(value).map { Plot.Point(x: middle(interval), y: $0) }
                })
        }
        return Plot(
            title: "Latency of \(name) over time: p50, p99 and the longest", x: time, y: y, xName: "time",
            yName: "latency", series: [line(.dotted) { $0.max }, line(.dashed) { $0.p99 }, line(.line) { $0.p50 }],
            notes: notes { interval in
                let operation = interval.operations[name]
                let values = [("p50", operation?.p50), ("p99", operation?.p99), ("max", operation?.max)]
                return values.map { "\($0.0) \($0.1.map(Quantity.latency) ?? "-")" }
            })
    }

    /// nil where there was none.
    var errors: Plot? {
        let names = report.operationNames
        func rate(_ interval: RunReport.Interval, _ name: String) -> Double {
            guard let operation = interval.operations[name], interval.spanSeconds > 0 else { return 0 }
            return Double(operation.errors) / interval.spanSeconds
        }
        let highest = intervals.map { interval in names.reduce(0) { $0 + rate(interval, $1) } }.max() ?? 0
        guard highest > 0 else { return nil }
        var bars: [String: [Plot.Series.Bar]] = [:]
        for interval in intervals {
            var base = 0.0
            for name in names where rate(interval, name) > 0 {
                let top = base + rate(interval, name)
                bars[name, default: []].append(.init(x: span(interval), y: base...top))
                base = top
            }
        }
        return Plot(
            title: "Errors per second over time, by operation", x: time,
            y: .fromZero(to: highest, label: Quantity.rate), xName: "time", yName: "errors per second",
            series: names.compactMap { name in
                bars[name].map { Plot.Series(style: Self.style(of: name), shape: .bars($0)) }
            },
            notes: notes { interval in names.map { "\($0) \(Format.count(interval.operations[$0]?.errors ?? 0))" } })
    }

    // MARK: Parts

    private var time: Axis { .time(to: max(report.durationSeconds, report.timeline.last?.endSeconds ?? 0)) }

    private func latencyAxis(_ latencies: [LatencySummary]) -> Axis? {
        let lowest = latencies.compactMap { $0.histogram.first?.upper ?? $0.p50 }.min()
        return latencies.map(\.max).max().map { .latency(lowest ?? $0, $0) }
    }

    private func span(_ interval: RunReport.Interval) -> ClosedRange<Double> {
        (interval.endSeconds - max(interval.spanSeconds, 0))...interval.endSeconds
    }

    private func middle(_ interval: RunReport.Interval) -> Double { interval.endSeconds - interval.spanSeconds / 2 }

    /// - Parameter point: nil where nothing is known: the line is broken there.
    private func parts(_ point: (RunReport.Interval) -> Plot.Point?) -> [[Plot.Point]] {
        intervals.map(point).split(separator: nil).map { $0.compactMap { $0 } }
    }

    private func notes(_ values: (RunReport.Interval) -> [String]) -> [Plot.Note] {
        intervals.map { interval in
            let span = span(interval)
            let time = "\(Format.decimal(max(span.lowerBound, 0))) to \(Format.decimal(span.upperBound)) s"
            return Plot.Note(x: span, text: ([time] + values(interval)).joined(separator: "\n"))
        }
    }

    /// Steps from the percentile before each bucket to the one after it, where they are far enough apart to be seen.
    static func curve(_ latency: LatencySummary) -> [Plot.Point] {
        let stepsMax = 400.0
        let count = latency.count
        let total = Double(count)
        let axis = Axis.percentile(count: count)
        var (seen, points): (UInt64, [Plot.Point]) = (0, [])
        for bucket in latency.histogram {
            let value = min(bucket.upper, latency.max)
            let from = total / max(total - Double(seen), 1)
            seen += bucket.count
            let to = total / max(total - Double(seen), 1)
            let isNear = points.last.map { (axis.place(to) - axis.place($0.x)) * stepsMax < 1 } ?? false
            if isNear, seen < count {
                // What follows starts from here: the last one would be too low by it.
                points[points.count - 1].y = max(points[points.count - 1].y, value)
                continue
            }
            points += [Plot.Point(x: from, y: value), Plot.Point(x: to, y: value)]
        }
        return points
    }

    /// Counts are added up; of latencies the worst is kept.
    static func merge(_ timeline: [RunReport.Interval], by size: Int) -> [RunReport.Interval] {
        guard size > 1 else { return timeline }
        return stride(from: 0, to: timeline.count, by: size).map { start in
            let group = timeline[start..<min(start + size, timeline.count)]
            var operations: [String: RunReport.IntervalOperation] = [:]
            for (name, operation) in group.flatMap(\.operations) {
                operations[name] = operations[name].map { worst($0, operation) } ?? operation
            }
            return RunReport.Interval(
                endSeconds: group.last?.endSeconds ?? 0, spanSeconds: group.reduce(0) { $0 + $1.spanSeconds },
                operations: operations)
        }
    }

    private static func worst(
        _ one: RunReport.IntervalOperation, _ other: RunReport.IntervalOperation
    ) -> RunReport.IntervalOperation {
        func larger(_ one: Double?, _ other: Double?) -> Double? { [one, other].compactMap { $0 }.max() }
        var sum = one
        sum.count += other.count
        sum.errors += other.errors
        (sum.p50, sum.p99, sum.max) = (
            larger(one.p50, other.p50), larger(one.p99, other.p99), larger(one.max, other.max)
        )
        return sum
    }
}
