import Core
import DistribKVClient
import LSM
import NIOCore
import Sharding
import Testing
import Wire

/// A leader's log, read as a replicator reads it and held against the ledger: what a client sent once is in it once.
struct LogAudit {
    private var versions: [String: [[UInt8]?: Int]] = [:]
    private var acknowledged: Set<Seen> = []
    private(set) var batches = 0
    private(set) var terms: [UInt64] = []

    private struct Seen: Hashable {
        let key: String
        let version: Version
    }

    /// That of a leader which was rebuilt from a snapshot begins later.
    struct NotWhole: Error {}

    /// Reads the whole log of `shard`; nobody may be writing.
    ///
    /// Throws ``NotWhole`` where it does not reach back to its start.
    init(of shard: String, at leader: NodeAddress) async throws {
        var position = LogPosition(term: 0, lsn: 0, version: .zero)
        while true {
            let target =
                "\(APIPath.wal(shard: shard))?term=\(position.term)&lsn=\(position.lsn)"
                + "&version=\(position.version.hexDigits)&wait=0&max_bytes=4194304"
            let response = try await HTTP.get(target, from: leader)
            if response.status == 204 { return }
            guard response.problem != "log-truncated" else { throw NotWhole() }
            guard response.status == 200 else { throw UnexpectedAnswer(target, response) }
            var frames = response.body
            while let frame = try LogFrame.decode(from: &frames) {
                guard frame.position.lsn == position.lsn + 1 else {
                    throw KVError(.corrupted, "\(frame.position) follows \(position)")
                }
                position = frame.position
                try note(frame)
            }
        }
    }

    private mutating func note(_ frame: LogFrame) throws {
        batches += 1
        if terms.last != frame.position.term { terms.append(frame.position.term) }
        try frame.batch.withUnsafeReadableBytes { bytes in
            var reader = try WriteBatchReader(bytes)
            while let record = try reader.next() {
                guard record.key[0] == KeySpace.user else { continue }
                let key = String(decoding: record.key.dropFirst(), as: UTF8.self)
                guard let stored = record.value else {
                    versions[key, default: [:]][nil, default: 0] += 1
                    continue
                }
                guard let value = StoredValue(decoding: stored) else {
                    throw KVError(.corrupted, "\(key) at \(frame.position) is no stored value")
                }
                versions[key, default: [:]][Array(value.bytes), default: 0] += 1
                acknowledged.insert(Seen(key: key, version: value.version))
            }
        }
    }

    /// Nothing was written more often than it was sent, nothing that was never sent, and every acknowledged value that
    /// is not reported as lost is there with its version.
    func expectFits(
        _ ledger: Ledger, _ cluster: TestCluster, shard: String, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let attempts = ledger.attempts
        var wrong: [String] = []
        for (key, values) in versions {
            for (value, count) in values where count > attempts[key]?[value] ?? 0 {
                wrong.append(
                    "\(key): \(value?.count ?? -1) bytes stand \(count) times in the log and were sent "
                        + "\(attempts[key]?[value] ?? 0) times")
            }
        }
        let losses = ledger.losses.filter { $0.shard == shard }
        for (key, entry) in ledger.all where cluster.topology.shard(of: key).name == shard {
            for write in entry.history where write.value != nil && !losses.contains(where: { $0.covers(write) }) {
                guard let version = write.version, !acknowledged.contains(Seen(key: key, version: version)) else {
                    continue
                }
                wrong.append("\(key): version \(version.hexDigits) was acknowledged and is not in the log")
            }
        }
        #expect(wrong.isEmpty, "\(wrong.count): \(wrong.prefix(5))", sourceLocation: sourceLocation)
    }
}
