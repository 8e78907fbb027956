import Core
import Foundation
import Testing

@testable import BenchReport

@Suite struct GapFinderTests {
    private func longest(_ successes: [UInt64], until end: UInt64) -> [UInt64] {
        var finder = GapFinder()
        for moment in successes { finder.succeeded(at: moment) }
        let gap = finder.longest(until: end)
        return [gap.start, gap.length]
    }

    @Test func theLongestTimeWithoutASuccessIsFound() {
        #expect(longest([10, 20, 30, 95, 100], until: 100) == [30, 65])
        // The first of equally long ones.
        #expect(longest([10, 30, 50], until: 50) == [10, 20])
    }

    @Test func theBeginningAndTheEndCount() {
        #expect(longest([40, 50, 60], until: 70) == [0, 40])
        #expect(longest([10, 20, 30], until: 90) == [30, 60])
        #expect(longest([], until: 70) == [0, 70])
        // What succeeds after the end ends a gap that has begun before it.
        #expect(longest([10, 99], until: 70) == [10, 89])
    }

    @Test func aSuccessThatIsToldLateOpensNoGap() {
        #expect(longest([50, 20, 60], until: 60) == [0, 50])
        #expect(longest([50, 20, 80], until: 80) == [0, 50])
    }
}

@Suite struct WriteLedgerTests {
    private func ledger(_ findings: [Int: WriteLedger.Finding]) -> WriteLedger {
        var ledger = WriteLedger(count: 10)
        for number in 0..<6 { ledger.acknowledged(number, version: UInt64(100 + number)) }
        for number in ledger.expected { ledger.found(findings[number] ?? .kept, at: number) }
        return ledger
    }

    private let key = { (number: Int) in "key-\(number)" }

    @Test func onlyAcknowledgedWritesAreExpected() {
        var ledger = WriteLedger(count: 4)
        #expect(ledger.expected == [])
        ledger.acknowledged(2, version: 7)
        ledger.acknowledged(0, version: 9)
        #expect(ledger.expected == [0, 2])
        #expect(!ledger.summary(keptUpTo: nil, key: key).isClean)
        for number in ledger.expected { ledger.found(.kept, at: number) }
        #expect(ledger.summary(keptUpTo: nil, key: key).isClean)
    }

    @Test func whatIsGoneIsToldWithKeyAndVersion() {
        let lost = ledger([1: .missing, 4: .missing, 2: .wrong, 3: .unreadable]).summary(keptUpTo: nil, key: key)
        #expect([lost.acknowledged, lost.checked, lost.lost, lost.wrong, lost.unreadable] == [6, 6, 2, 1, 1])
        #expect(lost.announced == nil)
        #expect(!lost.isClean)
        #expect(lost.examples.map(\.key) == ["key-1", "key-4", "key-2"])
        #expect(lost.examples.first?.version == "0000000000000065")
    }

    @Test func lossesAboveTheVersionThatIsKeptAreAnnounced() {
        let lost = ledger([1: .missing, 4: .missing, 5: .missing])
        #expect(lost.summary(keptUpTo: 103, key: key).announced == 2)
        #expect(lost.summary(keptUpTo: 104, key: key).announced == 1)
        #expect(lost.summary(keptUpTo: 0, key: key).announced == 3)
    }

    @Test func examplesAreFew() {
        var ledger = WriteLedger(count: 100)
        for number in 0..<100 {
            ledger.acknowledged(number, version: 1)
            ledger.found(.missing, at: number)
        }
        let lost = ledger.summary(keptUpTo: nil, key: key)
        #expect(lost.lost == 100 && lost.examples.count == WriteLedger.examplesMax)
    }
}

@Suite struct FailoverRunReportTests {
    private static let report: FailoverRunReport = {
        let read = RunReport.Operation(
            count: 4, latency: LatencySummary(nanoseconds: [100_400, 200_000, 150_000, 90_000]))
        let write = RunReport.Operation(count: 3, errorsByType: ["timed-out": 2, "unavailable": 1], latency: nil)
        var change = FailoverRunReport.Change(shard: "shard-0", startSeconds: 3.001, milliseconds: 24.12)
        change.previousLeader = "127.0.0.1:1"
        change.leader = "127.0.0.1:2"
        change.isComplete = true
        change.version = "0000000000000065"
        change.writesHeldMilliseconds = 12.1
        return FailoverRunReport(
            started: Samples.started, settings: ["rate": "500.0"], machine: Samples.machine, durationSeconds: 10,
            shards: [
                "shard-0": [
                    "read": .init(requests: read, gap: .init(start: 3_002_400_000, length: 2_004_900)),
                    "write": .init(requests: write, gap: .init(start: 0, length: 10_000_000_000)),
                ],
                "shard-1": ["read": .init(requests: read, gap: .init(start: 1, length: 2))],
            ],
            lostWrites: .init(
                acknowledged: 1_000, checked: 1_000, lost: 2, announced: 1, wrong: 0, unreadable: 0,
                examples: [.init(key: "k", version: "0000000000000066")]), change: change)
    }()

    @Test func theTableIsGolden() {
        #expect(
            FailoverRunTable.render(Self.report) == """
                127.0.0.1:2 leads shard-0 in place of 127.0.0.1:1: begun after 3.0 s, took 24.1 ms, writes were held \
                for 12.1 ms

                SHARD    OPERATION  REQUESTS  ERRORS  LONGEST GAP ms  AT s  P50 µs  P99 µs  MAX µs
                shard-0  write             3       3        10,000.0   0.0       -       -       -
                         read              4       0             2.0   3.0   101.0   200.0   200.0
                shard-1  read              4       0             0.0   0.0   101.0   200.0   200.0

                errors of write at shard-0: timed-out: 2, unavailable: 1
                read back 1,000 of 1,000 acknowledged writes: 2 lost, 0 wrong, 0 not readable
                the failover said of 1 of the lost ones that they may be lost
                  k, version 0000000000000066

                """)
        var refused = Self.report
        refused.change?.error = "no follower answers"
        #expect(
            FailoverRunTable.render(refused).hasPrefix(
                "shard-0 was to get another leader after 3.0 s: no follower answers\n"))
    }

    @Test func theDocumentIsGolden() throws {
        let json = try Self.report.json()
        let latencies =
            #""errors_by_type":{},"gap_ms":2,"gap_start_s":3.002,"histogram":[[90,1],[101,1],[150,1],[200,1]],"#
            + #""max_us":200,"mean_us":135.1,"p50_us":101,"p90_us":200,"p999_us":200,"p99_us":200}"#
        let text = String(decoding: json, as: UTF8.self)
        #expect(
            text.hasPrefix(
                #"{"duration_s":10,"failover":{"is_complete":true,"leader":"127.0.0.1:2","#
                    + #""previous_leader":"127.0.0.1:1","shard":"shard-0","start_s":3.001,"took_ms":24.12,"#
                    + #""version":"0000000000000065","writes_held_ms":12.1},"format":1,"lost_writes":"#
                    + #"{"acknowledged":1000,"announced":1,"checked":1000,"#
                    + #""examples":[{"key":"k","version":"0000000000000066"}],"lost":2,"unreadable":0,"wrong":0},"#
                    + #""machine":{"cores":2,"cpu":"Test <CPU> & Co","kernel":"Linux 6.1"},"#
                    + #""program":"kv bench failover","settings":{"rate":"500.0"},"shards":{"shard-0":{"read":"#
                    + #"{"count":4,"errors":0,"# + latencies + #","write":{"count":3,"errors":3,"#
                    + #""errors_by_type":{"timed-out":2,"unavailable":1},"gap_ms":10000,"gap_start_s":0}"#), "\(text)")
        #expect(try JSONDecoder.iso.decode(FailoverRunReport.self, from: Data(json)) == Self.report)
        // It is no report of a run.
        #expect(throws: KVError.self) { try RunReport(json: json, name: "f.json") }
    }
}

extension JSONDecoder {
    static var iso: JSONDecoder {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        return decoder
    }
}
