import Glibc

/// Draws numbers 0..<count, the number i with a probability proportional to 1 / (i + 1)^theta.
///
/// In constant time, after Gray et al., "Quickly Generating Billion-Record Synthetic Databases", SIGMOD 1994, as YCSB does.
struct Zipfian {
    /// YCSB's.
    static let theta = 0.99

    private(set) var count: UInt64
    private let theta: Double
    private let alpha: Double
    private let secondEnd: Double
    private let zetaTwo: Double
    private var zetaCount = 0.0
    private var eta = 0.0

    init(count: UInt64, theta: Double = Zipfian.theta) {
        precondition(count > 0 && theta > 0 && theta < 1)
        self.count = count
        self.theta = theta
        alpha = 1 / (1 - theta)
        secondEnd = 1 + pow(0.5, theta)
        zetaTwo = Self.zeta(2, theta)
        resize(to: count)
    }

    /// From here on it draws from `count` numbers.
    mutating func resize(to count: UInt64) {
        self.count = count
        zetaCount = Self.zeta(count, theta)
        eta = (1 - pow(2 / Double(count), 1 - theta)) / (1 - zetaTwo / zetaCount)
    }

    func draw(_ random: inout SplitMix64) -> UInt64 {
        let fraction = random.fraction()
        let share = fraction * zetaCount
        if share < 1 { return 0 }
        if share < secondEnd { return min(1, count - 1) }
        return min(UInt64(Double(count) * pow(eta * fraction - eta + 1, alpha)), count - 1)
    }

    /// Terms that ``zeta(_:_:)`` adds up one by one.
    private static let termsMax: UInt64 = 32

    /// The sum of 1 / i^theta for i from 1 to `count`.
    ///
    /// Beyond the first terms by the Euler-Maclaurin formula, of which what is left out is below 1e-8 there.
    static func zeta(_ count: UInt64, _ theta: Double) -> Double {
        let exact = min(count, termsMax)
        var sum = 0.0
        for index in 0..<exact { sum += pow(Double(index + 1), -theta) }
        guard count > exact else { return sum }
        let (first, last) = (Double(exact), Double(count))
        func slope(_ point: Double) -> Double { -theta * pow(point, -theta - 1) }
        sum += (pow(last, 1 - theta) - pow(first, 1 - theta)) / (1 - theta)
        sum += (pow(last, -theta) - pow(first, -theta)) / 2
        return sum + (slope(last) - slope(first)) / 12
    }
}

/// A zipfian whose hot numbers lie scattered over the range, and stay hot while it grows: YCSB's default.
///
/// It draws from 10¹⁰ numbers, whatever `count` is, and hashes them into the range. So the hottest number gets 3.8 % of the
/// draws, and numbers that share a hash add up.
struct ScrambledZipfian {
    private static let drawnFrom: UInt64 = 10_000_000_000
    private let zipfian = Zipfian(count: drawnFrom)

    func draw(below count: UInt64, _ random: inout SplitMix64) -> UInt64 {
        Self.hash(zipfian.draw(&random)) % count
    }

    /// FNV-1a of the eight bytes, the least significant one first.
    static func hash(_ number: UInt64) -> UInt64 {
        var (hash, rest): (UInt64, UInt64) = (0xCBF2_9CE4_8422_2325, number)
        for _ in 0..<8 {
            hash = (hash ^ (rest & 0xFF)) &* 0x100_0000_01B3
            rest >>= 8
        }
        return hash
    }
}

/// Draws the numbers of keys that exist.
struct KeyChooser {
    private enum Kind {
        case uniform
        case zipfian(ScrambledZipfian)
        case latest(Zipfian)
    }

    private var kind: Kind

    init(_ distribution: KeyDistribution, count: UInt64) {
        kind =
            switch distribution {
            case .uniform: .uniform
            case .zipfian: .zipfian(ScrambledZipfian())
            case .latest: .latest(Zipfian(count: count))
            }
    }

    /// A number below `count`, which is above 0.
    mutating func draw(below count: UInt64, _ random: inout SplitMix64) -> UInt64 {
        switch kind {
        case .uniform: return random.below(count)
        case .zipfian(let zipfian): return zipfian.draw(below: count, &random)
        case .latest(var zipfian):
            if zipfian.count != count {
                zipfian.resize(to: count)
                kind = .latest(zipfian)
            }
            return count - 1 - zipfian.draw(&random)
        }
    }
}
