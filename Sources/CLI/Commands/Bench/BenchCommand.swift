import ArgumentParser

/// Measures a cluster.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measures a cluster under load, and compares what was measured.",
        discussion: """
            EXAMPLES
              kv bench --workload c --records 1000000 --connections 32 --duration 10s
              kv bench --workload a --rate 20000 --json out.json
              kv bench compare before.json after.json
              kv bench failover shard-0
              kv bench run --help
            """,
        subcommands: [
            BenchRunCommand.self, BenchCompareCommand.self, BenchReplicationCommand.self, BenchFailoverCommand.self,
        ],
        defaultSubcommand: BenchRunCommand.self)
}
