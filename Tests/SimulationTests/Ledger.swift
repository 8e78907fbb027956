import Core
import NIOCore
import Sharding

@testable import Shard

/// What really happened, and the invariants that must hold whatever goes wrong. Nothing in it is lost in a crash, and
/// nobody but it knows all of it.
///
/// 1. A replica's history is a prefix of one chain of batches: applied whole, in order, once.
/// 2. A batch that was acknowledged is in the end on every replica, unless a failover said that it may be lost.
/// 3. A term has one leader, and a replica takes nothing of a term older than one it has promised or obeyed.
/// 4. What a replica gave up of its history is in a file.
/// 5. An acknowledgement by several replicas means that so many had the batch at that moment.
final class Ledger {
    struct Failover {
        let leader: NodeAddress
        let term: UInt64
        /// The highest term that anybody asked knew of.
        let newestKnown: UInt64
        /// Everything up to it is kept, of the terms known.
        let keptVersion: Version
        let isForced: Bool
        let isComplete: Bool
    }

    struct Acknowledged {
        let position: LogPosition
        let version: Version
        let level: AckLevel
    }

    private struct Batch {
        let version: Version
        let previous: LogPosition
        let frame: ByteBuffer
    }

    private struct Place: Hashable {
        let term: UInt64
        let lsn: UInt64
    }

    unowned let world: Simulation
    private var batches: [Place: Batch] = [:]
    private var leaders: [UInt64: NodeAddress] = [:]
    /// The newest term each node has promised, obeyed or led.
    private var obeyed: [NodeAddress: UInt64] = [:]
    private(set) var failovers: [Failover] = []
    private(set) var acknowledged: [Acknowledged] = []
    /// Who all were when a batch was acknowledged by all.
    private var replicasOfAll: [LogPosition: [NodeAddress]] = [:]
    /// Saved before a replica was rebuilt.
    private(set) var saved: Set<LogPosition> = []
    private(set) var violation: String?
    /// For the outcome.
    private(set) var batchCount = 0
    private(set) var rebuilds = 0

    init(world: Simulation) { self.world = world }

    func violated(_ what: String) {
        guard violation == nil else { return }
        violation = what
        world.note("VIOLATION: \(what)")
    }

    // MARK: Batches and terms

    func appended(_ entry: SimulatedDisk.Entry, by node: SimulatedNode) {
        if let problem = node.disk.read({ $0.violation }) { violated("\(node.name) \(problem)") }
        let position = entry.position
        let place = Place(term: position.term, lsn: position.lsn)
        guard let known = batches[place] else {
            batches[place] = Batch(version: position.version, previous: entry.previous, frame: entry.frame)
            batchCount += 1
            if let leader = leaders[position.term], leader != node.address {
                violated("\(node.name) and \(leader) both write in term \(position.term)")
            }
            leaders[position.term] = node.address
            obey(position.term, node)
            return
        }
        if known.version != position.version || known.previous != entry.previous || known.frame != entry.frame {
            violated("\(node.name) has another batch at \(position) than was written there first")
        }
    }

    /// Batches or a heartbeat of a leader of that term were taken.
    func tookWord(ofTerm term: UInt64, by node: SimulatedNode) { obey(term, node) }

    func promised(_ term: UInt64, by node: SimulatedNode) { obey(term, node) }

    private func obey(_ term: UInt64, _ node: SimulatedNode) {
        let newest = obeyed[node.address] ?? 0
        if term < newest { violated("\(node.name) obeys term \(term) after term \(newest)") }
        obeyed[node.address] = max(newest, term)
    }

    // MARK: Acknowledgements and losses

    /// A leader is about to say that `level` is reached.
    func reached(_ level: AckLevel, _ position: LogPosition, of replicas: [NodeAddress]) {
        guard let required = level.required(of: replicas.count) else { return }
        let having = world.nodes.count { node in
            node.disk.read { state in
                position.lsn <= state.entries.count && state.entries[Int(position.lsn) - 1].position == position
            }
        }
        if level == .all { replicasOfAll[position] = replicas }
        if having < required { violated("ack=\(level) of \(position) with \(having) of \(required) replicas") }
    }

    func acknowledged(_ position: LogPosition, _ version: Version, _ level: AckLevel) {
        acknowledged.append(Acknowledged(position: position, version: version, level: level))
    }

    func failedOver(_ failover: Failover) { failovers.append(failover) }

    /// Whether some failover has said that this may be lost. What several replicas have goes only by force, and what
    /// all have only where a node is forced to lead that was not one of them.
    func mayBeLost(_ write: Acknowledged) -> Bool {
        failovers.contains { failover in
            guard failover.term > write.position.term, !failover.isComplete,
                write.version > failover.keptVersion || write.position.term > failover.newestKnown
            else { return false }
            switch write.level {
            case .leader: return true
            case .replicas, .quorum: return failover.isForced
            case .all:
                return failover.isForced && replicasOfAll[write.position]?.contains(failover.leader) == false
            }
        }
    }

    // MARK: Rebuilding

    func saves(_ positions: [LogPosition]) { saved.formUnion(positions) }

    func rebuilt(_ node: SimulatedNode, fromTerm term: UInt64) {
        rebuilds += 1
        tookWord(ofTerm: term, by: node)
    }

    /// The end: every replica has the same, and what was acknowledged is in it, or was said to be lost and saved.
    func conclude(replicas: [SimulatedNode], retired: [SimulatedNode]) {
        guard let first = replicas.first else { return violated("no replica is left") }
        let history = first.disk.read { $0.entries.map(\.position) }
        for node in replicas.dropFirst() where node.disk.read({ $0.entries.map(\.position) }) != history {
            violated("\(node.name) and \(first.name) end with different histories")
        }
        let kept = Set(history)
        // A replica that was taken out of the shard keeps its files, and in them what nobody else has.
        let retained = Set(retired.flatMap { node in node.disk.read { $0.entries.map(\.position) } })
        for write in acknowledged where !kept.contains(write.position) {
            if !mayBeLost(write) {
                violated("the write acknowledged with ack=\(write.level) at \(write.position) is gone")
            } else if !saved.contains(write.position), !retained.contains(write.position) {
                violated("the lost write at \(write.position) is in no file")
            }
        }
    }
}
