import Core
import TestSupport
import Testing

@Suite struct TermHistoryTests {
    /// `terms`: term, first lsn, version before.
    private func history(_ terms: [(UInt64, UInt64, UInt64)], end lsn: UInt64, _ version: UInt64) -> TermHistory {
        TermHistory(
            starts: terms.map {
                TermStart(term: $0.0, firstLsn: $0.1, previousVersion: Version(rawValue: $0.2))
            },
            end: LogPosition(term: terms.last?.0 ?? 0, lsn: lsn, version: Version(rawValue: version)))
    }

    private func common(_ lsn: UInt64, _ version: UInt64) -> TermHistory.Common {
        TermHistory.Common(lsn: lsn, version: Version(rawValue: version))
    }

    private func expect(
        _ own: TermHistory, _ other: TermHistory, share expected: TermHistory.Common, surplus: ClosedRange<UInt64>?,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(own.common(with: other) == expected, sourceLocation: sourceLocation)
        #expect(other.common(with: own) == expected, sourceLocation: sourceLocation)
        #expect(own.surplus(over: other) == surplus, sourceLocation: sourceLocation)
    }

    @Test func goldenCases() {
        let nothing = TermHistory(starts: [], end: .start)
        let short = history([(1, 1, 0)], end: 10, 100)
        let long = history([(1, 1, 0)], end: 15, 150)
        expect(nothing, nothing, share: common(0, 0), surplus: nil)
        expect(nothing, long, share: common(0, 0), surplus: nil)
        expect(long, nothing, share: common(0, 0), surplus: 1...15)
        expect(short, short, share: common(10, 100), surplus: nil)
        expect(short, long, share: common(10, 100), surplus: nil)
        expect(long, short, share: common(10, 100), surplus: 11...15)

        // Term 2 went on from lsn 10; the old leader came to 15.
        let promoted = history([(1, 1, 0), (2, 11, 100)], end: 12, 300)
        expect(long, promoted, share: common(10, 100), surplus: 11...15)
        expect(promoted, long, share: common(10, 100), surplus: 11...12)
        expect(short, promoted, share: common(10, 100), surplus: nil)
        // A follower that never got as far as the promoted one.
        expect(history([(1, 1, 0)], end: 4, 40), promoted, share: common(4, 40), surplus: nil)

        // Two promotions from different places.
        let second = history([(1, 1, 0), (3, 8, 70)], end: 20, 400)
        expect(promoted, second, share: common(7, 70), surplus: 8...12)
        let third = history([(1, 1, 0), (2, 11, 100), (4, 13, 300)], end: 13, 500)
        expect(third, promoted, share: common(12, 300), surplus: 13...13)
    }

    /// Two leaders in one term: nothing of that term counts as shared.
    @Test func aTermWithTwoLeaders() {
        let one = history([(1, 1, 0), (2, 11, 100)], end: 12, 300)
        let other = history([(1, 1, 0), (2, 11, 100)], end: 12, 301)
        expect(one, other, share: common(10, 100), surplus: 11...12)
        let later = history([(1, 1, 0), (2, 11, 100), (5, 13, 301)], end: 14, 400)
        expect(one, later, share: common(10, 100), surplus: 11...12)
        // Term 1 ended with different batches at the same place.
        let stranger = history([(1, 1, 0), (2, 11, 99)], end: 12, 300)
        expect(one, stranger, share: common(0, 0), surplus: 1...12)
    }

    private typealias Batch = (term: UInt64, version: UInt64)

    private static func summary(of log: [Batch]) -> TermHistory {
        var starts: [TermStart] = []
        for (index, batch) in log.enumerated() where index == 0 || log[index - 1].term < batch.term {
            let previous = index == 0 ? 0 : log[index - 1].version
            starts.append(
                TermStart(
                    term: batch.term, firstLsn: UInt64(index) + 1, previousVersion: Version(rawValue: previous)))
        }
        let end = log.last.map {
            LogPosition(term: $0.term, lsn: UInt64(log.count), version: Version(rawValue: $0.version))
        }
        return TermHistory(starts: starts, end: end ?? .start)
    }

    /// Logs grown at random by leaders, copied in part and rebuilt: what two summaries say is what a comparison
    /// batch by batch says.
    @Test(arguments: [UInt64(1), 2, 3, 4, 5]) func summariesSayWhatTheLogsSay(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            let replicas = Int.random(in: 2...5, using: &generator)
            var logs = [[Batch]](repeating: [], count: replicas)
            var newestTerm: UInt64 = 0
            // The wall clocks of leaders differ, so versions rise along a log and not from leader to leader.
            var leader = 0
            var leadingTerm: UInt64 = 0
            func append(_ log: inout [Batch], term: UInt64) {
                let last = log.last?.version ?? 0
                log.append((term: term, version: last + UInt64.random(in: 1...50, using: &generator)))
            }
            for _ in 0..<Int.random(in: 1...60, using: &generator) {
                let follower = Int.random(in: 0..<replicas, using: &generator)
                switch Int.random(in: 0..<6, using: &generator) {
                case 0 where leadingTerm == 0 || Bool.random(using: &generator):
                    // A leader of a new term, however complete it is.
                    newestTerm += UInt64.random(in: 1...3, using: &generator)
                    leader = follower
                    leadingTerm = newestTerm
                    append(&logs[leader], term: leadingTerm)
                case 1 where leadingTerm > 0, 2 where leadingTerm > 0:
                    append(&logs[leader], term: leadingTerm)
                default:
                    guard follower != leader else { continue }
                    let shared = zip(logs[follower], logs[leader]).prefix { $0 == $1 }.count
                    if shared == logs[follower].count {
                        let more = Int.random(in: 0...4, using: &generator)
                        logs[follower] += logs[leader][shared...].prefix(more)
                    } else if Bool.random(using: &generator) {
                        logs[follower] = logs[leader]
                    }
                }
            }
            for (own, other) in logs.flatMap({ own in logs.map { (own, $0) } }) {
                let shared = zip(own, other).prefix { $0 == $1 }.count
                let summary = TermHistoryTests.summary(of: own)
                let others = TermHistoryTests.summary(of: other)
                let version = shared == 0 ? 0 : own[shared - 1].version
                #expect(summary.common(with: others) == common(UInt64(shared), version), "seed \(seed)")
                let surplus = shared < own.count ? UInt64(shared) + 1...UInt64(own.count) : nil
                #expect(summary.surplus(over: others) == surplus, "seed \(seed)")
            }
        }
    }
}
