import TerminalText

/// A comparison for people, in a terminal.
public enum ComparisonTable {
    static let headings = ["OPERATION", "FIGURE", "BASELINE", "CANDIDATE", "RATIO", "LOW", "HIGH", "CHANGE"]

    /// With its newlines.
    public static func render(_ comparison: RunComparison) -> String {
        var rows = rows(comparison, Format.decimal, ratio)
        for index in rows.indices.dropFirst().reversed() where rows[index][0] == rows[index - 1][0] {
            rows[index][0] = ""
        }
        let files = { (runs: [RunComparison.Run]) in runs.map(\.file).joined(separator: " ") }
        var text = "baseline   \(files(comparison.baseline))\ncandidate  \(files(comparison.candidate))\n\n"
        text += TextTable.render([headings] + rows, rightAligned: [2, 3, 4, 5, 6])
        return text + "\n" + notes(comparison).map { $0 + "\n" }.joined()
    }

    /// A row for every figure, a cell for every heading; `-` for what is not known. For scripts.
    public static func rows(_ comparison: RunComparison) -> [[String]] {
        rows(comparison, { String($0) }, { String(($0 * 1e4).rounded() / 1e4) })
    }

    private static func rows(
        _ comparison: RunComparison, _ figure: (Double) -> String, _ ratio: (Double) -> String
    ) -> [[String]] {
        let named = RunReport.ordered(comparison.operations.keys).map { ($0, comparison.operations[$0] ?? [:]) }
        return (named + [("all", comparison.total)]).flatMap { name, figures in
            RunComparison.Figure.allCases.compactMap { one in
                figures[one].map { found in
                    [
                        name, one.name, found.baseline.map(figure) ?? "-", found.candidate.map(figure) ?? "-",
                        found.ratio.map(ratio) ?? "-", found.low.map(ratio) ?? "-", found.high.map(ratio) ?? "-",
                        found.change?.rawValue ?? "-",
                    ]
                }
            }
        }
    }

    private static func ratio(_ value: Double) -> String {
        let hundredths = Int((value * 100).rounded())
        let fraction = String(hundredths % 100)
        return "\(hundredths / 100).\(fraction.count < 2 ? "0" : "")\(fraction)"
    }

    private static func notes(_ comparison: RunComparison) -> [String] {
        var notes: [String] = []
        switch comparison.spread {
        case .runs:
            let (baseline, candidate) = (comparison.baseline.count, comparison.candidate.count)
            notes.append(
                "RATIO is candidate / baseline, of the medians; LOW and HIGH are the extremes of all "
                    + "\(baseline * candidate) pairs of runs.")
        case .seconds:
            notes.append(
                "RATIO is candidate / baseline. There is one run of each: 80% of all pairs of their seconds lie between LOW "
                    + "and HIGH; give several runs to see how runs differ.")
        }
        notes += comparison.differences.sorted { $0.key < $1.key }.map { name, values in
            "The runs differ in \(name): \(values.joined(separator: ", "))."
        }
        if !comparison.isOnOneMachine { notes.append("They were measured on different machines.") }
        return notes
    }
}
