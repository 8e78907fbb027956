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
        let settings = try storageOptions.settings(common: options)
        let file = try settings.loadConfig()
        let common = settings.common
        LineLogHandler.bootstrap(program: Self.program, format: common.logFormat, level: common.logLevel)
        var configuration = StorageNodeConfiguration(
            topology: try file?.topology(), address: settings.advertise, listen: common.listen,
            dataDirectory: settings.dataDirectory, eventLoopThreads: common.threads,
            logger: Logger(label: Self.program))
        if let file {
            configuration.storage = file.storage
            configuration.replication = file.replication
        }
        configuration.join = settings.join
        configuration.record = settings.record
        configuration.dropsDamagedLogOf = settings.dropsDamagedLogOf
        try await StorageNode.serve(configuration)
    }
}
