import ArgumentParser
import Core
import DistribKVClient
import NIOCore
import Sharding

struct PutCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "put",
        abstract: "Writes a value under a key and prints the version of the write.",
        discussion: """
            EXAMPLES
              kv put greeting hello
              kv put greeting hello --ack all --ack-timeout 2s
              date | kv put now -
              kv put photo --file photo.jpg
              kv put -- -key- value

            Where the write is not on as many replicas as --ack says in time, that is an error (3), and the write is
            done all the same: it is on the leader and spreads. Its version is printed then too.
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var write: WriteFlags
    @Argument(help: "1 to 4096 bytes.")
    var key: String
    @Argument(help: "The value; - reads it from standard input.")
    var value: String?
    @Option(help: "Reads the value from a file.", completion: .file())
    var file: String?

    func validate() throws {
        guard (value == nil) != (file == nil) else {
            throw ValidationError("Give the value or --file, one of the two.")
        }
    }

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
            try await cluster.withClient { try await $0.put(key.utf8, content, options: write.options) }
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
              kv get greeting --consistency leader
              kv get greeting --min-version $(kv put greeting hello)
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var read: ReadFlags
    @Argument(help: "1 to 4096 bytes.")
    var key: String

    func run() async throws {
        let entry = try await cluster.withClient { try await $0.get(key.utf8, options: read.options) }
        guard let entry else {
            throw CommandFailure(status: .notFound, message: "there is no key \"\(TextTable.cell(key.utf8))\"")
        }
        try await output.write(
            default: .raw, json: DataRecord(key: key.utf8, version: entry.version, value: entry.value),
            table: TextTable.render([
                ["KEY", "VERSION", "VALUE"],
                [
                    TextTable.cell(key.utf8), entry.version.hexDigits, TextTable.cell(entry.value.readableBytesView),
                ],
            ]),
            raw: entry.value)
    }
}

struct DeleteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "del",
        abstract: "Removes a key and prints the version of the removal.",
        discussion: "Removing what is not there is no error.",
        aliases: ["delete"])

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var write: WriteFlags
    @Argument(help: "1 to 4096 bytes.")
    var key: String

    func run() async throws {
        try await output.write(versionOf: key) {
            try await cluster.withClient { try await $0.delete(key.utf8, options: write.options) }
        }
    }
}

struct TopologyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "topology",
        abstract: "Prints the topology document: which node serves which slots.")

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions

    func run() async throws {
        let topology = try await cluster.withClient { try await $0.topology() }
        let json = ByteBuffer(bytes: try topology.json() + [UInt8(ascii: "\n")])
        switch output.format(default: .json) {
        case .json, .raw: try await Console.write(json)
        case .table: try await Console.write(ByteBuffer(string: Self.table(topology)))
        }
    }

    static func table(_ topology: Topology) -> String {
        var rows = [["SHARD", "TERM", "SLOTS", "LEADER", "FOLLOWERS"]]
        for shard in topology.shards {
            let slots = shard.slots.reduce(0) { $0 + Int($1.last.rawValue - $1.first.rawValue) + 1 }
            rows.append([
                shard.name, String(shard.term), String(slots), shard.leader.description,
                shard.followers.map(\.description).joined(separator: ", "),
            ])
        }
        return "cluster \(topology.cluster), epoch \(topology.epoch)\n\n"
            + TextTable.render(rows, rightAligned: [1, 2])
    }
}

extension OutputOptions {
    /// Writes the version of a write; also of one that is done and not on enough replicas yet, before that is thrown.
    fileprivate func write(versionOf key: String, _ write: () async throws -> Version) async throws {
        let version: Version
        do {
            version = try await write()
        } catch let error as KVError {
            if error.code == .ackTimeout, let version = error.version { try await self.write(version, of: key) }
            throw error
        }
        try await self.write(version, of: key)
    }

    private func write(_ version: Version, of key: String) async throws {
        try await write(
            default: .raw, json: DataRecord(key: key.utf8, version: version),
            table: TextTable.render([["KEY", "VERSION"], [TextTable.cell(key.utf8), version.hexDigits]]),
            raw: ByteBuffer(string: version.hexDigits + "\n"))
    }
}
