import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import FoundationEssentials
import NIOCore

/// The key that a command is about.
struct KeyArgument: ParsableArguments {
    @Argument(help: ArgumentHelp("1 to 4096 bytes of UTF-8.", valueName: "key"))
    var text: String

    @Flag(name: .customLong("key-base64"), help: "The key is given in base64: for bytes that are no text.")
    var isBase64 = false

    func validate() throws { _ = try decode() }

    var bytes: [UInt8] { (try? decode()) ?? [] }

    /// As messages show it.
    var shown: String { TextTable.cell(bytes) }

    private func decode() throws -> [UInt8] {
        guard isBase64 else { return Array(text.utf8) }
        guard let data = Data(base64Encoded: text) else {
            throw ValidationError("\"\(text)\" is no base64 (RFC 4648 section 4, with padding).")
        }
        return Array(data)
    }
}

/// What a write expects to find.
struct MatchFlags: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Only where the key has this version, or * where it exists; else exit status 4.", valueName: "version|*"),
        transform: FlagText.match)
    var ifMatch: WriteOptions.Condition?
}

/// What `kv put`, `kv del` and `kv incr` wait for.
struct WriteFlags: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "On how many replicas the write has to be: leader, quorum, all, or a number.",
            discussion: "(default: what the cluster is configured for)", valueName: "level"),
        transform: FlagText.ackLevel)
    var ack: AckLevel?

    @Option(
        help: ArgumentHelp("How long that may take: 500ms, 5s.", valueName: "duration"), transform: FlagText.duration)
    var ackTimeout: TimeAmount?

    func options(_ condition: WriteOptions.Condition?, ttl: TimeAmount? = nil) -> WriteOptions {
        WriteOptions(condition: condition, ttl: ttl, ack: ack, ackTimeout: ackTimeout)
    }
}

/// How new an answer of `kv get` has to be.
struct ReadFlags: ParsableArguments {
    @Option(
        help: ArgumentHelp("eventual: any replica answers; leader: only the leader.", valueName: "level"),
        transform: FlagText.consistency)
    var consistency: ReadOptions.Consistency = .eventual

    @Option(
        help: ArgumentHelp(
            "A version of the key's shard that the answer has to include, as kv put prints it.", valueName: "version"),
        transform: FlagText.version)
    var minVersion: Version?

    @Option(
        help: ArgumentHelp(
            "By how much a follower's answer may be behind: 500ms, 5s.", discussion: "(default: any)",
            valueName: "duration"),
        transform: FlagText.duration)
    var maxStaleness: TimeAmount?

    var options: ReadOptions {
        ReadOptions(consistency: consistency, minVersion: minVersion, maxStaleness: maxStaleness)
    }
}

/// Reads the values of flags; each says what it takes.
enum FlagText {
    static func ackLevel(_ text: String) throws -> AckLevel {
        guard let level = AckLevel(text) else {
            throw ValidationError("\"\(text)\" is none of leader, quorum, all, or a number from 1.")
        }
        return level
    }

    static func consistency(_ text: String) throws -> ReadOptions.Consistency {
        guard let consistency = ReadOptions.Consistency(rawValue: text) else {
            throw ValidationError("\"\(text)\" is neither eventual nor leader.")
        }
        return consistency
    }

    static func address(_ text: String) throws -> NodeAddress {
        guard let address = NodeAddress(text) else {
            throw ValidationError("\"\(text)\" is no address of a node: write host:port.")
        }
        return address
    }

    static func match(_ text: String) throws -> WriteOptions.Condition {
        if text == "*" { return .exists }
        guard let version = Version(hexDigits: text) else {
            throw ValidationError("\"\(text)\" is neither * nor a version: 16 hex digits, as kv put prints them.")
        }
        return .version(version)
    }

    /// At least 1 ms, at most a hundred years.
    static func ttl(_ text: String) throws -> TimeAmount {
        guard let milliseconds = DurationText.milliseconds(text),
            (1...Limits.ttlMillisecondsMax).contains(milliseconds)
        else {
            throw ValidationError("\"\(text)\" is no duration from 1ms to 36500d, such as 30s, 5m, 2h or 7d.")
        }
        return .milliseconds(Int64(milliseconds))
    }

    static func version(_ text: String) throws -> Version {
        guard let version = Version(hexDigits: text) else {
            throw ValidationError("\"\(text)\" is no version: 16 hex digits, as kv put prints them.")
        }
        return version
    }

    /// As ``duration(_:)``; a number without a unit is seconds and may have a fraction.
    static func timeout(_ text: String) throws -> TimeAmount {
        guard let seconds = Double(text) else { return try duration(text) }
        guard seconds >= 0.001, seconds <= 3_600 else {
            throw ValidationError("\"\(text)\" is no duration from 1ms to 1h.")
        }
        return .nanoseconds(Int64(seconds * 1e9))
    }

    /// At least 1 ms, at most an hour.
    static func duration(_ text: String) throws -> TimeAmount {
        guard let milliseconds = DurationText.milliseconds(text), (1...3_600_000).contains(milliseconds) else {
            throw ValidationError("\"\(text)\" is no duration from 1ms to 1h, such as 500ms or 5s.")
        }
        return .milliseconds(Int64(milliseconds))
    }
}
