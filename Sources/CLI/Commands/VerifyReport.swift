import TerminalText
import Core
import ImportPipeline
import Sharding
import Wire

/// How the replicas of shards compare, at one position each.
struct VerifyReport: Encodable, Equatable {
    enum State: String, Encodable {
        case equal
        case different
        /// It did not answer, or did not stand where its leader stood.
        case unavailable
    }

    /// A range of keys in which a follower holds something else than its leader.
    struct Difference: Encodable, Equatable {
        /// The first key, percent-encoded; empty for the start of the key space.
        var start: String
        /// The first key behind the range; empty for the end of the key space.
        var end: String
        var leaderKeys: UInt64
        var keys: UInt64
    }

    struct Replica: Encodable, Equatable {
        var address: NodeAddress
        var role: PositionDocument.Role
        var state: State
        var lsn: UInt64?
        var keys: UInt64?
        /// Why it is not known, or not equal.
        var reason: String?
        var differences: [Difference] = []
    }

    struct Shard: Encodable, Equatable {
        var name: String
        var replicas: [Replica]
    }

    var shards: [Shard]

    var states: Set<State> { Set(shards.flatMap { $0.replicas.map(\.state) }) }

    /// ``CommandStatus/done`` where all are equal.
    var status: CommandStatus {
        if states.contains(.different) { return .conditionFailed }
        return states.contains(.unavailable) ? .unavailable : .done
    }
}

extension VerifyReport.Shard {
    typealias Answer = Result<DigestDocument, KVError>

    /// Compares what the replicas answered.
    /// - Parameter answers: all of one lsn and with the leader's ranges, or why there is none.
    init(_ shard: ShardTopology, _ answers: [NodeAddress: Answer]) {
        name = shard.name
        func answer(_ address: NodeAddress) -> Answer {
            answers[address] ?? .failure(KVError(.unavailable, "it was not asked"))
        }
        let leader = answer(shard.leader)
        replicas = shard.replicas.map { address in
            let role = address == shard.leader ? PositionDocument.Role.leader : .follower
            var replica = VerifyReport.Replica(address: address, role: role, state: .unavailable)
            switch (leader, answer(address)) {
            case (_, .failure(let error)): replica.reason = error.message
            case (.failure, .success(let digest)):
                Self.fill(&replica, digest)
                replica.reason = "the leader's content is not known"
            case (.success(let reference), .success(let digest)):
                Self.fill(&replica, digest)
                Self.compare(&replica, digest, reference)
            }
            return replica
        }
    }

    private static func fill(_ replica: inout VerifyReport.Replica, _ digest: DigestDocument) {
        replica.lsn = digest.position.lsn
        replica.keys = digest.ranges.reduce(0) { $0 + $1.keys }
    }

    private static func compare(
        _ replica: inout VerifyReport.Replica, _ digest: DigestDocument, _ leader: DigestDocument
    ) {
        let (own, theirs) = (digest.position, leader.position)
        guard own.lsn == theirs.lsn else {
            replica.reason = "it answered for lsn \(own.lsn), not for lsn \(theirs.lsn): try again"
            return
        }
        guard digest.ranges.map(\.start) == leader.ranges.map(\.start) else {
            replica.reason = "it answered with other ranges of keys than asked for"
            return
        }
        replica.differences = differences(digest, leader)
        let sameHistory = (own.term, own.version) == (theirs.term, theirs.version)
        replica.state = replica.differences.isEmpty && sameHistory ? .equal : .different
        if !sameHistory {
            replica.reason =
                "another history: at lsn \(own.lsn) it has version \(own.version) of term \(own.term), the leader "
                + "\(theirs.version) of term \(theirs.term)"
        }
    }

    /// Ranges whose checksums differ; neighbours are one.
    private static func differences(
        _ digest: DigestDocument, _ leader: DigestDocument
    ) -> [VerifyReport.Difference] {
        var differences: [VerifyReport.Difference] = []
        var isOpen = false
        for (index, (own, theirs)) in zip(digest.ranges, leader.ranges).enumerated() {
            let differs = (own.crc32c, own.keys) != (theirs.crc32c, theirs.keys)
            defer { isOpen = differs }
            guard differs else { continue }
            let end = index + 1 < leader.ranges.count ? leader.ranges[index + 1].start : ""
            if isOpen {
                let last = differences.count - 1
                differences[last].end = end
                differences[last].leaderKeys += theirs.keys
                differences[last].keys += own.keys
            } else {
                differences.append(
                    VerifyReport.Difference(start: own.start, end: end, leaderKeys: theirs.keys, keys: own.keys))
            }
        }
        return differences
    }
}

/// `kv verify` for people.
enum VerifyText {
    /// Ranges of one replica that are named.
    static let differencesMax = 20

    static func render(_ report: VerifyReport) -> String {
        var rows = rows(report, Format.count)
        for index in rows.indices.dropFirst().reversed() where rows[index][0] == rows[index - 1][0] {
            rows[index][0] = ""
        }
        var text = TextTable.render(
            [["SHARD", "ROLE", "NODE", "LSN", "KEYS", "RESULT"]] + rows, rightAligned: [3, 4])
        for shard in report.shards {
            for replica in shard.replicas where !replica.differences.isEmpty { text += explain(replica, shard.name) }
        }
        return text
    }

    /// A row for every replica; `-` for what is not known.
    static func rows(_ report: VerifyReport, _ number: (UInt64) -> String) -> [[String]] {
        func cell(_ value: UInt64?) -> String { if let value { number(value) } else { "-" } }
        return report.shards.flatMap { shard in
            shard.replicas.map { replica in
                [
                    shard.name, replica.role.rawValue, replica.address.description, cell(replica.lsn),
                    cell(replica.keys), result(replica),
                ]
            }
        }
    }

    private static func result(_ replica: VerifyReport.Replica) -> String {
        switch replica.state {
        case .equal: "ok"
        case .different: replica.reason.map { "DIFFERENT: \($0)" } ?? "DIFFERENT"
        case .unavailable: "not compared: \(replica.reason ?? "no answer")"
        }
    }

    private static func explain(_ replica: VerifyReport.Replica, _ shard: String) -> String {
        let all = replica.differences
        var text = "\n\(shard) at \(replica.address) differs from its leader here (keys percent-encoded):\n"
        for difference in all.prefix(differencesMax) {
            let start = difference.start.isEmpty ? "(start)" : difference.start
            let end = difference.end.isEmpty ? "(end)" : difference.end
            text +=
                "  \(start) … \(end): \(keys(difference.keys)) there, \(keys(difference.leaderKeys)) at the leader\n"
        }
        if all.count > differencesMax { text += "  and \(all.count - differencesMax) more: see --json\n" }
        return text
    }

    private static func keys(_ count: UInt64) -> String { "\(Format.count(count)) \(count == 1 ? "key" : "keys")" }
}
