import ArgumentParser
import Core
import Glibc

@main
struct KV: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kv",
        abstract: "Reads, writes, imports and inspects a distribKV cluster.",
        discussion: """
            EXAMPLES
              kv put greeting hello
              kv get greeting
              kv incr visits
              kv put photo --file photo.jpg
              kv scan user/ --limit 20
              kv import packages.tsv
              kv export backup.ndjson
              kv status
              kv failover shard-0 --to 127.0.0.1:7002

            Every command takes the options below, before its name or after it. It finds the cluster through --router, else through DISTRIBKV_ROUTER, else through
            http://127.0.0.1:8080, and then talks to the nodes themselves.

            EXIT STATUS
              \(CommandStatus.table.joined(separator: "\n  "))
            """,
        version: BuildInformation.version,
        subcommands: [
            PutCommand.self, GetCommand.self, DeleteCommand.self, IncrementCommand.self, ScanCommand.self,
            BatchCommand.self, StatusCommand.self, ImportCommand.self, ExportCommand.self, TopologyCommand.self,
            FailoverCommand.self, ReplicaCommand.self, VerifyCommand.self, ScrubCommand.self, CompactCommand.self,
            BenchCommand.self,
            CompletionCommand.self,
        ])

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions

    static func main() async {
        // A reader of our output that goes away is a failed write, not a signal.
        signal(SIGPIPE, SIG_IGN)
        do {
            try checkArguments()
            var command = try parseAsRoot(BenchArguments.rewritten(Array(Swift.CommandLine.arguments.dropFirst())))
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            // Help and version are errors too, and no failures.
            if !(error is CommandFailure), !(error is KVError), exitCode(for: error) == .success {
                exit(withError: error)
            }
            let failure = failure(for: error)
            if let message = failure.message { Console.error("kv: \(message)") }
            Glibc.exit(failure.status.rawValue)
        }
    }

    /// Refuses arguments that are no text: they would come to the commands with other bytes in their place.
    private static func checkArguments() throws {
        for (index, argument) in UnsafeBufferPointer(
            start: Swift.CommandLine.unsafeArgv, count: Int(Swift.CommandLine.argc)
        ).enumerated() {
            guard let argument, String(validatingCString: argument) == nil else { continue }
            throw CommandFailure(
                status: .usage,
                message:
                    "argument \(index) is not UTF-8: give such a key with --key-base64, such a value with --file or on "
                    + "standard input")
        }
    }

    private static func message(of error: KVError) -> String {
        guard error.code == .ackTimeout, let version = error.version else { return error.description }
        return "\(error) (version \(version))"
    }

    /// How the program ends after `error`, which is no request for help.
    static func failure(for error: any Error) -> CommandFailure {
        switch error {
        case let failure as CommandFailure: return failure
        case let error as KVError: return CommandFailure(status: CommandStatus(error), message: message(of: error))
        default:
            // What is left is a wrong command line. All of it in one line, whose end says where there is more.
            let lines = fullMessage(for: error).split(separator: "\n").map(String.init)
            let help = lines.last.flatMap { line in
                line.firstRange(of: "'").map { String(line[$0.upperBound...].prefix { $0 != "'" }) }
            }
            let message = self.message(for: error).split(separator: "\n").joined(separator: " ")
            return CommandFailure(status: .usage, message: help.map { "\(message) (see \($0))" } ?? message)
        }
    }
}
