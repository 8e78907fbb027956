public import Core
public import FoundationEssentials

/// How the runs of a candidate compare with those of a baseline: ratios, and how far they spread.
///
/// Of several runs the median speaks for its side.
public struct RunComparison: Sendable, Equatable {
    /// A run and the file it came from.
    public struct Source: Sendable {
        public var file: String
        public var report: RunReport

        public init(file: String, report: RunReport) {
            self.file = file
            self.report = report
        }
    }

    /// What ``Ratio/low`` and ``Ratio/high`` are of.
    public enum Spread: String, Sendable, Codable {
        /// The smallest and the largest ratio of a candidate's run to a baseline's, of all pairs.
        case runs
        /// As there is one run a side: 80 % of the ratios of a second of the one to a second of the other lie between.
        case seconds
    }

    public enum Change: String, Sendable, Codable {
        /// The whole spread is on the better side of 1.
        case better
        case worse
        /// The spread has 1 in it.
        case unclear
    }

    /// One figure on both sides.
    public struct Ratio: Sendable, Equatable {
        /// nil where it is not known.
        public var baseline: Double?
        public var candidate: Double?
        /// Candidate by baseline.
        public var ratio: Double?
        public var low: Double?
        public var high: Double?
        public var change: Change?
    }

    /// The document's format.
    public static let currentFormat = 1
    /// Settings that may differ: where the cluster is, how long it was measured, and what is made up from what.
    public static let freeSettings: Set<String> = ["router", "seed", "duration", "warm-up"]

    public var baseline: [Run]
    public var candidate: [Run]
    public var spread: Spread
    /// Settings that are not the same in all runs, with the values there are; `-` where it is not set.
    public var differences: [String: [String]]
    /// Of all operations together.
    public var total: [Figure: Ratio]
    public var operations: [String: [Figure: Ratio]]

    /// What is compared of a run.
    public struct Run: Sendable, Equatable, Codable {
        public var file: String
        public var started: Date
        public var machine: RunReport.Machine
    }

    /// Compares the runs of two sides.
    ///
    /// Throws `KVError(.invalidArgument)`, in one line, where a side has no run, or they did different work and that
    /// was not allowed.
    /// - Parameter allowDifferent: also where settings differ.
    public init(baseline: [Source], candidate: [Source], allowDifferent: Bool = false) throws(KVError) {
        guard !baseline.isEmpty, !candidate.isEmpty else {
            throw KVError(.invalidArgument, "there is nothing to compare: give a report for each side")
        }
        let differences = Self.differences((baseline + candidate).map(\.report))
        guard allowDifferent || differences.isEmpty else {
            let list = differences.sorted { $0.key < $1.key }
                .map { "\($0.key) (\($0.value.joined(separator: ", ")))" }.joined(separator: ", ")
            throw KVError(
                .invalidArgument,
                "the runs differ in \(list): measure with the same settings, or use --allow-different")
        }
        func run(_ source: Source) -> Run {
            Run(file: source.file, started: source.report.started, machine: source.report.machine)
        }
        self.baseline = baseline.map(run)
        self.candidate = candidate.map(run)
        self.differences = differences
        spread = baseline.count + candidate.count > 2 ? .runs : .seconds
        let sides = (baseline.map(\.report), candidate.map(\.report))
        func ratios(_ figures: [Figure], of operation: String?) -> [Figure: Ratio] {
            Dictionary(
                uniqueKeysWithValues: figures.map { figure in
                    (figure, Self.ratio(figure, of: operation, sides.0, sides.1))
                })
        }
        total = ratios([.throughput, .clientCPU], of: nil)
        let names = Set((sides.0 + sides.1).flatMap(\.operations.keys))
        operations = Dictionary(
            uniqueKeysWithValues: names.map { name in
                (name, ratios([.throughput, .p50, .p99, .p999, .longest], of: name))
            })
    }

    /// Whether all were measured on one kind of machine.
    public var isOnOneMachine: Bool { Set((baseline + candidate).map(\.machine)).count == 1 }

    private static func differences(_ reports: [RunReport]) -> [String: [String]] {
        var differences: [String: [String]] = [:]
        for name in Set(reports.flatMap(\.settings.keys)).subtracting(freeSettings) {
            var values: [String] = []
            for value in reports.map({ $0.settings[name] ?? "-" }) where !values.contains(value) {
                values.append(value)
            }
            if values.count > 1 { differences[name] = values }
        }
        return differences
    }

    private static func ratio(
        _ figure: Figure, of operation: String?, _ baseline: [RunReport], _ candidate: [RunReport]
    ) -> Ratio {
        let sides = [baseline, candidate].map { side in side.compactMap { figure.value(in: $0, of: operation) } }
        var ratio = Ratio(baseline: Quantiles.median(sides[0]), candidate: Quantiles.median(sides[1]))
        guard let from = ratio.baseline, let to = ratio.candidate, from > 0 else { return ratio }
        ratio.ratio = to / from
        let bounds: (low: Double, high: Double)?
        if baseline.count + candidate.count > 2 {
            bounds = Quantiles.ratios(of: sides[1], to: sides[0], share: 1)
        } else {
            let seconds = [baseline[0], candidate[0]].map { figure.seconds(in: $0, of: operation) }
            bounds = Quantiles.ratios(of: seconds[1], to: seconds[0], share: 0.8)
        }
        guard let bounds else { return ratio }
        (ratio.low, ratio.high) = bounds
        if bounds.low > 1 {
            ratio.change = figure.isBetterHigher ? .better : .worse
        } else if bounds.high < 1 {
            ratio.change = figure.isBetterHigher ? .worse : .better
        } else {
            ratio.change = .unclear
        }
        return ratio
    }
}
