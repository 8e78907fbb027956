import TerminalText

/// What `kv bench replication` measured, for people.
public enum ReplicationRunTable {
    static let lagHeadings = [
        "MEASURED", "FOLLOWER", "COUNT", "ERRORS", "P50 µs", "P90 µs", "P99 µs", "P99.9 µs", "MAX µs",
    ]
    static let catchUpHeadings = ["FOLLOWER", "KEYS BEHIND", "CAUGHT UP IN s", "KEYS/s"]

    /// With its newlines.
    public static func render(_ report: ReplicationRunReport) -> String {
        var text =
            "\(Format.decimal(report.writesPerSecond)) writes/s acknowledged in "
            + "\(Format.decimal(report.durationSeconds)) s"
        if !report.writeErrors.isEmpty { text += "; failed: \(RunTable.errorTypes(report.writeErrors))" }
        text += "\n\n"
        let followers = report.followers.sorted { $0.key < $1.key }
        if let write = report.write {
            var rows = [row("write", "", write)]
            var errors = write.errors > 0 ? ["errors of write: \(RunTable.errorTypes(write.errorsByType))"] : []
            for (address, follower) in followers {
                for (name, operation) in [
                    ("lag", follower.lag), ("visible", follower.visible), ("read", follower.read),
                ] {
                    guard let operation else { continue }
                    rows.append(row(name, address, operation))
                    guard operation.errors > 0 else { continue }
                    errors.append("errors of \(name) at \(address): \(RunTable.errorTypes(operation.errorsByType))")
                }
            }
            text += TextTable.render([lagHeadings] + rows, rightAligned: Set(2..<lagHeadings.count))
            text += "\n" + (errors + explanation).map { $0 + "\n" }.joined()
        }
        let caughtUp = followers.compactMap { address, follower in follower.catchUp.map { catchUp(address, $0) } }
        if !caughtUp.isEmpty {
            text += TextTable.render([catchUpHeadings] + caughtUp, rightAligned: [1, 2, 3])
        }
        return text
    }

    private static let explanation = [
        "write: from when it was due to the leader's answer; lag: from there until the follower has it; visible: both;",
        "read: a read of the follower that waits for nothing, which is a part of lag.",
    ]

    private static func row(_ name: String, _ follower: String, _ operation: RunReport.Operation) -> [String] {
        let latency = operation.latency
        return [name, follower, Format.count(operation.count), Format.count(operation.errors)]
            + [latency?.p50, latency?.p90, latency?.p99, latency?.p999, latency?.max].map {
                $0.map(Format.decimal) ?? "-"
            }
    }

    private static func catchUp(_ address: String, _ catchUp: ReplicationRunReport.CatchUp) -> [String] {
        let time = catchUp.seconds.map(Format.decimal) ?? (catchUp.isDone ? "-" : "not caught up")
        return [
            address, Format.count(catchUp.keysBehind), time,
            catchUp.keysPerSecond.map { Format.count(UInt64($0.rounded())) } ?? "-",
        ]
    }
}
