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
            done all the same: it is on the leader and spreads.
            """)

    @OptionGroup var cluster: ClusterOptions
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
        let version = try await cluster.withClient {
            try await $0.put(key.utf8, content, options: write.options)
        }
        try await Console.print(version.hexDigits)
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
    @OptionGroup var read: ReadFlags
    @Argument(help: "1 to 4096 bytes.")
    var key: String

    func run() async throws {
        let entry = try await cluster.withClient { try await $0.get(key.utf8, options: read.options) }
        guard let entry else {
            throw CommandFailure(status: CommandFailure.notFound, message: "there is no key \"\(key)\"")
        }
        try await Console.write(entry.value)
    }
}

struct DeleteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "del",
        abstract: "Removes a key and prints the version of the removal.",
        discussion: "Removing what is not there is no error.",
        aliases: ["delete"])

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var write: WriteFlags
    @Argument(help: "1 to 4096 bytes.")
    var key: String

    func run() async throws {
        let version = try await cluster.withClient { try await $0.delete(key.utf8, options: write.options) }
        try await Console.print(version.hexDigits)
    }
}

struct TopologyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "topology",
        abstract: "Prints the topology document: which node serves which slots.")

    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let topology = try await cluster.withClient { try await $0.topology() }
        try await Console.write(ByteBuffer(bytes: try topology.json() + [UInt8(ascii: "\n")]))
    }
}
