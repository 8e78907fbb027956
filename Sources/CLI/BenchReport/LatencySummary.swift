/// How long requests took: percentiles, and the counts they come from. Microseconds.
///
/// Percentiles and histogram are one thing: whatever percentile is wanted later can be had from the counts.
public struct LatencySummary: Sendable, Hashable, Codable {
    /// Requests that took up to `upper` and longer than the bucket before.
    public struct Bucket: Sendable, Hashable {
        public var upper: Double
        public var count: UInt64

        public init(upper: Double, count: UInt64) {
            self.upper = upper
            self.count = count
        }
    }

    public var mean: Double
    public var p50: Double
    public var p90: Double
    public var p99: Double
    public var p999: Double
    public var max: Double
    /// By rising ``Bucket/upper``; no bucket is empty.
    public var histogram: [Bucket]

    /// Takes what a histogram such as HdrHistogram recorded; nil where that is nothing.
    /// - Parameters:
    ///   - buckets: (upper bound, count) by rising bound, such as HdrHistogram's recorded values with the highest value
    ///     that is equivalent to each. Empty ones are passed over.
    ///   - microseconds: how many the unit of the bounds and of `mean` and `max` is: 0.001 for nanoseconds.
    ///   - mean: of what was recorded, where it is known; else the mean of the bounds.
    ///   - max: the longest, where it is known better than by its bucket.
    public init?(
        buckets: some Sequence<(upper: UInt64, count: UInt64)>, microseconds: Double = 1, mean: Double? = nil,
        max: UInt64? = nil
    ) {
        var counts: [Bucket] = []
        var (total, sum): (UInt64, Double) = (0, 0)
        for (upper, count) in buckets where count > 0 {
            let upper = Self.tenths(Double(upper) * microseconds)
            total += count
            sum += upper * Double(count)
            // Bounds that are one after rounding are one bucket.
            if counts.last?.upper == upper {
                counts[counts.count - 1].count += count
            } else {
                counts.append(Bucket(upper: upper, count: count))
            }
        }
        guard let last = counts.last else { return nil }
        let longest = max.map { Swift.min(Self.tenths(Double($0) * microseconds), last.upper) } ?? last.upper
        let percentiles = counts.values(atPercentiles: [50, 90, 99, 99.9])
        func bounded(_ index: Int) -> Double { Swift.min(percentiles[index], longest) }
        self.mean = Self.tenths(mean.map { $0 * microseconds } ?? sum / Double(total))
        (p50, p90, p99, p999) = (bounded(0), bounded(1), bounded(2), bounded(3))
        self.max = longest
        histogram = counts
    }

    /// Takes single latencies, in any order; nil where there is none. Counts are kept to three digits.
    public init?(nanoseconds values: [UInt64]) {
        var buckets: [(upper: UInt64, count: UInt64)] = []
        for value in values.sorted() {
            var step: UInt64 = 1
            while value / step >= 1_000 { step *= 10 }
            let upper = (value + step - 1) / step * step
            if buckets.last?.upper == upper {
                buckets[buckets.count - 1].count += 1
            } else {
                buckets.append((upper, 1))
            }
        }
        let sum = values.reduce(0.0) { $0 + Double($1) }
        self.init(
            buckets: buckets, microseconds: 0.001, mean: sum / Double(Swift.max(values.count, 1)), max: values.max())
    }

    /// Requests in the histogram.
    public var count: UInt64 { histogram.reduce(0) { $0 + $1.count } }

    /// What so many percent of the requests did not exceed.
    public func value(atPercentile percentile: Double) -> Double {
        histogram.isEmpty ? max : min(histogram.values(atPercentiles: [percentile])[0], max)
    }

    /// Below a tenth of a microsecond nothing is measured.
    static func tenths(_ value: Double) -> Double { (value * 10).rounded() / 10 }

    private enum CodingKeys: String, CodingKey {
        case mean = "mean_us"
        case p50 = "p50_us"
        case p90 = "p90_us"
        case p99 = "p99_us"
        case p999 = "p999_us"
        case max = "max_us"
        case histogram
    }
}

extension LatencySummary.Bucket: Codable {
    /// `[upper, count]`.
    public init(from decoder: any Decoder) throws {
        var values = try decoder.unkeyedContainer()
        upper = try values.decode(Double.self)
        count = try values.decode(UInt64.self)
    }

    public func encode(to encoder: any Encoder) throws {
        var values = encoder.unkeyedContainer()
        try values.encode(upper)
        try values.encode(count)
    }
}

extension [LatencySummary.Bucket] {
    /// The upper bound of the bucket in which each percentile lies, as HdrHistogram has it.
    /// - Parameter percentiles: rising, 0 to 100.
    func values(atPercentiles percentiles: [Double]) -> [Double] {
        let total = reduce(0) { $0 + $1.count }
        var (index, seen) = (startIndex, first?.count ?? 0)
        return percentiles.map { percentile in
            // Without the allowance 99.9 % of 1,000 would be the 1,000th, as 99.9 is a little more in binary.
            let exact = Double(total) * percentile / 100
            let rank = Swift.max(1, UInt64((exact - exact * 1e-12).rounded(.up)))
            while seen < rank, index + 1 < count {
                index += 1
                seen += self[index].count
            }
            return isEmpty ? 0 : self[index].upper
        }
    }
}
