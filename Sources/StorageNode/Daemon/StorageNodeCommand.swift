import ArgumentParser
import Configuration
import Core
import Logging
import Observability
import Sharding
import StorageNodeService

@main struct StorageNodeCommand: DaemonCommand {
    static let configuration = daemonConfiguration(
        "storage-node", abstract: "Holds the shard replicas that sharding.toml gives to its address and serves them.")

    @OptionGroup var options: CommonOptions
    @OptionGroup var storageOptions: StorageNodeOptions

    func serve() async throws {
        let settings = try options.settings(defaultPort: DefaultPort.storageNode)
        let storage = try storageOptions.settings(common: settings)
        let file = try ShardingFile.load(path: settings.configPath)
        LineLogHandler.bootstrap(program: Self.program, format: settings.logFormat, level: settings.logLevel)
        try await StorageNode.serve(
            StorageNodeConfiguration(
                topology: try file.topology(), address: storage.advertise, listen: settings.listen,
                dataDirectory: storage.dataDirectory, storage: file.storage, replication: file.replication,
                eventLoopThreads: settings.threads, logger: Logger(label: Self.program)))
    }
}
