import Configuration
import Core
import NIOCore
import NIOHTTP1
import Sharding
import StorageNodeService
import Wire

/// `sharding.toml`.
struct TOMLTarget: FuzzTarget {
    let words = [
        "[[shards]]\n", "[cluster]\n", "[storage]\n", "[replication]\n", "[router]\n", "name = ", "idx = ",
        "address = ", "replicas = ",
        "epoch = ", "durability = \"os\"\n", "mode = \"proxy\"\n", "\"127.0.0.1:7001\"", "\"[::1]:1\"", "[", "]", "{",
        "}", "{a={a={a=", "=", "\"",
        "'", "\"\"\"", "'''", "\\u0000", "\\U0010ffff", "#", "\n", "\r\n", ".", ",", "true", "nan", "-inf", "0x1",
        "0o7", "0b1", "1e9", "1_000",
        "1979-05-27T07:32:00Z", "\"1MiB\"", "9223372036854775808", "\u{feff}",
    ]

    let seeds: [[UInt8]] = [
        "[[shards]]\nname = \"shard-0\"\nidx = 0\naddress = \"127.0.0.1:7001\"\nreplicas = [\"127.0.0.1:7002\"]\n",
        """
        [cluster]
        name = "demo"
        epoch = 3
        [storage]
        durability = "interval"
        block_cache_bytes = "64MiB"
        value_bytes_max = 1048576
        reader_threads = 2
        [replication]
        default_ack = "quorum"
        [router]
        mode = "proxy"
        [[shards]]
        name = "a"
        idx = 0
        address = "127.0.0.1:7001"
        [[shards]]
        name = "b"
        idx = 1
        address = "[::1]:7002"
        replicas = ["127.0.0.1:7001", "node.example:7003"]
        """,
        "shards = [{name = 'a', idx = 0, address = '127.0.0.1:1'}]", "[[shards]]\nname = \"a", "a.b.c = 1\n",
    ].map { Array($0.utf8) }

    func run(_ input: [UInt8]) throws {
        // Files that are no text are refused before.
        guard let text = String(validating: input, as: UTF8.self) else { return }
        let file: ShardingFile
        do {
            file = try ShardingFile(toml: text)
        } catch let error as KVError {
            return try expectClear(error.description)
        }
        try expect(try ShardingFile(toml: text) == file, "it is read in two ways")
        let topology = try file.topology()
        try expect(topology.shards.count == file.shards.count, "the topology lacks a shard")
        let again = try Topology(json: try topology.json())
        try expect(again == topology, "its topology does not come back from JSON")
    }
}

/// The documents that nodes, routers and replicators send each other.
struct DocumentTarget: FuzzTarget {
    let words = [
        "{", "}", "[", "]", ":", ",", "\"", "null", "true", "-1", "1.5", "1e30", "18446744073709551615",
        "9223372036854775808", "\"\"",
        "\"0000000000000000\"", "\"ffffffffffffffff\"", "\"127.0.0.1:1\"", "\"terms\":", "\"first_lsn\":0",
        "\"bytes\":", "127.0.0.1:1 1 1 ", "\n",
    ]

    private static let position = PositionDocument(
        shard: "shard-0", role: .leader, position: LogPosition(term: 3, lsn: 9, version: Version(rawValue: 1 << 40)))
    private static let terms = [
        TermStart(term: 1, firstLsn: 1, previousVersion: .zero),
        TermStart(term: 3, firstLsn: 5, previousVersion: Version(rawValue: 1 << 39)),
    ]

    let seeds: [[UInt8]] = {
        let address = NodeAddress(host: "127.0.0.1", port: 7_001)
        let end = LogPosition(term: 3, lsn: 9, version: Version(rawValue: 1 << 40))
        let documents: [any Encodable] = [
            position, FenceRequest(term: 4, candidate: address), MembershipRequest(node: address),
            HandoverRequest(to: address),
            PromoteRequest(epoch: 7, force: true), DigestRequest(lsn: 3, boundaries: ["", "YQ=="]),
            DigestDocument(position: position, ranges: [.init(start: "", keys: 3, crc32c: "00000000")]),
            SnapshotReceipt(id: "s-1", files: [.init(name: "CURRENT", received: 4)]),
            SnapshotManifest(
                shard: "shard-0", id: "s-1", leaderTerm: 3, position: position, terms: terms.map(TermDocument.init),
                files: [
                    .init(name: "CURRENT", bytes: 16, crc32c: "00000000"),
                    .init(name: "1.sst", bytes: 1 << 62, crc32c: "ffffffff"),
                ]),
            HistoryDocument(
                position: position, history: TermHistory(starts: terms, end: end), newestTerm: 3, promisedTo: address,
                leaderLastSeen: .init(lsn: 9, millisecondsAgo: 3)),
        ]
        let acks = AckReport(acks: [.init(follower: address, position: end)]).encoded()
        // What cannot be encoded would be missing from the seeds alone.
        return documents.compactMap { try? DocumentCoding.encode($0) } + [Array(acks.readableBytesView)]
    }()

    func run(_ input: [UInt8]) throws {
        let ownHistory = TermHistory(starts: DocumentTarget.terms, end: try DocumentTarget.position.position)
        _ = try read(PositionDocument.self, input) { _ = try $0.position }
        _ = try read(FenceRequest.self, input) { _ in }
        _ = try read(MembershipRequest.self, input) { _ in }
        _ = try read(HandoverRequest.self, input) { _ in }
        _ = try read(PromoteRequest.self, input) { _ in }
        _ = try read(DigestRequest.self, input) { _ in }
        _ = try read(DigestDocument.self, input) { _ in }
        _ = try read(SnapshotReceipt.self, input) { _ in }
        _ = try read(SnapshotManifest.self, input) { manifest in
            _ = manifest.bytesTotal
            _ = try manifest.history.common(with: ownHistory)
        }
        _ = try read(HistoryDocument.self, input) { document in
            let history = try document.history
            _ = (history.common(with: ownHistory), ownHistory.common(with: history), history.surplus(over: ownHistory))
            _ = ownHistory.surplus(over: history)
        }
        do throws(KVError) {
            let report = try AckReport(decoding: ByteBuffer(bytes: input))
            guard try AckReport(decoding: report.encoded()) == report else {
                throw KVError(.internalError, "acks do not come back")
            }
        } catch {
            guard error.code == .invalidData else { throw FuzzDefect(error.message) }
            try expectClear(error.message)
        }
    }

    /// Reads, uses and writes a document; `use` may refuse what it holds.
    private func read<Document: Codable & Equatable>(
        _ type: Document.Type, _ input: [UInt8], _ use: (Document) throws -> Void
    ) throws -> Document? {
        let document: Document
        do { document = try DocumentCoding.decode(type, from: input) } catch let error as KVError {
            try expectClear(error.message)
            return nil
        }
        do { try use(document) } catch let error as KVError { try expectClear(error.message) }
        let again = try DocumentCoding.decode(type, from: try DocumentCoding.encode(document))
        try expect(again == document, "\(document) comes back as \(again)")
        return document
    }
}

/// Topologies, which travel from process to process.
struct TopologyTarget: FuzzTarget {
    let words = [
        "{", "}", "[", "]", ":", ",", "\"", "null", "-1", "0", "16383", "16384", "65535", "65536",
        "18446744073709551615", "\"127.0.0.1:1\"",
        "\"first\":", "\"last\":", "\"slots\":", "\"shards\":", "\"term\":", "\"index\":",
    ]

    let seeds: [[UInt8]] = {
        let placements = (0..<3).map { index in
            ShardPlacement(
                name: "shard-\(index)", index: index, leader: NodeAddress(host: "127.0.0.1", port: 7_000 + index),
                followers: [NodeAddress(host: "::1", port: 7_010 + index)])
        }
        let topologies = (1...3).compactMap {
            try? Topology.placing(cluster: "demo", epoch: 5, shards: Array(placements.prefix($0)))
        }
        return topologies.compactMap { try? $0.json() } + [Array("{}".utf8)]
    }()

    func run(_ input: [UInt8]) throws {
        let topology: Topology
        do { topology = try Topology(json: input) } catch let error as KVError { return try expectClear(error.message) }
        try expect(try Topology(json: try topology.json()) == topology, "it does not come back")
        for slot in [0, 1, 8_191, HashSlot.count - 1] {
            let position = topology.position(of: HashSlot(rawValue: UInt16(slot)))
            try expect(topology.shards.indices.contains(position), "slot \(slot) is nobody's")
        }
        let node = NodeAddress(host: "127.0.0.1", port: 9)
        for shard in topology.shards.prefix(3) {
            do {
                guard let changed = try topology.adding(node, to: shard.name) else { continue }
                try expect(try changed.supersedes(topology), "a change does not supersede")
                try expect(try Topology(json: try changed.json()) == changed, "a change does not come back")
            } catch let error as KVError {
                try expectClear(error.message)
            }
        }
    }
}

/// `If-Match` and `If-None-Match`.
struct ConditionTarget: FuzzTarget {
    let words = [
        "*", "\"", "W/", ",", " ", "\t", "01a20d6f120e0000", "\"01a20d6f120e0000\"", "\n", "if-match: ",
        "if-none-match: ",
    ]

    let seeds: [[UInt8]] = [
        "if-match: *", "if-none-match: *", "if-match: \"01a20d6f120e0000\"",
        "if-none-match: \"01a20d6f120e0000\", W/\"01a20d6f120e0001\"\nif-match: \"x\"",
    ].map { Array($0.utf8) }

    func run(_ input: [UInt8]) throws {
        var headers = HTTPHeaders()
        for line in input.split(separator: 10) {
            let isNone = line.starts(with: "if-none-match: ".utf8)
            headers.add(
                name: isNone ? "If-None-Match" : "If-Match",
                value: String(decoding: line.drop { $0 != 32 }, as: UTF8.self))
        }
        do throws(Problem) {
            let condition = try WriteCondition(headers)
            guard (condition == nil) == headers.isEmpty else { throw Problem(.internalError, "a condition is ignored") }
            guard try WriteCondition(headers) == condition else { throw Problem(.internalError, "read in two ways") }
        } catch {
            guard error.kind == .badRequest else { throw FuzzDefect(error.detail) }
            try expectClear(error.detail)
        }
    }
}
