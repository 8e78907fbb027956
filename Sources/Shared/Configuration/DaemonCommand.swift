public import ArgumentParser
import Core

/// The command of a daemon: shows every failure to start as one line on standard error.
///
/// A main is little more than this:
///
///     @main struct RouterCommand: DaemonCommand {
///         static let configuration = daemonConfiguration("router", abstract: "Finds the node that serves a key.")
///         @OptionGroup var options: CommonOptions
///
///         func serve() async throws {
///             let settings = try options.settings(defaultPort: DefaultPort.router)
///             LineLogHandler.bootstrap(
///                 program: Self.program, format: settings.logFormat, level: settings.logLevel)
///             let file = try ShardingFile.load(path: settings.configPath)
///             try await buildRouter(file: file, listen: settings.listen, threads: settings.threads).run()
///         }
///     }
///
/// Exit status: 0 after a clean stop, 1 where it could not start or failed, 64 where the flags are wrong.
public protocol DaemonCommand: AsyncParsableCommand {
    /// Serves until it is asked to stop. What it throws ends the process with status 1.
    mutating func serve() async throws
}

extension DaemonCommand {
    /// The binary's name, as its errors and log lines show it.
    public static var program: String { configuration.commandName ?? "distribkv" }

    /// Name, `--version` and the paragraph about environment variables.
    public static func daemonConfiguration(_ name: String, abstract: String) -> CommandConfiguration {
        CommandConfiguration(
            commandName: name, abstract: abstract, discussion: CommonOptions.discussion,
            version: BuildInformation.version)
    }

    public mutating func run() async throws {
        do {
            try await serve()
        } catch {
            FailureLine.write(program: Self.program, FailureLine.text(of: error))
            throw ExitCode.failure
        }
    }

    /// Parses the command line and runs the command.
    public static func main() async {
        var command: Self
        do {
            command = try Self.parse()
        } catch {
            // Help and version go to standard output with status 0, as the parser does it.
            if exitCode(for: error).isSuccess { exit(withError: error) }
            FailureLine.write(program: program, "\(FailureLine.oneLine(message(for: error))); see \(program) --help")
            Self.exit(withError: exitCode(for: error))
        }
        do {
            try await command.run()
        } catch {
            exit(withError: error)
        }
    }
}

/// The one line that a failure to start comes to.
enum FailureLine {
    static func text(of error: any Error) -> String {
        let text = (error as? KVError)?.description ?? "\(error)"
        return oneLine(text)
    }

    static func oneLine(_ text: String) -> String {
        text.split(whereSeparator: \.isNewline).joined(separator: " ")
    }

    static func write(program: String, _ text: String) {
        let line = Array("\(program): \(text)\n".utf8)
        // Nothing is left to be done where even standard error cannot be written.
        _ = line.withUnsafeBytes { systemWrite(2, $0.baseAddress, $0.count) }
    }
}
