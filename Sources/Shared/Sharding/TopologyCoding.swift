import Core
import FoundationEssentials

extension SlotRange: Codable {
    public init(from decoder: any Decoder) throws {
        var container = try decoder.unkeyedContainer()
        let first = try container.decode(UInt16.self)
        let last = try container.decode(UInt16.self)
        guard first <= last, Int(last) < HashSlot.count else {
            throw KVError(.invalidData, "[\(first), \(last)] is not a range of slots: first ≤ last < \(HashSlot.count)")
        }
        self.init(first: HashSlot(rawValue: first), last: HashSlot(rawValue: last))
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.unkeyedContainer()
        try container.encode(first.rawValue)
        try container.encode(last.rawValue)
    }
}

extension Topology: Codable {
    enum CodingKeys: String, CodingKey { case cluster, epoch, shards }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        try self.init(
            cluster: container.decode(String.self, forKey: .cluster),
            epoch: container.decode(UInt64.self, forKey: .epoch),
            shards: container.decode([ShardTopology].self, forKey: .shards))
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(cluster, forKey: .cluster)
        try container.encode(epoch, forKey: .epoch)
        try container.encode(shards, forKey: .shards)
    }

    /// The document of `GET /topology`.
    public func json() throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(self))
    }

    /// Throws `KVError(.invalidData)` where the bytes are no topology document or break an invariant.
    public init(json: some Sequence<UInt8>) throws {
        do {
            self = try JSONDecoder().decode(Topology.self, from: Data(json))
        } catch let error as KVError {
            throw error
        } catch {
            throw KVError(.invalidData, "not a topology document", cause: error)
        }
    }
}
