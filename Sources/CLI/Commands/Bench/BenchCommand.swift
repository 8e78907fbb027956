import ArgumentParser

/// Measures a cluster.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measures a cluster, and compares what was measured.",
        subcommands: [BenchCompareCommand.self])
}
