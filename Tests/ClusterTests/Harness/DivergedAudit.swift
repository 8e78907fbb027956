import Core
import DistribKVClient
import FoundationEssentials
import Sharding
import Testing
import Wire

/// The files of writes that replicas had and their shard's history has not, held against the ledger.
struct DivergedAudit {
    private(set) var files: [DivergedWrites] = []
    private var found: Set<Line> = []
    /// In the order of the files and their lines.
    private(set) var lines: [Line] = []

    struct Line: Hashable {
        var key: String
        /// nil for a removal.
        var value: [UInt8]?
        var version: Version
    }

    private struct Record: Decodable {
        var key: String?
        var keyBase64: String?
        var value: String?
        var valueBase64: String?
        var deleted: Bool?
        var version: String
    }

    /// Reads every file that the nodes report for `shard`.
    init(of shard: String, in cluster: TestCluster) async throws {
        for node in cluster.nodes.indices where cluster.process(TestCluster.nodeName(node))?.isRunning == true {
            for writes in try await cluster.status(of: shard, at: node)?.diverged ?? [] {
                files.append(writes)
                let lines = try text(ofFile: writes.file).split(separator: "\n").map(DivergedAudit.line)
                #expect(lines.count == writes.writes && writes.isComplete, "\(writes)")
                self.lines += lines
            }
        }
        found = Set(lines)
    }

    private static func line(_ text: Substring) throws -> Line {
        let record = try DocumentCoding.decode(Record.self, from: text.utf8)
        func bytes(_ text: String?, _ base64: String?) throws -> [UInt8]? {
            if let text { return Array(text.utf8) }
            return try base64.map { Array(try #require(Data(base64Encoded: $0), "\($0.prefix(80))")) }
        }
        let key = try #require(try bytes(record.key, record.keyBase64))
        let value = try bytes(record.value, record.valueBase64)
        #expect((value == nil) == (record.deleted ?? false), "\(text.prefix(200))")
        return Line(
            key: String(decoding: key, as: UTF8.self), value: value,
            version: try #require(Version(hexDigits: record.version)))
    }

    /// Nothing is in the files that was never sent, and every acknowledged write that was reported as lost is in them,
    /// or was not lost after all.
    func expectFits(
        _ ledger: Ledger, _ cluster: TestCluster, shard: String, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let attempts = ledger.attempts
        let strange = lines.filter { attempts[$0.key]?[$0.value] == nil }
        #expect(strange.isEmpty, "never sent: \(strange.prefix(3))", sourceLocation: sourceLocation)
        let topology = cluster.topology
        let leader = try #require(topology.shard(named: shard)).leader
        let losses = ledger.losses.filter { $0.shard == shard }
        var missing: [String] = []
        for (key, entry) in ledger.all where topology.shard(of: key).name == shard {
            for write in entry.history where losses.contains(where: { $0.covers(write) }) {
                guard let version = write.version else { continue }
                if found.contains(Line(key: key, value: write.value, version: version)) { continue }
                // One that is not saved was not lost: it is there, unless it was written over.
                guard write == entry.history.last, entry.uncertain == nil else { continue }
                let kept = try await HTTP.get(APIPath.key(key.utf8), from: cluster.direct(leader))
                if write.value == nil ? kept.status == 404 : kept.version == version { continue }
                missing.append("\(key) of version \(version.hexDigits)")
            }
        }
        #expect(missing.isEmpty, "\(missing.count): \(missing.prefix(5))", sourceLocation: sourceLocation)
    }
}
