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
              kv put photo --file photo.jpg
              kv import packages.tsv
              kv status
              kv failover shard-0 --to 127.0.0.1:7002

            Every command finds the cluster through --router, else through DISTRIBKV_ROUTER, else through
            http://127.0.0.1:8080, and then talks to the nodes themselves.

            EXIT STATUS
              0  done
              1  there is no such key
              2  the command line or the input is wrong
              3  the cluster, or a part of it, is not available, or refuses
              4  replicas differ (kv verify)
            """,
        version: BuildInformation.version,
        subcommands: [
            PutCommand.self, GetCommand.self, DeleteCommand.self, StatusCommand.self, ImportCommand.self,
            TopologyCommand.self, FailoverCommand.self, ReplicaCommand.self, VerifyCommand.self,
        ])

    static func main() async {
        // A reader of our output that goes away is a failed write, not a signal.
        signal(SIGPIPE, SIG_IGN)
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let failure as CommandFailure {
            if let message = failure.message { Console.error("kv: \(message)") }
            Glibc.exit(failure.status)
        } catch let error as KVError {
            Console.error("kv: \(error)")
            Glibc.exit(CommandFailure.status(of: error))
        } catch {
            // Help and version end up here too; what is left is a wrong command line.
            guard exitCode(for: error) == .success else {
                Console.error(fullMessage(for: error))
                Glibc.exit(CommandFailure.usage)
            }
            exit(withError: error)
        }
    }
}

/// Ends the program with a status and, where there is something to say, a line.
struct CommandFailure: Error, Equatable {
    static let notFound: CInt = 1
    static let usage: CInt = 2
    static let unavailable: CInt = 3
    static let different: CInt = 4
    /// As a shell has it for a program that SIGINT ended.
    static let interrupted: CInt = 130

    var status: CInt
    var message: String?

    static func status(of error: KVError) -> CInt {
        switch error.code {
        case .notFound: notFound
        case .invalidArgument: usage
        default: unavailable
        }
    }
}
