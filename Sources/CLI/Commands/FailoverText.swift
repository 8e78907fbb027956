import TerminalText
import Core
import FoundationEssentials
import ImportPipeline
import Wire

/// What a change of leader came to, in words.
enum FailoverText {
    static func render(_ report: FailoverReport) -> String {
        var lines = ["\(report.leader) leads \(report.shard) now (term \(report.term), epoch \(report.epoch))."]
        if report.isComplete {
            lines.append("Nothing is lost: it has every write up to version \(version(report)).")
        } else {
            if report.version == Version.zero.hexDigits {
                let term = report.previousTerm.map { "term \($0)" } ?? "the term before"
                lines.append("It has nothing of \(term), in which \(report.previousLeader) led.")
                lines.append("Everything that was acknowledged in \(term) may be lost.")
            } else {
                lines.append("Everything up to version \(version(report)) is kept.")
                lines.append("Acknowledged writes with a KV-Version above \(report.version) may be lost.")
            }
            lines.append(lastSeen(report))
            lines.append(
                "When \(report.previousLeader) comes back it follows, and saves such writes in its data directory: see "
                    + "kv status.")
        }
        if let held = report.writesHeldMilliseconds {
            lines.append("Writes were held back for \(Format.decimal(held)) ms.")
        }
        if !report.unreachable.isEmpty {
            let addresses = report.unreachable.map(\.description).joined(separator: ", ")
            lines.append("Not asked, as it did not answer: \(addresses). What only it had may be lost as well.")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func version(_ report: FailoverReport) -> String {
        let time = Version(hexDigits: report.version).map { "\(TimeText.utc($0)); " } ?? ""
        return "\(report.version) (\(time)lsn \(Format.count(report.lsn)))"
    }

    private static func lastSeen(_ report: FailoverReport) -> String {
        guard let seen = report.leaderLastSeen else {
            return "Nobody knows how far \(report.previousLeader) was: no follower has heard from it since it started."
        }
        let ahead = seen.lsn - min(seen.lsn, report.lsn)
        return "\(report.previousLeader) was last seen at lsn \(Format.count(seen.lsn)), "
            + "\(Format.count(ahead)) \(ahead == 1 ? "batch" : "batches") ahead, "
            + "\(Format.decimal(Double(seen.millisecondsAgo) / 1_000)) s ago; what it took after that is not known."
    }
}

/// Times for people.
enum TimeText {
    /// When a version was given out: `2026-11-24 11:13:05.123 UTC`.
    static func utc(_ version: Version) -> String {
        let (seconds, milliseconds) = version.milliseconds.quotientAndRemainder(dividingBy: 1_000)
        // Whole seconds, as a fraction would come out of binary floating point.
        let text = Date(timeIntervalSince1970: Double(seconds)).formatted(.iso8601)
        let digits = String(milliseconds)
        let fraction = String(repeating: "0", count: 3 - digits.count) + digits
        return text.replacing("T", with: " ").replacing("Z", with: "") + ".\(fraction) UTC"
    }
}
