import TerminalText

/// What `kv bench failover` measured, for people.
public enum FailoverRunTable {
    static let headings = [
        "SHARD", "OPERATION", "REQUESTS", "ERRORS", "LONGEST GAP ms", "AT s", "P50 µs", "P99 µs", "MAX µs",
    ]

    /// With its newlines.
    public static func render(_ report: FailoverRunReport) -> String {
        var rows: [[String]] = []
        var errors: [String] = []
        for shard in report.shards.keys.sorted() {
            var label = shard
            for name in ["write", "read"] {
                guard let operation = report.shards[shard]?[name] else { continue }
                rows.append([label, name] + cells(operation))
                label = ""
                guard operation.requests.errors > 0 else { continue }
                errors.append("errors of \(name) at \(shard): \(RunTable.errorTypes(operation.requests.errorsByType))")
            }
        }
        var text = report.change.map { change($0) + "\n\n" } ?? ""
        text += TextTable.render([headings] + rows, rightAligned: Set(2..<headings.count)) + "\n"
        return text + (errors + lost(report.lostWrites)).map { $0 + "\n" }.joined()
    }

    private static func cells(_ operation: FailoverRunReport.Operation) -> [String] {
        let latency = operation.requests.latency
        return [
            Format.count(operation.requests.count), Format.count(operation.requests.errors),
            Format.decimal(operation.gapMilliseconds), Format.decimal(operation.gapStartSeconds),
        ] + [latency?.p50, latency?.p99, latency?.max].map { $0.map(Format.decimal) ?? "-" }
    }

    private static func change(_ change: FailoverRunReport.Change) -> String {
        let start = "after \(Format.decimal(change.startSeconds)) s"
        if let error = change.error { return "\(change.shard) was to get another leader \(start): \(error)" }
        var text = "\(change.leader ?? "?") leads \(change.shard) in place of \(change.previousLeader ?? "?"): begun "
        text += "\(start), took \(Format.decimal(change.milliseconds)) ms"
        if let held = change.writesHeldMilliseconds { text += ", writes were held for \(Format.decimal(held)) ms" }
        return text
    }

    private static func lost(_ writes: FailoverRunReport.LostWrites) -> [String] {
        let counts = [(writes.lost, "lost"), (writes.wrong, "wrong"), (writes.unreadable, "not readable")]
        var lines = [
            "read back \(Format.count(writes.checked)) of \(Format.count(writes.acknowledged)) acknowledged writes: "
                + counts.map { "\(Format.count($0.0)) \($0.1)" }.joined(separator: ", ")
        ]
        if let announced = writes.announced, writes.lost > 0 {
            lines.append("the failover said of \(Format.count(announced)) of the lost ones that they may be lost")
        }
        lines += writes.examples.map { "  \($0.key), version \($0.version)" }
        return lines
    }
}
