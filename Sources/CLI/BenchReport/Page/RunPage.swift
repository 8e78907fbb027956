import FoundationEssentials
import TerminalText

/// A run as an HTML page that needs nothing but itself: no network, no script; plots are inline SVG. It is XML too.
public struct RunPage {
    private let report: RunReport
    private let plots: RunPlots

    public init(_ report: RunReport) {
        self.report = report
        plots = RunPlots(report)
    }

    /// The whole page.
    public func html() -> String {
        let title = Markup.escape(title)
        return """
            <!DOCTYPE html>
            <html lang="en">
            <head>
            <meta charset="utf-8"/>
            <meta name="viewport" content="width=device-width,initial-scale=1"/>
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
            <title>\(title)</title>
            <style>
            \(PageStyle.css)
            </style>
            </head>
            <body>
            <header>
            <h1>\(title)</h1>
            <p>\(Markup.escape(subtitle))</p>
            </header>
            <main>
            <div class="tiles">
            \(tiles)</div>
            <div class="plots">
            \(figures)</div>
            <h2>Operations</h2>
            \(operations)\(errors)\(pairs)\(timeline)</main>
            <footer><p>\(Markup.escape(explanation))</p></footer>
            </body>
            </html>

            """
    }

    // MARK: Head

    private var title: String {
        report.settings["workload"].map { "\(report.program): workload \($0)" } ?? report.program
    }

    private var started: String {
        report.started.formatted(.iso8601).replacing("T", with: " ").replacing("Z", with: " UTC")
    }

    private var subtitle: String {
        "\(started) · \(Format.decimal(report.durationSeconds)) s measured · "
            + "\(Format.count(report.requests)) \(report.requests == 1 ? "request" : "requests")"
    }

    /// The operation with the most requests speaks for the run; of those with about as many the first.
    private var main: (name: String, latency: LatencySummary)? {
        let most = report.operations.values.map(\.count).max() ?? 0
        let name = report.operationNames.first { Double(report.operations[$0]?.count ?? 0) >= 0.8 * Double(most) }
        guard let name, let latency = report.operations[name]?.latency else { return nil }
        return (name, latency)
    }

    private var tiles: String {
        var text = tile(Format.count(UInt64(report.throughput.rounded())), "answers per second")
        if let main {
            text += tile(Quantity.latency(main.latency.p50), "p50 of \(main.name)")
            text += tile(Quantity.latency(main.latency.p99), "p99 of \(main.name)")
            text += tile(Quantity.latency(main.latency.p999), "p99.9 of \(main.name)")
        }
        let share = report.requests > 0 ? Double(report.errors) / Double(report.requests) * 100 : 0
        text += tile(
            Format.count(report.errors),
            report.errors == 0 ? "errors" : "errors, \(share < 0.01 ? "below 0.01" : Quantity.digits(share))%",
            isBad: report.errors > 0)
        if let verification = report.verification {
            let bad = verification.stale + verification.wrong + verification.missing
            text += tile(
                Format.count(bad),
                "bad of \(Format.count(verification.checked)) verified",
                isBad: !verification.isClean)
        }
        return text + tile(Quantity.latency(report.clientMicroseconds), "own CPU per request")
    }

    private func tile(_ figure: String, _ name: String, isBad: Bool = false) -> String {
        "<div class=\"tile\(isBad ? " bad" : "")\"><b>\(Markup.escape(figure))</b><span>\(Markup.escape(name))"
            + "</span></div>\n"
    }

    // MARK: Plots

    private var figures: String {
        let names = report.operationNames
        let legend = names.map { (RunPlots.style(of: $0), "line", $0) }
        var text = figure(plots.throughput, "Throughput", "answers per second, by operation", legend)
        if let plot = plots.percentiles {
            text += figure(plot, "Latency by percentile", "what so many percent of the requests did not exceed", legend)
        }
        for name in names {
            guard let plot = plots.latency(of: name) else { continue }
            let style = RunPlots.style(of: name)
            text += figure(
                plot, "Latency of \(name)", "over time",
                [(style, "line", "p50"), (style, "line dashed", "p99"), (style, "line dotted", "longest")])
        }
        if let plot = plots.errors { text += figure(plot, "Errors", "per second, by operation", legend) }
        return text
    }

    /// - Parameter legend: colour, line and name of what is drawn.
    private func figure(
        _ plot: Plot, _ name: String, _ explanation: String, _ legend: [(String, String, String)]
    ) -> String {
        let entries = legend.map { colour, line, name in
            "<li><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><path class=\"\(line) \(colour)\" d=\"M1 5H25\"/></svg>"
                + "\(Markup.escape(name))</li>"
        }
        return "<figure><figcaption>\(Markup.escape(name))<small>\(Markup.escape(explanation))</small></figcaption>\n"
            + plot.svg() + "<ul class=\"legend\">\(entries.joined())</ul></figure>\n"
    }

    // MARK: Tables

    private var operations: String {
        let headings = [
            "operation", "requests", "per second", "errors", "mean", "p50", "p90", "p99", "p99.9", "longest",
        ]
        var text = "<div class=\"wide\"><table>\n<thead>\(Markup.row(headings, tag: "th"))</thead>\n<tbody>\n"
        for name in report.operationNames {
            guard let operation = report.operations[name] else { continue }
            let latency = operation.latency
            let times = [latency?.mean, latency?.p50, latency?.p90, latency?.p99, latency?.p999, latency?.max]
            let cells =
                [
                    Format.count(operation.count), Format.decimal(report.throughput(of: operation)),
                    Format.count(operation.errors),
                ] + times.map { $0.map(Quantity.latency) ?? "-" }
            text += "<tr><td><span class=\"dot \(RunPlots.style(of: name))\"></span>\(Markup.escape(name))</td>"
            text += cells.map { "<td>\($0)</td>" }.joined() + "</tr>\n"
        }
        return text + "</tbody></table></div>\n"
    }

    private var errors: String {
        guard report.errors > 0 else { return verification }
        var text = "<h2>Errors</h2>\n<div class=\"wide\"><table>\n"
        text += "<thead>\(Markup.row(["operation", "error", "requests"], tag: "th"))</thead>\n<tbody>\n"
        for name in report.operationNames {
            let types = report.operations[name]?.errorsByType ?? [:]
            for (type, count) in types.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
                text += Markup.row([name, type, Format.count(count)])
            }
        }
        return text + "</tbody></table></div>\n" + verification
    }

    private var verification: String {
        guard let found = report.verification else { return "" }
        let counts = [("stale", found.stale), ("wrong", found.wrong), ("missing", found.missing)]
        return "<h2>Verification</h2>\n<div class=\"wide\"><table>\n"
            + "<thead>\(Markup.row(["values checked"] + counts.map(\.0), tag: "th"))</thead>\n"
            + "<tbody>\(Markup.row(([found.checked] + counts.map(\.1)).map(Format.count)))</tbody></table></div>\n"
    }

    private var pairs: String {
        let machine = report.machine
        let settings = report.settings.sorted { $0.key < $1.key }
        let properties = [
            ("processor", machine.cpu), ("cores", String(machine.cores)), ("kernel", machine.kernel),
        ]
        return "<div class=\"pairs\">\n<section><h2>Settings</h2>\n\(list(settings.map { ($0.key, $0.value) }))"
            + "</section>\n<section><h2>Machine</h2>\n\(list(properties))</section>\n</div>\n"
    }

    private func list(_ pairs: [(String, String)]) -> String {
        let entries = pairs.map { "<dt>\(Markup.escape($0.0))</dt><dd>\(Markup.escape($0.1))</dd>" }
        return "<dl>\n" + entries.joined(separator: "\n") + "\n</dl>\n"
    }

    /// What the plots over time show, in numbers.
    private var timeline: String {
        guard !plots.intervals.isEmpty else { return "" }
        let headings = ["until", "operation", "per second", "errors", "p50", "p99", "longest"]
        var text = "<details><summary>Numbers over time</summary>\n<div class=\"wide\"><table>\n"
        text += "<thead>\(Markup.row(headings, tag: "th"))</thead>\n<tbody>\n"
        for interval in plots.intervals {
            for name in RunReport.ordered(interval.operations.keys) {
                guard let operation = interval.operations[name] else { continue }
                let rate = interval.spanSeconds > 0 ? Double(operation.answered) / interval.spanSeconds : 0
                let times = [operation.p50, operation.p99, operation.max]
                text += Markup.row(
                    [
                        "\(Format.decimal(interval.endSeconds)) s", name, Format.decimal(rate),
                        Format.count(operation.errors),
                    ] + times.map { $0.map(Quantity.latency) ?? "-" })
            }
        }
        return text + "</tbody></table></div></details>\n"
    }

    private var explanation: String {
        var text =
            "Latencies are of requests that were answered without an error; at a fixed rate from the moment at which each "
            + "was to be sent. "
        if plots.merged > 1 {
            text += "Each point over time is \(plots.merged) intervals: the worst of their latencies. "
        }
        return text + "Written by \(report.program)."
    }
}
