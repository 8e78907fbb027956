import Core
import Sharding

extension ShardingFile {
    /// A larger file is refused: it is not a sharding.toml.
    static let fileBytesMax = 4 << 20

    /// Reads and checks the file at `path`. Blocks on the disk: call it at start, not on an event loop.
    ///
    /// Throws `KVError(.invalidConfiguration)` with one line that says file, line, key, what is wrong and what is
    /// allowed.
    public static func load(path: String) throws -> ShardingFile {
        do {
            return try read(path: path)
        } catch let error as FileError {
            throw unreadable(path, error)
        }
    }

    /// As ``load(path:)``; nil where there is no such file.
    public static func loadIfThere(path: String) throws -> ShardingFile? {
        do {
            return try read(path: path)
        } catch let error as FileError {
            if error.isMissingFile { return nil }
            throw unreadable(path, error)
        }
    }

    private static func unreadable(_ path: String, _ error: FileError) -> KVError {
        KVError(.invalidConfiguration, "\(path): \(error.reason); name a readable sharding.toml with --config")
    }

    /// Throws `FileError` where the file cannot be read.
    private static func read(path: String) throws -> ShardingFile {
        let bytes = try LocalFile.read(path: path, bytesMax: fileBytesMax)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw KVError(.invalidConfiguration, "\(path):\(lineOfInvalidUTF8(bytes)): not valid TOML: not UTF-8 text")
        }
        return try ShardingFile(toml: text, file: path)
    }

    /// Checks a document.
    /// - Parameter file: the name that error messages carry.
    public init(toml text: String, file: String = "sharding.toml") throws {
        let members = try TOMLItem.parse(text, file: file)
        let diagnostics = Diagnostics(file: file, lines: SourceLines(text))
        var reader = ShardingFileReader(diagnostics: diagnostics)
        let contents = reader.read(members)
        try diagnostics.throwFirst()
        self = contents
    }

    /// Every key there is, for the check of the documentation.
    static func reference() throws -> [SettingReference] {
        let text = "[[shards]]\nname = \"a\"\nidx = 0\naddress = \"127.0.0.1:1\""
        var reader = ShardingFileReader(diagnostics: Diagnostics(file: "", lines: SourceLines(text)))
        _ = reader.read(try TOMLItem.parse(text, file: ""))
        return reader.settings
    }

    private static func lineOfInvalidUTF8(_ bytes: [UInt8]) -> Int {
        var line = 1
        for part in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            if String(validating: part, as: UTF8.self) == nil { return line }
            line += 1
        }
        return line
    }
}

/// Turns a parsed document into a ``ShardingFile``; what is wrong goes to `diagnostics`.
private struct ShardingFileReader {
    let diagnostics: Diagnostics
    var settings: [SettingReference] = []

    init(diagnostics: Diagnostics) { self.diagnostics = diagnostics }

    mutating func read(_ members: [String: TOMLItem]) -> ShardingFile {
        var root = TableReader(path: .root, members: members, diagnostics: diagnostics)
        let shards = readShards(root.item("shards", allowed: "one [[shards]] table for every shard"))
        var name = "distribkv"
        var epoch = 1
        readTable("cluster", of: &root) { table in
            name = table.name("name", default: name) ?? name
            epoch = table.integer("epoch", default: epoch, in: 1...Int.max) ?? epoch
        }
        var file = ShardingFile(
            file: diagnostics.file, cluster: name, epoch: UInt64(epoch), shards: shards, storage: StorageSettings(),
            replication: ReplicationSettings(), router: RouterSettings())
        readTable("storage", of: &root) { $0.read(into: &file.storage) }
        readTable("replication", of: &root) { $0.read(into: &file.replication) }
        readTable("router", of: &root) { $0.read(into: &file.router) }
        root.finish(noun: "table or key")
        settings += root.settings
        return file
    }

    /// Reads a table that may be left out: then every key has its default.
    private mutating func readTable(_ key: String, of root: inout TableReader, _ read: (inout TableReader) -> Void) {
        let path = SettingPath.root.appending(key)
        var members: [String: TOMLItem] = [:]
        switch root.item(key, allowed: "a table") {
        case .table(let found): members = found
        case .some(let other):
            diagnostics.complain(path, "\(other.kind) is not allowed; write it as the table [\(key)]")
        case nil: break
        }
        var table = TableReader(path: path, members: members, diagnostics: diagnostics)
        read(&table)
        table.finish()
        settings += table.settings
    }

    private mutating func readShards(_ item: TOMLItem?) -> [ShardPlacement] {
        let path = SettingPath.root.appending("shards")
        let items: [TOMLItem]
        switch item {
        case .array(let found) where !found.isEmpty: items = found
        case .array, nil:
            diagnostics.complain(
                path, "there is no shard; write a [[shards]] table with name, idx, address and replicas for each")
            return []
        case .some(let other):
            diagnostics.complain(path, "\(other.kind) is not allowed; write every shard as a table [[shards]]")
            return []
        }
        guard items.count <= ConsistentHashRing.shardsMax else {
            diagnostics.complain(path, "\(items.count) shards; allowed: at most \(ConsistentHashRing.shardsMax)")
            return []
        }
        let shards = items.enumerated().map { position, item in
            readShard(item, at: path.appending(position), count: items.count)
        }
        if diagnostics.isEmpty { checkTogether(shards.compactMap(\.self), at: path) }
        return shards.compactMap(\.self).sorted { $0.index < $1.index }
    }

    private mutating func readShard(_ item: TOMLItem, at path: SettingPath, count: Int) -> ShardPlacement? {
        guard case .table(let members) = item else {
            diagnostics.complain(path, "\(item.kind) is not allowed; write every shard as a table [[shards]]")
            return nil
        }
        var table = TableReader(path: path, members: members, diagnostics: diagnostics)
        let name = table.name("name", default: nil)
        let index = table.integer("idx", default: nil, in: 0...(count - 1))
        let leader = table.address("address")
        let followers = table.addresses("replicas")
        table.finish()
        settings += table.settings
        guard let name, let index, let leader else { return nil }
        return ShardPlacement(name: name, index: index, leader: leader, followers: followers)
    }

    /// What no shard can tell alone. `shards` are in the order of the file.
    private func checkTogether(_ shards: [ShardPlacement], at path: SettingPath) {
        var names: [String: Int] = [:]
        var indexes: [Int: Int] = [:]
        for (position, shard) in shards.enumerated() {
            let here = path.appending(position)
            func earlier(_ position: Int, _ key: String) -> String {
                let other = path.appending(position).appending(key)
                return diagnostics.line(of: other).map { "\(other) on line \($0)" } ?? "\(other)"
            }
            if let other = names.updateValue(position, forKey: shard.name) {
                diagnostics.complain(
                    here.appending("name"),
                    "\(SettingText.quote(shard.name)) is also \(earlier(other, "name")); every shard needs a name of its own"
                )
            }
            if let other = indexes.updateValue(position, forKey: shard.index) {
                diagnostics.complain(
                    here.appending("idx"),
                    "\(shard.index) is also \(earlier(other, "idx")); allowed: 0 to \(shards.count - 1), each once")
            }
            let replicas = 1 + shard.followers.count
            if replicas > ShardTopology.replicasMax {
                diagnostics.complain(
                    here.appending("replicas"),
                    "\(replicas) replicas with the one at address; allowed: at most \(ShardTopology.replicasMax)")
            }
            var addresses: Set<NodeAddress> = [shard.leader]
            for (index, follower) in shard.followers.enumerated() where !addresses.insert(follower).inserted {
                diagnostics.complain(
                    here.appending("replicas").appending(index),
                    "\(follower) stands twice in this shard; a node holds at most one replica of a shard")
            }
        }
    }
}

extension TableReader {
    fileprivate mutating func name(_ key: String, default fallback: String?) -> String? {
        let allowed = "1 to \(ShardingFile.nameCharactersMax) of the characters A–Z a–z 0–9 . _ -, not only dots"
        return string(key, default: fallback, allowed: allowed) { name in
            // A shard's name is a path segment of the API and the name of a directory: "." and ".." would escape.
            (1...ShardingFile.nameCharactersMax).contains(name.utf8.count) && name.contains { $0 != "." }
                && name.utf8.allSatisfy { SourceLines.isBareKeyByte($0) || $0 == UInt8(ascii: ".") }
        }
    }

    fileprivate mutating func read(into storage: inout StorageSettings) {
        storage.durability = choice("durability", default: storage.durability)
        storage.blockCacheBytes = bytes("block_cache_bytes", default: storage.blockCacheBytes, in: 1 << 20...1 << 40)
        storage.writeBufferBytes = bytes("write_buffer_bytes", default: storage.writeBufferBytes, in: 1 << 20...1 << 36)
        // A value must fit a log frame together with the batch around it.
        storage.valueBytesMax = bytes("value_bytes_max", default: storage.valueBytesMax, in: 1...32 << 20)
        storage.readerThreads =
            integer("reader_threads", default: storage.readerThreads, in: 1...256) ?? storage.readerThreads
        storage.readerQueueMax =
            integer("reader_queue_max", default: storage.readerQueueMax, in: 1...65_536) ?? storage.readerQueueMax
        storage.scrubBytesPerSecond = bytesOrAuto("scrub_bytes_per_second", in: 0...1 << 40)
    }

    fileprivate mutating func read(into replication: inout ReplicationSettings) {
        replication.logRetentionBytes = bytes(
            "log_retention_bytes", default: replication.logRetentionBytes, in: 1 << 20...1 << 44)
        // The replicator holds twice this for every follower that catches up, within 16 MiB for all of them.
        replication.batchBytesMax = bytes("batch_bytes_max", default: replication.batchBytesMax, in: 1 << 16...8 << 20)
        replication.inFlightBytesMax = bytes(
            "in_flight_bytes_max", default: replication.inFlightBytesMax, in: 1 << 16...64 << 20)
        if replication.inFlightBytesMax < replication.batchBytesMax {
            diagnostics.complain(
                path.appending("in_flight_bytes_max"),
                "\(ByteSize.describe(replication.inFlightBytesMax)) is less than batch_bytes_max; "
                    + "allowed: at least \(ByteSize.describe(replication.batchBytesMax))")
        }
        let snapshotRate = bytes("snapshot_bytes_per_second", default: 0, in: 0...1 << 40)
        replication.snapshotBytesPerSecondMax = snapshotRate == 0 ? nil : snapshotRate
        replication.defaultAck = ackLevel("default_ack", default: replication.defaultAck)
    }

    fileprivate mutating func ackLevel(_ key: String, default fallback: AckLevel) -> AckLevel {
        let text = string(
            key, default: fallback.description,
            allowed: "\"leader\", \"quorum\", \"all\" or a number of replicas as \"2\""
        ) { AckLevel($0) != nil }
        return text.flatMap { AckLevel($0) } ?? fallback
    }

    fileprivate mutating func read(into router: inout RouterSettings) {
        router.mode = choice("mode", default: router.mode)
        router.healthIntervalMilliseconds =
            integer("health_interval_ms", default: router.healthIntervalMilliseconds, in: 100...60_000)
            ?? router.healthIntervalMilliseconds
    }
}
