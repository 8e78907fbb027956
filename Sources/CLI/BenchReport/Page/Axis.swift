import Glibc

/// Where values lie along an axis, and which of them are named.
struct Axis {
    enum Kind {
        case linear
        /// Decades are of one length.
        case logarithmic
    }

    struct Tick: Equatable {
        var value: Double
        /// Empty for a line without a name.
        var label: String
    }

    let kind: Kind
    let lowest: Double
    let highest: Double
    let ticks: [Tick]

    /// 0 at the lowest value, 1 at the highest; values outside stay at the ends.
    func place(_ value: Double) -> Double {
        let place =
            switch kind {
            case .linear: (value - lowest) / (highest - lowest)
            case .logarithmic: (log10(max(value, lowest)) - log10(lowest)) / (log10(highest) - log10(lowest))
            }
        return min(max(place, 0), 1)
    }

    /// From 0 to a round number not below `highest`, about five ticks.
    static func fromZero(to highest: Double, label: (Double) -> String) -> Axis {
        let step = roundStep(highest > 0 ? highest / 5 : 0.2)
        let count = max(1, Int((highest / step - 1e-9).rounded(.up)))
        let ticks = (0...count).map { Tick(value: Double($0) * step, label: label(Double($0) * step)) }
        return Axis(kind: .linear, lowest: 0, highest: Double(count) * step, ticks: ticks)
    }

    /// From 0 to exactly `highest`: of a run's time.
    static func time(to highest: Double) -> Axis {
        let seconds = max(highest, 0.001)
        let (unit, name) = seconds > 7_200 ? (3_600.0, "h") : seconds > 300 ? (60, "min") : (1, "s")
        let step = roundStep(seconds / unit / 6) * unit
        let ticks = (0...Int(seconds / step + 1e-9)).map { index in
            let value = Double(index) * step
            return Tick(value: value, label: "\(Quantity.digits(value / unit)) \(name)")
        }
        return Axis(kind: .linear, lowest: 0, highest: seconds, ticks: ticks)
    }

    /// Decades around the values, named in each; 2 and 5 of each too where there are few.
    static func latency(_ lowest: Double, _ highest: Double) -> Axis {
        let low = max(lowest, 0.1)
        let first = floor(log10(low) + 1e-9)
        let last = max(ceil(log10(max(highest, low)) - 1e-9), first + 1)
        let factors: [Double] = last - first <= 2 ? [1, 2, 5] : [1]
        var ticks: [Tick] = []
        for decade in Int(first)...Int(last) {
            for factor in factors where decade < Int(last) || factor == 1 {
                let value = pow(10, Double(decade)) * factor
                ticks.append(Tick(value: value, label: Quantity.latency(value)))
            }
        }
        return Axis(kind: .logarithmic, lowest: pow(10, first), highest: pow(10, last), ticks: ticks)
    }

    /// 0 %, 50 %, 90 %, 99 %, 99.9 % …, as far as so many requests say anything; decades of what is left are of one
    /// length, as HdrHistogram plots them. Values are 1 / (1 - percentile / 100).
    static func percentile(count: UInt64) -> Axis {
        let decades = max(1, Int(log10(Double(max(count, 1))) + 1e-9))
        let names = ["0%", "90%", "99%", "99.9%", "99.99%", "99.999%"]
        var ticks = (0...decades).map { decade in
            let label = decade < names.count ? names[decade] : "99." + String(repeating: "9", count: decade - 2) + "%"
            return Tick(value: pow(10, Double(decade)), label: label)
        }
        ticks.insert(Tick(value: 2, label: ""), at: 1)
        return Axis(
            kind: .logarithmic, lowest: 1, highest: max(Double(count), pow(10, Double(decades))), ticks: ticks)
    }

    /// 1, 2 or 5 times a power of ten, at least `step`.
    private static func roundStep(_ step: Double) -> Double {
        let power = pow(10, floor(log10(step)))
        let factor = step / power
        return power * (factor <= 1.000_001 ? 1 : factor <= 2.000_001 ? 2 : factor <= 5.000_001 ? 5 : 10)
    }
}
