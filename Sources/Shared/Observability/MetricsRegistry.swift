import Synchronization

/// The metrics of a process and their text exposition for `GET /metrics`.
///
/// Register at start, keep what is returned, increment it. Registering takes a lock and checks names; incrementing
/// does neither. Registering a name and label set again returns the metric that exists. All methods are safe from
/// any thread.
public final class MetricsRegistry: Sendable {
    /// Label names and values, fixed when a metric is registered.
    public typealias Labels = [String: String]

    /// The media type of ``exposition()``: Prometheus text format 0.0.4.
    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    enum Kind: String { case counter, gauge, histogram }

    enum Source: Sendable {
        case counter(Counter)
        case gauge(Gauge)
        case histogram(Histogram)
        case read(@Sendable () -> Double)
    }

    /// A value of a family whose series come and go, with the labels it has now.
    public struct Reading: Sendable {
        public var labels: Labels
        public var value: Double

        public init(labels: Labels, value: Double) {
            self.labels = labels
            self.value = value
        }
    }

    struct Series: Sendable {
        let labels: [(name: String, value: String)]
        let source: Source
    }

    struct Family: Sendable {
        let name: String
        let help: String
        let kind: Kind
        var series: [Series] = []
        /// Of a family whose series come and go: asked for them at every exposition.
        var changing: (@Sendable () -> [Reading])?
    }

    /// In the order of registration.
    private let families = Mutex<[Family]>([])

    public init() {}

    /// - Parameter name: `distribkv_…_total` by convention.
    public func counter(_ name: String, help: String, labels: Labels = [:]) -> Counter {
        let source = register(name, help: help, kind: .counter, labels: labels) { .counter(Counter()) }
        guard case .counter(let counter) = source else { preconditionFailure("\(name) is read by a closure") }
        return counter
    }

    public func gauge(_ name: String, help: String, labels: Labels = [:]) -> Gauge {
        let source = register(name, help: help, kind: .gauge, labels: labels) { .gauge(Gauge()) }
        guard case .gauge(let gauge) = source else { preconditionFailure("\(name) is read by a closure") }
        return gauge
    }

    public func histogram(
        _ name: String, help: String, labels: Labels = [:], buckets: HistogramBuckets = .latency
    ) -> Histogram {
        let source = register(name, help: help, kind: .histogram, labels: labels) {
            .histogram(Histogram(buckets: buckets))
        }
        guard case .histogram(let histogram) = source, histogram.buckets == buckets else {
            preconditionFailure("\(name) is registered with other buckets")
        }
        return histogram
    }

    /// A gauge whose value is asked for at every exposition.
    /// - Parameter read: called on the thread that asks for the exposition; must not block and must not register.
    public func gauge(_ name: String, help: String, labels: Labels = [:], read: @escaping @Sendable () -> Double) {
        _ = register(name, help: help, kind: .gauge, labels: labels) { .read(read) }
    }

    /// A counter that is kept elsewhere and asked for at every exposition.
    /// - Parameter read: as for the gauge; what it returns never falls.
    public func counter(_ name: String, help: String, labels: Labels = [:], read: @escaping @Sendable () -> Double) {
        _ = register(name, help: help, kind: .counter, labels: labels) { .read(read) }
    }

    /// Gauges whose labels change while the process runs: `read` says at every exposition which there are.
    /// - Parameter read: as for a single gauge; no set of labels stands in it twice.
    public func gauges(_ name: String, help: String, read: @escaping @Sendable () -> [Reading]) {
        precondition(ExpositionText.isMetricName(name), "\(name) is not a metric name")
        families.withLock { families in
            precondition(!families.contains { $0.name == name }, "\(name) is registered already")
            families.append(Family(name: name, help: help, kind: .gauge, changing: read))
        }
    }

    /// The text of all metrics, in the order of their registration.
    ///
    /// Prometheus text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/
    public func exposition() -> String {
        // Closures are called outside the lock: they may take locks of their own.
        let families = families.withLock { $0 }
        var text = ExpositionText()
        for family in families { text.append(family) }
        return text.text
    }

    /// Traps on what only a programming error can bring: a bad name, or one name with two kinds.
    private func register(
        _ name: String, help: String, kind: Kind, labels: Labels, make: () -> Source
    ) -> Source {
        precondition(ExpositionText.isMetricName(name), "\(name) is not a metric name")
        for label in labels.keys {
            precondition(ExpositionText.isLabelName(label) && label != "le", "\(label) is not a label name")
        }
        let labels = labels.sorted { $0.key < $1.key }.map { (name: $0.key, value: $0.value) }
        return families.withLock { families in
            let position: Int
            if let found = families.firstIndex(where: { $0.name == name }) {
                precondition(
                    families[found].kind == kind && families[found].changing == nil,
                    "\(name) is registered as another kind of metric")
                position = found
            } else {
                families.append(Family(name: name, help: help, kind: kind))
                position = families.count - 1
            }
            if let series = families[position].series.first(where: { $0.labels.elementsEqual(labels, by: ==) }) {
                return series.source
            }
            let source = make()
            families[position].series.append(Series(labels: labels, source: source))
            return source
        }
    }
}

/// Builds the text format.
struct ExpositionText {
    private(set) var text = ""

    mutating func append(_ family: MetricsRegistry.Family) {
        text += "# HELP \(family.name) \(ExpositionText.escape(family.help, quotes: false))\n"
        text += "# TYPE \(family.name) \(family.kind.rawValue)\n"
        for series in family.series {
            switch series.source {
            case .counter(let counter): line(family.name, series.labels, "\(counter.value)")
            case .gauge(let gauge): line(family.name, series.labels, "\(gauge.value)")
            case .read(let read): line(family.name, series.labels, ExpositionText.number(read()))
            case .histogram(let histogram): append(histogram, family.name, series.labels)
            }
        }
        for reading in family.changing?() ?? [] {
            let labels = reading.labels.sorted { $0.key < $1.key }.map { (name: $0.key, value: $0.value) }
            line(family.name, labels, ExpositionText.number(reading.value))
        }
    }

    private mutating func append(_ histogram: Histogram, _ name: String, _ labels: [(name: String, value: String)]) {
        let (counts, sum) = histogram.snapshot
        var cumulative: UInt64 = 0
        for (position, count) in counts.enumerated() {
            cumulative += count
            let bound =
                position < histogram.buckets.bounds.count
                ? ExpositionText.number(Double(histogram.buckets.bounds[position]) / histogram.buckets.unitsPerExposed)
                : "+Inf"
            line("\(name)_bucket", labels + [("le", bound)], "\(cumulative)")
        }
        line("\(name)_sum", labels, ExpositionText.number(Double(sum) / histogram.buckets.unitsPerExposed))
        line("\(name)_count", labels, "\(cumulative)")
    }

    private mutating func line(_ name: String, _ labels: [(name: String, value: String)], _ value: String) {
        text += name
        if !labels.isEmpty {
            text += "{"
            for (position, label) in labels.enumerated() {
                if position > 0 { text += "," }
                text += "\(label.name)=\"\(ExpositionText.escape(label.value, quotes: true))\""
            }
            text += "}"
        }
        text += " \(value)\n"
    }

    /// Whole numbers without a fraction, the rest as the shortest decimal, infinities and NaN as the format has them.
    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if let whole = Int64(exactly: value) { return "\(whole)" }
        return "\(value)"
    }

    static func escape(_ text: String, quotes: Bool) -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": escaped += "\\\\"
            case "\n": escaped += "\\n"
            case "\"" where quotes: escaped += "\\\""
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }

    static func isMetricName(_ name: String) -> Bool { isLabelName(name.replacing(":", with: "_")) }

    static func isLabelName(_ name: String) -> Bool {
        func isLetter(_ byte: UInt8) -> Bool {
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) || byte == UInt8(ascii: "_")
        }
        guard let first = name.utf8.first, isLetter(first) else { return false }
        return name.utf8.allSatisfy { isLetter($0) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    }
}
