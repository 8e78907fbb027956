import Core
public import Sharding

/// The highest topology a node has seen, kept in a file of its data directory.
///
/// The file holds the JSON of `GET /topology`. All calls block on the disk and are for one caller at a time.
public struct PersistedTopology: Sendable {
    public static let fileName = "topology.json"
    static let fileBytesMax = 64 << 20

    public let path: String

    /// - Parameter directory: exists, and belongs to this process alone.
    public init(directory: String) { self.path = "\(directory)/\(PersistedTopology.fileName)" }

    /// The topology saved last; nil where none was saved yet.
    ///
    /// Throws `KVError(.corrupted)` where the file cannot be read as a topology: to start without it could bring
    /// back a leader that was replaced.
    public func load() throws -> Topology? {
        let bytes: [UInt8]
        do {
            bytes = try LocalFile.read(path: path, bytesMax: PersistedTopology.fileBytesMax)
        } catch {
            if error.isMissingFile { return nil }
            throw KVError(.storageFailed, "\(path): \(error.reason)")
        }
        do {
            return try Topology(json: bytes)
        } catch {
            throw KVError(.corrupted, "\(path): not a topology document; restore it from another node's", cause: error)
        }
    }

    /// Saves `topology`, atomically and durably. Throws `KVError(.storageFailed)`.
    public func save(_ topology: Topology) throws {
        let document = try topology.json()
        do {
            try LocalFile.replace(path: path, with: document)
        } catch {
            throw KVError(.storageFailed, "\(path): \(error.reason)")
        }
    }
}

/// Which topology a node starts with.
public struct TopologyChoice: Sendable, Hashable {
    public var topology: Topology
    /// It is not the one on disk and has to be saved.
    public var isNew: Bool
    /// Something an operator should read in the log; nil where all is as expected.
    public var note: String?

    /// Chooses between the topology of `sharding.toml` and the one that is known otherwise, from the data directory or
    /// the cluster: the higher epoch. Nil where there is neither.
    ///
    /// Throws `KVError(.invalidConfiguration)` where both have one epoch and differ, or belong to two clusters.
    public static func choose(file: Topology?, saved: Topology?) throws -> TopologyChoice? {
        if let file { return try resolve(file: file, saved: saved) }
        return saved.map { TopologyChoice(topology: $0, isNew: false, note: nil) }
    }

    /// As ``choose(file:saved:)``, where there is a `sharding.toml`.
    public static func resolve(file: Topology, saved: Topology?) throws -> TopologyChoice {
        guard let saved else { return TopologyChoice(topology: file, isNew: true, note: nil) }
        guard saved.cluster == file.cluster else {
            throw KVError(
                .invalidConfiguration,
                "[cluster] name is \"\(file.cluster)\", but the data directory belongs to cluster "
                    + "\"\(saved.cluster)\"; use that cluster's sharding.toml or another --data-dir")
        }
        if saved.epoch > file.epoch {
            return TopologyChoice(
                topology: saved, isNew: false,
                note: "using the saved topology of epoch \(saved.epoch): that of sharding.toml has epoch \(file.epoch)")
        }
        if saved.epoch < file.epoch {
            return TopologyChoice(
                topology: file, isNew: true,
                note:
                    "topology of epoch \(file.epoch) from sharding.toml replaces the saved one of epoch \(saved.epoch)")
        }
        guard saved == file else {
            throw KVError(
                .invalidConfiguration,
                "[[shards]] in sharding.toml changed but [cluster] epoch is still \(file.epoch); "
                    + "set epoch = \(file.epoch + 1) to apply the change, or undo it")
        }
        return TopologyChoice(topology: saved, isNew: false, note: nil)
    }
}
