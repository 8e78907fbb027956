import Glibc
import Testing

@testable import LoadGenerator

/// Shapes, with fixed seeds: they are the same in every run.
@Suite struct DistributionTests {
    private static let draws = 200_000

    private func counts(_ count: Int, seed: UInt64, _ draw: (inout SplitMix64) -> UInt64) -> [Int] {
        var random = SplitMix64(seed: seed)
        var counts = [Int](repeating: 0, count: count)
        for _ in 0..<Self.draws { counts[Int(draw(&random))] += 1 }
        return counts
    }

    /// Pearson's statistic against the shares expected, which add up to 1.
    private func chiSquare(_ counts: [Int], _ shares: [Double]) -> Double {
        zip(counts, shares).reduce(0) { sum, pair in
            let expected = pair.1 * Double(Self.draws)
            return sum + (Double(pair.0) - expected) * (Double(pair.0) - expected) / expected
        }
    }

    @Test func uniformKeys() {
        var keys = KeyChooser(.uniform, count: 100)
        let found = counts(100, seed: 1) { keys.draw(below: 100, &$0) }
        // 99 degrees of freedom: above 149 once in a thousand.
        #expect(chiSquare(found, Array(repeating: 0.01, count: 100)) < 149)
    }

    @Test(arguments: [10, 100, 1_000])
    func zipfianShares(count: Int) {
        let zipfian = Zipfian(count: UInt64(count))
        let found = counts(count, seed: 2) { zipfian.draw(&$0) }
        let zeta = (1...count).reduce(0) { $0 + pow(Double($1), -0.99) }
        // The method is exact for the two hottest and an approximation for the rest (Gray et al.).
        for rank in 0..<2 {
            let expected = pow(Double(rank + 1), -0.99) / zeta * Double(Self.draws)
            #expect(abs(Double(found[rank]) - expected) < 4 * expected.squareRoot(), "rank \(rank)")
        }
        let top = found.prefix(10).reduce(0, +)
        let share = (1...10).reduce(0) { $0 + pow(Double($1), -0.99) } / zeta
        #expect(abs(Double(top) / Double(Self.draws) - share) < 0.04)
        #expect(found.reduce(0, +) == Self.draws)
    }

    @Test(arguments: [1, 2, 31, 32, 33, 1_000, 100_000] as [UInt64])
    func zetaIsTheSum(count: UInt64) {
        let sum = (1...count).reduce(0) { $0 + pow(Double($1), -0.99) }
        #expect(abs(Zipfian.zeta(count, 0.99) - sum) < 1e-7)
    }

    @Test func zetaOfYCSB() {
        // ScrambledZipfianGenerator.ZETAN, of 10,000,000,000 items.
        #expect(abs(Zipfian.zeta(10_000_000_000, 0.99) - 26.46902820178302) < 1e-6)
    }

    @Test func scrambledZipfianSpreadsTheHotKeys() {
        let zipfian = ScrambledZipfian()
        let found = counts(1_000, seed: 3) { zipfian.draw(below: 1_000, &$0) }
        let hot = found.indices.sorted { found[$0] > found[$1] }.prefix(20)
        // Hot keys are hot, and lie all over the range.
        #expect(found[hot[0]] > Self.draws / 40)
        #expect(Set(hot.map { $0 / 250 }).count == 4)
        #expect(found.allSatisfy { $0 > 0 })
        // The hottest stays the hottest where the range grows by one: the draw does not depend on it.
        #expect(hot[0] == Int(ScrambledZipfian.hash(0) % 1_000))
    }

    @Test func latestFollowsTheEnd() {
        var keys = KeyChooser(.latest, count: 1_000)
        let found = counts(1_000, seed: 4) { keys.draw(below: 1_000, &$0) }
        #expect(found[999] > found[998] && found[998] > found[990] && found[990] > found[500])
        var random = SplitMix64(seed: 5)
        let grown = (0..<1_000).map { _ in keys.draw(below: 5_000, &random) }
        #expect(grown.allSatisfy { $0 < 5_000 } && grown.contains(4_999))
        #expect(grown.count { $0 >= 4_000 } > 600)
    }

    @Test func oneKey() {
        for distribution in KeyDistribution.allCases {
            var keys = KeyChooser(distribution, count: 1)
            var random = SplitMix64(seed: 6)
            #expect((0..<100).allSatisfy { _ in keys.draw(below: 1, &random) == 0 })
        }
    }

    @Test(arguments: Workload.all) func mixHasItsShares(workload: Workload) {
        let mix = OperationMix(workload)
        let found = counts(OperationKind.allCases.count, seed: 7) { UInt64(mix.draw(&$0).rawValue) }
        for kind in OperationKind.allCases {
            let share = Double(workload.percent[kind] ?? 0) / 100
            #expect(abs(Double(found[kind.rawValue]) / Double(Self.draws) - share) < 0.005, "\(kind)")
        }
    }

    @Test(arguments: [0, 1, 9, 10, 15, 16, 0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210, .max] as [UInt64])
    func orderedNamesAreHexDigits(number: UInt64) {
        let digits = String(number, radix: 16)
        let expected = "k" + String(repeating: "0", count: 16 - digits.count) + digits
        #expect(KeyNames(prefix: "k", isOrdered: true).name(of: number) == expected)
    }

    @Test func namesDiffer() {
        for names in [KeyNames(), KeyNames(prefix: "a/b:", isOrdered: true)] {
            let found = (0..<10_000 as Range<UInt64>).map(names.name)
            #expect(Set(found).count == found.count)
            #expect(found.allSatisfy { $0.utf8.count == names.byteCount })
            #expect((found == found.sorted()) == names.isOrdered)
        }
        #expect(!KeyNames.isValid(prefix: "a b") && !KeyNames.isValid(prefix: "ä") && !KeyNames.isValid(prefix: "a?"))
    }

    @Test(arguments: [
        ("100", ValueSize.fixed(100)), ("10-1000", .uniform(10...1_000)), ("zipfian:10-1000", .zipfian(10...1_000)),
        ("normal:10-1000", .normal(10...1_000)), ("0", .fixed(0)),
    ])
    func valueSizes(text: String, size: ValueSize) {
        #expect(ValueSize(text) == size)
        let sizes = ValueSizes(size)
        var random = SplitMix64(seed: 8)
        let found = (0..<20_000).map { _ in sizes.draw(&random) }
        #expect(found.allSatisfy { size.range.contains($0) })
        let mean = Double(found.reduce(0, +)) / Double(found.count)
        switch size {
        case .fixed(let bytes): #expect(mean == Double(bytes))
        case .uniform, .normal: #expect(abs(mean - 505) < 10)
        case .zipfian: #expect(mean < 300)
        }
        if case .normal = size { #expect(found.count { abs($0 - 505) <= 165 } > 13_000) }
    }

    @Test(arguments: [
        "", "-", "a", "10-", "-10", "20-10", "1-2-3", "zipfian:10", "other:1-2", "99999999", "+5", "1:2:3",
    ])
    func badValueSizes(text: String) { #expect(ValueSize(text) == nil) }
}

private func pow(_ base: Double, _ exponent: Double) -> Double { Glibc.pow(base, exponent) }
