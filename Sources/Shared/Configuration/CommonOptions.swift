public import ArgumentParser
public import Core
import FoundationEssentials
public import Logging
public import Observability

/// The flags that every daemon has; include it with `@OptionGroup`.
///
/// Values stay text until ``settings(defaultPort:reader:)``, because a flag that is not given may still come from
/// the environment.
public struct CommonOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Path of sharding.toml (default: sharding.toml).", valueName: "file"))
    public var config: String?

    @Option(
        help: ArgumentHelp(
            """
            Address to serve on; port 0 lets the system choose (default: 127.0.0.1 and the port \
            \(DefaultPort.storageNode) of a storage-node, \(DefaultPort.router) of a router, \
            \(DefaultPort.replicator) of a replicator).
            """, valueName: "host:port"))
    public var listen: String?

    @Option(help: ArgumentHelp("Log lines as text or json (default: text).", valueName: "format"))
    public var logFormat: String?

    @Option(
        help: ArgumentHelp(
            "Least severe level to log: trace, debug, info, notice, warning, error or critical (default: info).",
            valueName: "level"))
    public var logLevel: String?

    @Flag(help: "Allow --listen to be other than loopback although nothing authenticates clients.")
    public var insecure = false

    @Option(help: ArgumentHelp("Event loop threads (default: one for every two processors).", valueName: "count"))
    public var threads: String?

    public init() {}

    /// For `CommandConfiguration.discussion`.
    public static let discussion = """
        Every flag is also an environment variable, DISTRIBKV_ and its name: --log-format is DISTRIBKV_LOG_FORMAT. \
        A flag wins over its variable.
        """

    /// The flags' values, checked.
    ///
    /// Throws `KVError(.invalidArgument)` with one line that names the flag or variable; also where `listen` is not
    /// a loopback address and `--insecure` is not given.
    public func settings(defaultPort: Int, reader: OptionReader = .process) throws -> CommonSettings {
        try settings(defaultPort: defaultPort, saved: nil, reader: reader)
    }

    /// - Parameter saved: what is not given comes from there.
    func settings(defaultPort: Int, saved: NodeRecord?, reader: OptionReader) throws -> CommonSettings {
        let listen =
            try reader.address("--listen", listen, allowsPortZero: true)
            ?? saved?.listen ?? NodeAddress(host: "127.0.0.1", port: defaultPort)
        let wasAllowed = saved.map { $0.insecure && $0.listen == listen } ?? false
        let insecure = try reader.flag("--insecure", insecure) || wasAllowed
        guard listen.isLoopback || insecure else {
            throw KVError(
                .invalidArgument,
                "refusing to listen on \(listen): anyone who reaches it could read and write; "
                    + "use a loopback address such as 127.0.0.1:\(listen.port), or say --insecure")
        }
        return CommonSettings(
            configPath: reader.string("--config", config, default: NodeRecord.standardConfig), listen: listen,
            insecure: insecure,
            logFormat: try reader.choice("--log-format", logFormat, default: .text),
            logLevel: try reader.choice("--log-level", logLevel, default: .info),
            threads: try reader.integer("--threads", threads, in: 1...1_024)
                ?? max(1, ProcessInfo.processInfo.activeProcessorCount / 2))
    }
}

/// Where each role serves on 127.0.0.1 unless `--listen` says otherwise.
public enum DefaultPort {
    public static let storageNode = 7_001
    public static let router = 8_080
    public static let replicator = 9_090
}

/// What ``CommonOptions`` come to.
public struct CommonSettings: Sendable, Hashable {
    public var configPath: String
    public var listen: NodeAddress
    /// Whether `listen` may be other than loopback.
    public var insecure: Bool
    public var logFormat: LogFormat
    public var logLevel: Logger.Level
    /// Event loop threads.
    public var threads: Int

    public init(
        configPath: String, listen: NodeAddress, insecure: Bool = false, logFormat: LogFormat, logLevel: Logger.Level,
        threads: Int
    ) {
        self.configPath = configPath
        self.listen = listen
        self.insecure = insecure
        self.logFormat = logFormat
        self.logLevel = logLevel
        self.threads = threads
    }
}
