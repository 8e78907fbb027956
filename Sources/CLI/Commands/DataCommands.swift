import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import NIOCore

struct PutCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "put",
        abstract: "Writes a value under a key and prints the version of the write.",
        discussion: """
            EXAMPLES
              kv put greeting hello
              kv put greeting hello --ack all --ack-timeout 2s
              kv put session/7 open --ttl 30m
              kv put lock mine --if-absent --ttl 10s
              kv put config new --if-match 01a20d6f120e0000
              date | kv put now -
              kv put photo --file photo.jpg
              kv put -- -key- value

            Where the write is not on as many replicas as --ack says in time, that is an error (3), and the write is
            done all the same: it is on the leader and spreads. Its version is printed then too.
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var match: MatchFlags
    @Flag(help: "Only where there is no such key; else exit status 4.")
    var ifAbsent = false
    @Option(
        help: ArgumentHelp("The value is gone after that: 500ms, 30s, 5m, 2h, 7d.", valueName: "duration"),
        transform: FlagText.ttl)
    var ttl: TimeAmount?
    @OptionGroup var write: WriteFlags
    @OptionGroup var key: KeyArgument
    @Argument(help: "The value; - reads it from standard input.")
    var value: String?
    @Option(help: "Reads the value from a file.", completion: .file())
    var file: String?

    func validate() throws {
        guard (value == nil) != (file == nil) else {
            throw ValidationError("Give the value or --file, one of the two.")
        }
        guard !ifAbsent || match.ifMatch == nil else {
            throw ValidationError("--if-absent and --if-match exclude each other.")
        }
    }

    var options: WriteOptions { write.options(ifAbsent ? .absent : match.ifMatch, ttl: ttl) }

    func run() async throws {
        let content: ByteBuffer
        if let file {
            content = try await Console.read(path: file)
        } else if let value, value != "-" {
            content = ByteBuffer(string: value)
        } else {
            content = try await Console.read(path: "-")
        }
        try await output.write(versionOf: key) {
            try await cluster.withClient { try await $0.put(key.bytes, content, options: options) }
        }
    }
}

struct GetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get",
        abstract: "Writes the value under a key to standard output, byte for byte.",
        discussion: """
            Exits with 1 where there is no such key.

            EXAMPLES
              kv get photo > photo.jpg
              kv get greeting --output json
              kv get greeting --consistency leader
              kv get greeting --min-version $(kv put greeting hello)
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var read: ReadFlags
    @OptionGroup var key: KeyArgument

    func run() async throws {
        let entry = try await cluster.withClient { try await $0.get(key.bytes, options: read.options) }
        guard let entry else {
            throw CommandFailure(status: .notFound, message: "there is no key \"\(key.shown)\"")
        }
        let record = DataRecord(key: key.bytes, entry)
        try await output.write(
            default: .raw, line: record.json,
            table: TextTable.render([
                ["KEY", "VERSION", "TTL", "VALUE"],
                [
                    key.shown, entry.version.hexDigits, record.ttl ?? "-",
                    TextTable.cell(entry.value.readableBytesView),
                ],
            ]),
            raw: entry.value)
    }
}

struct DeleteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "del",
        abstract: "Removes a key and prints the version of the removal.",
        discussion: "Removing what is not there is no error, unless --if-match demands it.",
        aliases: ["delete"])

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var match: MatchFlags
    @OptionGroup var write: WriteFlags
    @OptionGroup var key: KeyArgument

    func run() async throws {
        try await output.write(versionOf: key) {
            try await cluster.withClient {
                try await $0.delete(key.bytes, options: write.options(match.ifMatch))
            }
        }
    }
}

struct IncrementCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "incr",
        abstract: "Adds to the number under a key and prints the sum.",
        discussion: """
            A key that does not exist counts as 0. Where the value is no 64-bit integer, or the sum would be none, the
            exit status is 4 and nothing is changed. Where the answer was lost the increment may have been counted; it is
            not sent twice, and the exit status is 3.

            EXAMPLES
              kv incr visits
              kv incr stock --by -3 --if-match '*'
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("What to add: a 64-bit integer, also a negative one.", valueName: "n"))
    var by: Int64 = 1
    @OptionGroup var match: MatchFlags
    @Flag(help: "Only where there is no such key; else exit status 4.")
    var ifAbsent = false
    @OptionGroup var write: WriteFlags
    @OptionGroup var key: KeyArgument

    func validate() throws {
        guard !ifAbsent || match.ifMatch == nil else {
            throw ValidationError("--if-absent and --if-match exclude each other.")
        }
    }

    func run() async throws {
        let options = write.options(ifAbsent ? .absent : match.ifMatch)
        let counter = try await cluster.withClient {
            try await $0.increment(key.bytes, by: by, options: options)
        }
        let record = DataRecord(key: key.bytes, number: counter.number, version: counter.version)
        try await output.write(
            default: .raw, line: record.json,
            table: TextTable.render([
                ["KEY", "NUMBER", "VERSION"], [key.shown, String(counter.number), counter.version.hexDigits],
            ]),
            raw: ByteBuffer(string: "\(counter.number)\n"))
    }
}

extension OutputOptions {
    /// Writes the version of a write; also of one that is done and not on enough replicas yet, before that is thrown.
    fileprivate func write(versionOf key: KeyArgument, _ write: () async throws -> Version) async throws {
        let version: Version
        do {
            version = try await write()
        } catch let error as KVError {
            if error.code == .ackTimeout, let version = error.version { try await self.write(version, of: key) }
            throw error
        }
        try await self.write(version, of: key)
    }

    private func write(_ version: Version, of key: KeyArgument) async throws {
        try await write(
            default: .raw, line: DataRecord(key: key.bytes, version: version).json,
            table: TextTable.render([["KEY", "VERSION"], [key.shown, version.hexDigits]]),
            raw: ByteBuffer(string: version.hexDigits + "\n"))
    }
}
