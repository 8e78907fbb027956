import Core
import Sharding

/// The `etag` of a topology: two that differ in anything differ in it, also where they are of one epoch.
enum TopologyTag {
    static func field(of topology: Topology) -> String {
        let bytes = (try? topology.json()) ?? []  // Encodes always: it was decoded, or checked when it was made.
        return field(epoch: topology.epoch, document: bytes)
    }

    static func field(epoch: UInt64, document: [UInt8]) -> String {
        "\"\(epoch)-\(String(document.withUnsafeBytes { CRC32C.checksum($0) }, radix: 16))\""
    }
}
