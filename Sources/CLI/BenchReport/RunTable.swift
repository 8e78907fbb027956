import TerminalText

/// A run for people, in a terminal.
public enum RunTable {
    static let headings = [
        "OPERATION", "REQUESTS", "PER SECOND", "ERRORS", "MEAN µs", "P50 µs", "P90 µs", "P99 µs", "P99.9 µs", "MAX µs",
    ]

    /// With its newlines.
    public static func render(_ report: RunReport) -> String {
        var text = summary(report) + "\n\n"
        text += TextTable.render(
            [headings] + rows(report, Format.count, Format.decimal), rightAligned: Set(1..<headings.count))
        let notes = notes(report)
        if !notes.isEmpty { text += "\n" + notes.map { $0 + "\n" }.joined() }
        return text
    }

    /// A row for every operation, a cell for every heading; `-` for what is not known. For scripts.
    public static func rows(_ report: RunReport) -> [[String]] { rows(report, { String($0) }, { String($0) }) }

    private static func rows(
        _ report: RunReport, _ count: (UInt64) -> String, _ decimal: (Double) -> String
    ) -> [[String]] {
        report.operationNames.compactMap { name in
            report.operations[name].map { operation in
                let latency = operation.latency
                let times = [latency?.mean, latency?.p50, latency?.p90, latency?.p99, latency?.p999, latency?.max]
                return [
                    name, count(operation.count), decimal(report.throughput(of: operation)), count(operation.errors),
                ] + times.map { $0.map(decimal) ?? "-" }
            }
        }
    }

    private static func summary(_ report: RunReport) -> String {
        let requests = "\(Format.count(report.requests)) \(report.requests == 1 ? "request" : "requests")"
        return "\(Format.decimal(report.throughput)) answers/s: \(requests) in "
            + "\(Format.decimal(report.durationSeconds)) s, \(Format.decimal(report.clientMicroseconds)) µs of kv's own "
            + "CPU each"
    }

    /// What wants attention.
    private static func notes(_ report: RunReport) -> [String] {
        var notes: [String] = []
        for name in report.operationNames {
            guard let operation = report.operations[name], operation.errors > 0 else { continue }
            notes.append("errors of \(name): \(errorTypes(operation.errorsByType))")
        }
        if let verification = report.verification {
            let counts = [
                (verification.stale, "stale"), (verification.wrong, "wrong"), (verification.missing, "missing"),
            ]
            let bad = counts.map { "\(Format.count($0.0)) \($0.1)" }.joined(separator: ", ")
            notes.append("verified \(Format.count(verification.checked)) values: \(bad)")
        }
        return notes
    }

    /// `503: 1,234, timeout: 1`, the most frequent first.
    static func errorTypes(_ errors: [String: UInt64]) -> String {
        errors.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            .map { "\($0.key): \(Format.count($0.value))" }.joined(separator: ", ")
    }
}
