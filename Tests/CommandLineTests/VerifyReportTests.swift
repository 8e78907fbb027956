import Core
import Sharding
import Testing
import Wire

@testable import kv

private let a = NodeAddress(host: "a", port: 1)
private let b = NodeAddress(host: "b", port: 1)
private let c = NodeAddress(host: "c", port: 1)

private func digest(
    _ sums: [String], keys: [UInt64]? = nil, starts: [String] = ["", "d", "m", "t"], lsn: UInt64 = 7,
    version: UInt64 = 7
) -> VerifyReport.Shard.Answer {
    .success(
        DigestDocument(
            position: PositionDocument(
                shard: "s", role: .follower,
                position: LogPosition(term: 1, lsn: lsn, version: Version(rawValue: version))),
            ranges: zip(starts, sums).enumerated().map { index, range in
                DigestDocument.Range(start: range.0, keys: keys?[index] ?? 10, crc32c: range.1)
            }))
}

@Suite struct VerifyReportTests {
    private let shard = ShardTopology(name: "s", index: 0, term: 1, leader: a, followers: [b, c], slots: [])

    private func compare(_ answers: [NodeAddress: VerifyReport.Shard.Answer]) -> VerifyReport.Shard {
        VerifyReport.Shard(shard, answers)
    }

    @Test func equalReplicas() {
        let sums = ["1", "2", "3", "4"]
        let report = VerifyReport(shards: [compare([a: digest(sums), b: digest(sums), c: digest(sums)])])
        #expect(report.status == .done)
        #expect(
            VerifyText.render(report) == """
                SHARD  ROLE      NODE  LSN  KEYS  RESULT
                s      leader    a:1     7    40  ok
                       follower  b:1     7    40  ok
                       follower  c:1     7    40  ok

                """)
    }

    @Test func differingRangesAreNamed() {
        let report = VerifyReport(shards: [
            compare([
                a: digest(["1", "2", "3", "4"]), b: digest(["1", "x", "y", "4"], keys: [10, 9, 11, 10]),
                c: digest(["x", "2", "3", "x"], keys: [10, 10, 10, 1]),
            ])
        ])
        #expect(report.status == .conditionFailed)
        #expect(
            VerifyText.render(report) == """
                SHARD  ROLE      NODE  LSN  KEYS  RESULT
                s      leader    a:1     7    40  ok
                       follower  b:1     7    40  DIFFERENT
                       follower  c:1     7    31  DIFFERENT

                s at b:1 differs from its leader here (keys percent-encoded):
                  d … t: 20 keys there, 20 keys at the leader

                s at c:1 differs from its leader here (keys percent-encoded):
                  (start) … d: 10 keys there, 10 keys at the leader
                  t … (end): 1 key there, 10 keys at the leader

                """)
    }

    @Test func anotherHistoryIsDifferentHoweverEqualTheContent() {
        let sums = ["1", "2", "3", "4"]
        let report = compare([a: digest(sums), b: digest(sums, version: 8), c: digest(sums)])
        #expect(report.replicas.map(\.state) == [.equal, .different, .equal])
        #expect(
            report.replicas[1].reason?.contains("another history: at lsn 7 it has version 0000000000000008") ?? false)
    }

    @Test func whatCannotBeComparedSaysWhy() {
        let sums = ["1", "2", "3", "4"]
        let behind = VerifyReport.Shard.Answer.failure(KVError(.timedOut, "it stands at lsn 5"))
        let late = compare([a: digest(sums), b: behind, c: digest(sums, lsn: 8)])
        #expect(late.replicas.map(\.state) == [.equal, .unavailable, .unavailable])
        #expect(VerifyReport(shards: [late]).status == .unavailable)
        #expect(VerifyText.render(VerifyReport(shards: [late])).contains("not compared: it stands at lsn 5"))
        let shifted = compare([a: digest(sums), b: digest(sums, starts: ["", "e", "m", "t"]), c: digest(["1"])])
        #expect(shifted.replicas.map(\.state) == [.equal, .unavailable, .unavailable])
        let headless = compare([a: behind, b: digest(sums), c: digest(sums)])
        #expect(headless.replicas.map(\.state) == [.unavailable, .unavailable, .unavailable])
        let both = VerifyReport(shards: [late, compare([a: digest(sums), b: digest(["x", "2", "3", "4"])])])
        #expect(both.status == .conditionFailed, "a difference is the worse news")
    }

    @Test func manyDifferencesAreCut() {
        let count = 2 * VerifyText.differencesMax + 10
        let starts = (0..<count).map { "k\($0)" }
        let leader = digest(starts.map { _ in "1" }, starts: starts)
        let other = digest(starts.indices.map { $0 % 2 == 0 ? "1" : "2" }, starts: starts)
        let text = VerifyText.render(VerifyReport(shards: [compare([a: leader, b: other, c: leader])]))
        #expect(text.contains("and 5 more: see --json"))
    }
}
