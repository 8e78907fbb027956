public import ArgumentParser
public import Core
import FoundationEssentials

/// The flags that only a storage node has.
public struct StorageNodeOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Directory of this node's databases; created where it is missing.", valueName: "directory"))
    public var dataDir: String?

    @Option(
        help: ArgumentHelp(
            "This node's address in the topology, where it differs from --listen.", valueName: "host:port"))
    public var advertise: String?

    @Option(
        help: ArgumentHelp(
            """
            Router or node of a running cluster: the node asks there to be made one more replica of --shard. No \
            sharding.toml is needed.
            """, valueName: "url"))
    public var join: String?

    @Option(
        help: ArgumentHelp(
            "Shard of which --join makes this node a replica; may be given several times.", valueName: "name"))
    public var shard: [String] = []

    @Option(
        help: ArgumentHelp(
            """
            Opens this node's replica of that shard although its write-ahead log is damaged, without what is behind the \
            damage: for a shard that has no other replica. What is cut off is kept. May be given several times, or several with commas.
            """, valueName: "shard"))
    public var dropDamagedLog: [String] = []

    public init() {}

    /// All flags' values, checked. What is not given comes from the record of the data directory's last start.
    ///
    /// Blocks on the disk. Throws `KVError` with one line: `.invalidArgument` for a flag or variable,
    /// `.storageFailed`, `.corrupted` for the record.
    public func settings(common: CommonOptions, reader: OptionReader = .process) throws -> StorageNodeSettings {
        guard let directory = reader.string("--data-dir", dataDir) else {
            throw KVError(
                .invalidArgument, "--data-dir is missing; name the directory that is to hold this node's data")
        }
        let saved = try PersistedNode(directory: directory).load()
        let settings = try common.settings(defaultPort: DefaultPort.storageNode, saved: saved, reader: reader)
        let advertised = try reader.address("--advertise", advertise, allowsPortZero: false)
        let address: NodeAddress
        if let saved {
            try saved.check(advertise: advertised, listen: settings.listen, directory: directory)
            address = saved.advertise
        } else {
            address = advertised ?? settings.listen
        }
        let join = try joinSettings(address: address, reader: reader)
        var node = StorageNodeSettings(
            common: settings, dataDirectory: directory, advertise: address,
            config: try config(common, saved: saved, isJoining: join != nil, reader: reader), join: join)
        node.dropsDamagedLogOf = Set(reader.list("--drop-damaged-log", dropDamagedLog))
        return node
    }

    private func config(
        _ common: CommonOptions, saved: NodeRecord?, isJoining: Bool, reader: OptionReader
    ) throws -> StorageNodeSettings.Config {
        if let given = reader.string("--config", common.config) { return .required(given) }
        switch saved {
        case .some(let saved):
            guard let path = saved.config else { return .absent }
            return path == NodeRecord.standardConfig ? .optional(path) : .required(path)
        case nil: return isJoining ? .absent : .optional(NodeRecord.standardConfig)
        }
    }

    private func joinSettings(address: NodeAddress, reader: OptionReader) throws -> JoinSettings? {
        let shards = reader.list("--shard", shard)
        guard let seeds = try reader.seeds("--join", join) else {
            guard shards.isEmpty else {
                throw KVError(
                    .invalidArgument,
                    "--shard goes with --join: name a router or node of the cluster, as --join http://127.0.0.1:8080")
            }
            return nil
        }
        guard !shards.isEmpty else {
            throw KVError(
                .invalidArgument,
                "--join needs --shard: name the shard that is to have one more replica; kv status lists them")
        }
        guard !address.isUnspecific else {
            throw KVError(
                .invalidArgument,
                "other nodes cannot reach this one as \(address): say with --advertise host:port how they do")
        }
        return JoinSettings(seeds: seeds, shards: shards)
    }
}

extension NodeRecord {
    /// Refuses flags that would make a data directory's node another one.
    fileprivate func check(advertise given: NodeAddress?, listen: NodeAddress, directory: String) throws {
        if let given, given != advertise {
            throw KVError(
                .invalidArgument,
                "\(directory) belongs to node \(advertise), not \(given): leave --advertise away or name another "
                    + "--data-dir; if the topology names it \(given) now, remove "
                    + PersistedNode(directory: directory).path)
        }
        if given == nil, advertise == self.listen, listen != advertise {
            throw KVError(
                .invalidArgument,
                "\(directory) belongs to node \(advertise), which would not be reached on \(listen): leave --listen "
                    + "away or name another --data-dir; if \(advertise) leads to \(listen), say --advertise "
                    + "\(advertise)")
        }
    }
}

/// What ``StorageNodeOptions`` come to.
public struct StorageNodeSettings: Sendable, Hashable {
    /// Where sharding.toml is.
    public enum Config: Sendable, Hashable {
        /// There: anything else is an error.
        case required(String)
        /// There or not.
        case optional(String)
        case absent
    }

    public var common: CommonSettings
    public var dataDirectory: String
    /// The node's identity: the shard replicas with this address in the topology are its own.
    public var advertise: NodeAddress
    public var config: Config
    public var join: JoinSettings?
    public var dropsDamagedLogOf: Set<String> = []

    public init(
        common: CommonSettings, dataDirectory: String, advertise: NodeAddress, config: Config, join: JoinSettings?
    ) {
        self.common = common
        self.dataDirectory = dataDirectory
        self.advertise = advertise
        self.config = config
        self.join = join
    }

    /// Reads sharding.toml; nil where this node has none. Blocks on the disk.
    ///
    /// Throws as ``ShardingFile/load(path:)``.
    public func loadConfig() throws -> ShardingFile? {
        switch config {
        case .required(let path): try ShardingFile.load(path: path)
        case .optional(let path): try ShardingFile.loadIfThere(path: path)
        case .absent: nil
        }
    }

    /// What the next start needs to know.
    public var record: NodeRecord {
        let path: String? =
            switch config {
            case .required(let path): StorageNodeSettings.absolute(path)
            case .optional(let path): path
            case .absent: nil
            }
        return NodeRecord(advertise: advertise, listen: common.listen, insecure: common.insecure, config: path)
    }

    private static func absolute(_ path: String) -> String {
        path.hasPrefix("/") ? path : "\(FileManager.default.currentDirectoryPath)/\(path)"
    }
}

/// `--join` and `--shard`.
public struct JoinSettings: Sendable, Hashable {
    /// Routers or nodes of the cluster, tried in this order.
    public var seeds: [NodeAddress]
    /// The shards of which the node is to have a replica; at least one, each once.
    public var shards: [String]

    public init(seeds: [NodeAddress], shards: [String]) {
        self.seeds = seeds
        self.shards = shards
    }
}
