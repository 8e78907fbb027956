import Core
import DistribKVClient
import Sharding
import Synchronization
import Wire

/// What the cluster has acknowledged, as the writers saw it.
///
/// A key belongs to one writer, and after a write of unknown outcome it is written no more: so its content is either
/// what was acknowledged last or what that one write meant to leave. A change of leader that was reported to lose
/// writes may take the newest of them back.
final class Ledger: Sendable {
    struct Write: Sendable, Hashable {
        /// nil for a removal.
        var value: [UInt8]?
        /// nil where the outcome is not known and no version was told.
        var version: Version?
        /// What was asked for; nil where nothing was said.
        var ack: AckLevel?
        /// Of the node that answered.
        var epoch: UInt64?
    }

    struct Entry: Sendable {
        /// In the order in which they were acknowledged, which is that of their versions.
        var history: [Write] = []
        var uncertain: Write?

        var acknowledged: Write? { history.last }
    }

    /// What a forced change of leader was reported to leave out.
    struct Loss: Sendable, Hashable {
        let shard: String
        /// The epoch that the change made: nodes that answered with a lower one were led by the old leader.
        let epoch: UInt64
        /// Everything up to here is kept.
        let version: Version

        func covers(_ write: Write) -> Bool {
            write.ack != .all && (write.epoch ?? .max) < epoch && (write.version ?? .zero) > version
        }
    }

    private struct State {
        var entries: [String: Entry] = [:]
        /// Every value that was ever sent, as often as it was sent.
        var attempts: [String: [[UInt8]?: Int]] = [:]
        var losses: [Loss] = []
    }

    private let state = Mutex(State())
    private let counts = Atomic<Int>(0)

    /// Acknowledged writes.
    var acknowledgedCount: Int { counts.load(ordering: .relaxed) }
    var all: [String: Entry] { state.withLock { $0.entries } }
    var attempts: [String: [[UInt8]?: Int]] { state.withLock { $0.attempts } }
    var losses: [Loss] { state.withLock { $0.losses } }

    func attempt(_ key: String, _ value: [UInt8]?) {
        state.withLock { $0.attempts[key, default: [:]][value, default: 0] += 1 }
    }

    func acknowledge(_ key: String, _ write: Write) {
        state.withLock { $0.entries[key, default: Entry()].history.append(write) }
        counts.add(1, ordering: .relaxed)
    }

    func doubt(_ key: String, _ write: Write) {
        state.withLock { $0.entries[key, default: Entry()].uncertain = write }
    }

    /// From now on the writes that `report` says may be lost need not be there.
    func allow(_ report: FailoverReport) throws {
        guard let version = Version(hexDigits: report.version) else {
            throw KVError(.invalidData, "the report's version is \"\(report.version)\"")
        }
        let loss = Loss(shard: report.shard, epoch: report.epoch, version: version)
        state.withLock { $0.losses.append(loss) }
    }

    /// Reads every key that was ever written from `address` and says what is wrong, at most a few sentences.
    /// - Parameter shard: only keys of this one; nil for all.
    func discrepancies(
        at address: NodeAddress, in cluster: TestCluster, shard: String? = nil
    ) async throws -> [String] {
        let topology = cluster.topology
        let losses = self.losses
        let owned = all.map { (key: $0.key, entry: $0.value, shard: topology.shard(of: $0.key).name) }
            .filter { shard == nil || $0.shard == shard }
        return try await withThrowingTaskGroup(of: [String].self) { group in
            for chunk in owned.chunked(into: max(1, owned.count / 16)) {
                group.addTask {
                    var wrong: [String] = []
                    for (key, entry, shard) in chunk {
                        let response = try await HTTP.get(APIPath.key(key.utf8), from: address)
                        let losses = losses.filter { $0.shard == shard }
                        if let sentence = Ledger.compare(key, entry, response, losses) { wrong.append(sentence) }
                        if wrong.count >= 5 { break }
                    }
                    return wrong
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
    }

    /// - Returns: what is wrong with `response`; nil where nothing is.
    static func compare(_ key: String, _ entry: Entry, _ response: NodeResponse, _ losses: [Loss]) -> String? {
        let found = response.status == 200 ? response.bytes : nil
        guard response.status == 200 || response.status == 404 else {
            return "\(key): answered \(response.status) \(response.text.prefix(200))"
        }
        func fits(_ write: Write) -> Bool {
            write.value == found && (found == nil || write.version == nil || write.version == response.version)
        }
        if let uncertain = entry.uncertain, fits(uncertain) { return nil }
        // The last write that has to be there; of those after it any may be the last that is.
        let kept = entry.history.lastIndex { write in !losses.contains { $0.covers(write) } }
        if kept == nil, found == nil { return nil }
        if entry.history[(kept ?? 0)...].contains(where: fits) { return nil }
        let expected = (kept.map { entry.history[$0] } ?? entry.acknowledged).map {
            "\($0.value?.count ?? -1) bytes of version \($0.version?.hexDigits ?? "-") with "
                + "ack=\($0.ack.map(String.init(describing:)) ?? "-") in epoch \($0.epoch ?? 0)"
        }
        return "\(key): acknowledged \(expected ?? "nothing"), found \(found?.count ?? -1) bytes of version "
            + "\(response.version?.hexDigits ?? "-")"
    }

    /// How many acknowledged writes the reported losses cover.
    func coveredByLosses(in topology: Topology) -> Int {
        let losses = self.losses
        return all.reduce(0) { sum, entry in
            let own = losses.filter { $0.shard == topology.shard(of: entry.key).name }
            return sum + entry.value.history.count { write in own.contains { $0.covers(write) } }
        }
    }
}

extension Topology {
    func shard(of key: String) -> ShardTopology { shard(of: HashSlot(key: Array(key.utf8))) }
}
