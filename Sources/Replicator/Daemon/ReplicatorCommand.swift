import ArgumentParser
import Configuration
import Core
import Logging
import Observability
import ReplicatorService
import Sharding

@main struct ReplicatorCommand: DaemonCommand {
    static let configuration = daemonConfiguration(
        "replicator", abstract: "Carries every write from its shard's leader to the followers.")

    @OptionGroup var options: CommonOptions

    func serve() async throws {
        let settings = try options.settings(defaultPort: DefaultPort.replicator)
        let file = try ShardingFile.load(path: settings.configPath)
        LineLogHandler.bootstrap(program: Self.program, format: settings.logFormat, level: settings.logLevel)
        var configuration = ReplicatorConfiguration(
            topology: try file.topology(), listen: settings.listen, version: BuildInformation.version,
            logger: Logger(label: Self.program))
        configuration.limits.batchBytesMax = file.replication.batchBytesMax
        configuration.limits.inFlightBytesMax = file.replication.inFlightBytesMax
        configuration.limits.snapshotBytesPerSecondMax = file.replication.snapshotBytesPerSecondMax
        try await Replicator.serve(configuration)
    }
}
