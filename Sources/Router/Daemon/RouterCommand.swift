import ArgumentParser
import Configuration
import Core
import Logging
import NIOCore
import Observability
import RouterService
import Sharding

@main struct RouterCommand: DaemonCommand {
    static let configuration = daemonConfiguration(
        "router", abstract: "Tells each client which node serves a key, or asks that node itself.")

    @OptionGroup var options: CommonOptions

    func serve() async throws {
        let settings = try options.settings(defaultPort: DefaultPort.router)
        let file = try ShardingFile.load(path: settings.configPath)
        LineLogHandler.bootstrap(program: Self.program, format: settings.logFormat, level: settings.logLevel)
        var configuration = RouterConfiguration(
            topology: try file.topology(), listen: settings.listen, logger: Logger(label: Self.program))
        configuration.mode = file.router.mode
        configuration.healthInterval = .milliseconds(Int64(file.router.healthIntervalMilliseconds))
        configuration.valueBytesMax = file.storage.valueBytesMax
        configuration.defaultAck = file.replication.defaultAck
        configuration.threads = settings.threads
        try await Router.serve(configuration)
    }
}
