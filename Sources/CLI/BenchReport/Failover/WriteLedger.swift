/// Which writes were acknowledged, and whether they are there in the end.
///
/// Every write has a number and a key of its own, so that none hides that another one is lost.
public struct WriteLedger: Sendable {
    /// What a read found in the place of a write.
    public enum Finding: Sendable, Hashable {
        /// What was written.
        case kept
        case missing
        /// Something that was never written there.
        case wrong
        /// No answer, or an error.
        case unreadable
    }

    /// Lost and wrong writes that are named.
    public static let examplesMax = 20

    /// By number; 0 for a write that was not acknowledged.
    private var versions: [UInt64]
    private var findings: [Finding: UInt64] = [:]
    private var lost: [Int] = []
    private var wrong: [Int] = []

    /// - Parameter count: of all writes that there will be.
    public init(count: Int) { versions = [UInt64](repeating: 0, count: count) }

    /// - Parameter version: of the write, as the cluster gave it.
    public mutating func acknowledged(_ number: Int, version: UInt64) { versions[number] = version }

    public func isAcknowledged(_ number: Int) -> Bool { versions[number] != 0 }

    /// Numbers of the writes that have to be there, by rising number.
    public var expected: [Int] { versions.indices.filter { versions[$0] != 0 } }

    /// Notes what a read found, once for every one of ``expected``.
    public mutating func found(_ finding: Finding, at number: Int) {
        precondition(versions[number] != 0)
        findings[finding, default: 0] += 1
        if finding == .missing { lost.append(number) }
        if finding == .wrong { wrong.append(number) }
    }

    /// - Parameters:
    ///   - keptUpTo: the version up to which a failover said that everything is kept; nil where it said that nothing is
    ///     lost, or where there was none.
    ///   - key: the key of a write, by its number.
    public func summary(keptUpTo: UInt64?, key: (Int) -> String) -> FailoverRunReport.LostWrites {
        let announced = keptUpTo.map { kept in UInt64(lost.count { versions[$0] > kept }) }
        return FailoverRunReport.LostWrites(
            acknowledged: UInt64(versions.count { $0 != 0 }), checked: findings.values.reduce(0, +),
            lost: UInt64(lost.count), announced: announced, wrong: UInt64(wrong.count),
            unreadable: findings[.unreadable] ?? 0,
            examples: (lost + wrong).prefix(Self.examplesMax).map { number in
                .init(key: key(number), version: Self.hexDigits(versions[number]))
            })
    }

    private static func hexDigits(_ version: UInt64) -> String {
        let digits = String(version, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
