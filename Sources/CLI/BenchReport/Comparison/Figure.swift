extension RunComparison {
    /// What is compared.
    public enum Figure: String, Sendable, CaseIterable, Codable, CodingKeyRepresentable {
        /// Answered without an error per second.
        case throughput
        /// Latencies in microseconds.
        case p50 = "p50_us"
        case p99 = "p99_us"
        case p999 = "p999_us"
        case longest = "max_us"
        /// Microseconds of the load generator's own processor time per request.
        case clientCPU = "client_cpu_us"

        /// For people.
        var name: String {
            switch self {
            case .throughput: "answers/s"
            case .p50: "p50 µs"
            case .p99: "p99 µs"
            case .p999: "p99.9 µs"
            case .longest: "max µs"
            case .clientCPU: "own CPU µs"
            }
        }

        var isBetterHigher: Bool { self == .throughput }

        /// Of a whole run.
        /// - Parameter operation: nil for all of them together.
        func value(in report: RunReport, of operation: String?) -> Double? {
            guard let operation else {
                switch self {
                case .throughput: return report.throughput
                case .clientCPU: return report.clientMicroseconds
                case .p50, .p99, .p999, .longest: return nil
                }
            }
            guard let found = report.operations[operation] else { return nil }
            switch self {
            case .throughput: return report.throughput(of: found)
            case .p50: return found.latency?.p50
            case .p99: return found.latency?.p99
            case .p999: return found.latency?.p999
            case .longest: return found.latency?.max
            case .clientCPU: return nil
            }
        }

        /// Of the parts of a run; none where the timeline does not say.
        /// - Parameter operation: nil for all of them together.
        func seconds(in report: RunReport, of operation: String?) -> [Double] {
            // The last one may be a sliver, which says nothing of a second.
            let whole = (report.timeline.map(\.spanSeconds).max() ?? 0) / 2
            let intervals = report.timeline.filter { $0.spanSeconds > 0 && $0.spanSeconds >= whole }
            return intervals.compactMap { interval in
                let operations = operation.map { name in [interval.operations[name]].compactMap { $0 } }
                switch self {
                case .throughput:
                    let answered = (operations ?? Array(interval.operations.values)).reduce(0) { $0 + $1.answered }
                    return Double(answered) / interval.spanSeconds
                case .p50: return operations?.first?.p50
                case .p99: return operations?.first?.p99
                case .longest: return operations?.first?.max
                case .p999, .clientCPU: return nil
                }
            }
        }
    }
}

/// Places in sorted values.
enum Quantiles {
    /// Values of a side that are paired with those of the other; more are thinned out, evenly by size.
    static let pairedMax = 500

    static func median(_ values: [Double]) -> Double? {
        guard !values.isEmpty else { return nil }
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }

    /// Between what the ratios of all pairs lie, without the smallest and the largest ones.
    /// - Parameter share: of the pairs that lie between; 1 for all.
    /// - Returns: nil where there is no pair.
    static func ratios(
        of numerators: [Double], to denominators: [Double], share: Double
    ) -> (low: Double, high: Double)? {
        let denominators = thinned(denominators.filter { $0 > 0 })
        let numerators = thinned(numerators)
        guard !numerators.isEmpty, !denominators.isEmpty else { return nil }
        let ratios = numerators.flatMap { top in denominators.map { top / $0 } }.sorted()
        let cut = Int(Double(ratios.count) * (1 - share) / 2 + 1e-9)
        return (ratios[cut], ratios[ratios.count - 1 - cut])
    }

    private static func thinned(_ values: [Double]) -> [Double] {
        let sorted = values.sorted()
        guard sorted.count > pairedMax else { return sorted }
        return (0..<pairedMax).map { sorted[$0 * (sorted.count - 1) / (pairedMax - 1)] }
    }
}
