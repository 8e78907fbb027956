public import Core
import FoundationEssentials

/// What the flags of a node's last start said, kept in its data directory so that the next start needs none of them.
public struct NodeRecord: Codable, Sendable, Hashable {
    /// The node's identity in the topology.
    public var advertise: NodeAddress
    public var listen: NodeAddress
    /// Whether `--insecure` has allowed ``listen``.
    public var insecure: Bool
    /// sharding.toml, as an absolute path; ``standardConfig`` for the one in the working directory, nil where the
    /// node has none.
    public var config: String?

    public static let standardConfig = "sharding.toml"

    public init(advertise: NodeAddress, listen: NodeAddress, insecure: Bool, config: String?) {
        self.advertise = advertise
        self.listen = listen
        self.insecure = insecure
        self.config = config
    }
}

/// The file of a ``NodeRecord``: `node.json` in the data directory.
public struct PersistedNode: Sendable {
    public static let fileName = "node.json"
    static let fileBytesMax = 64 << 10

    public let path: String

    /// - Parameter directory: need not exist to ``load()``.
    public init(directory: String) { self.path = "\(directory)/\(PersistedNode.fileName)" }

    /// The record saved last; nil where the node has never started.
    ///
    /// Blocks on the disk. Throws `KVError(.storageFailed)` where the file cannot be read, `.corrupted` where it is no
    /// record.
    public func load() throws -> NodeRecord? {
        let bytes: [UInt8]
        do {
            bytes = try LocalFile.read(path: path, bytesMax: PersistedNode.fileBytesMax)
        } catch {
            if error.isMissingFile { return nil }
            throw KVError(.storageFailed, "\(path): \(error.reason)")
        }
        do {
            return try JSONDecoder().decode(NodeRecord.self, from: Data(bytes))
        } catch {
            throw KVError(
                .corrupted,
                "\(path): not the record of a node; remove it, and start once more with --listen and --config")
        }
    }

    /// Saves `record`, atomically and durably, where it is not what the file says already.
    ///
    /// Blocks on the disk; for the process that holds the data directory. Throws `KVError(.storageFailed)`.
    public func save(_ record: NodeRecord) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
        let document = Array(try encoder.encode(record)) + [UInt8(ascii: "\n")]
        // A file that cannot be read is replaced as well.
        if let known = try? LocalFile.read(path: path, bytesMax: PersistedNode.fileBytesMax), known == document {
            return
        }
        do {
            try LocalFile.replace(path: path, with: document)
        } catch {
            throw KVError(.storageFailed, "\(path): \(error.reason)")
        }
    }
}
