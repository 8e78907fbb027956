import Core
import Logging
import NIOCore
import Sharding
import TestSupport
import Wire

@testable import Shard

/// A shard's replicas, replicators, clients and an operator in one thread and virtual time. What goes wrong, and
/// when, follows from the seed: the same seed is the same schedule, event for event.
final class Simulation {
    /// A defect put in on purpose.
    enum Sabotage: CaseIterable {
        /// A follower takes batches of a leader that was replaced.
        case takeOldTerms
        /// A promise does not survive the process.
        case forgetPromises
        /// A newer topology does not survive the process.
        case forgetTopology
        /// A write is acknowledged one replica too early.
        case oneAckTooFew
        /// What a rebuilt replica had too much is not saved.
        case dropSurplus
        /// A leader gives out checkpoints of its earlier terms.
        case giveOldSnapshots
        /// A leader whose followers have promised a newer term goes on in the old one.
        case neverRenew
    }

    struct Checkpoint {
        let manifest: SnapshotManifest
        let entries: [SimulatedDisk.Entry]
    }

    /// Which kinds of trouble there are.
    struct Trouble {
        var crashes = false
        var stops = false
        var partitions = false
        var clockSteps = false
        var handovers = false
        var failovers = false
        var membership = false
        var truncation = false
        var damage = false
        var replicatorCrashes = false
        var replicators = 1
        var replicas = 3

        init(_ random: inout SeededGenerator) {
            func chance(_ percent: UInt64) -> Bool { random.next() % 100 < percent }
            crashes = chance(60)
            stops = chance(30)
            partitions = chance(50)
            clockSteps = chance(30)
            handovers = chance(50)
            failovers = chance(50)
            membership = chance(30)
            truncation = chance(40)
            replicatorCrashes = chance(30)
            replicators = chance(40) ? 2 : 1
            replicas = 2 + Int(random.next() % 3)
            damage = chance(30)
        }
    }

    static let quietLogger = Logger(label: "simulation") { _ in SwiftLogNoOpLogHandler() }
    /// How long things go wrong, and how long they then may take to be right again.
    static let troubleMicroseconds: Instant = 3_000_000
    static let calmMicrosecondsMax: Instant = 120_000_000
    private static let notesMax = 400

    let seed: UInt64
    let sabotage: Sabotage?
    var random: SeededGenerator
    let trouble: Trouble
    private(set) var now: Instant = 0
    private(set) var eventCount = 0
    private var queue = EventQueue()
    let original: Topology
    private(set) var newest: Topology
    private(set) var nodes: [SimulatedNode] = []
    private(set) var replicators: [SimulatedReplicator] = []
    private var clients: [SimulatedClient] = []
    private(set) var notes: [String] = []
    private let keepsNotes: Bool
    var checkpoints: [String: Checkpoint] = [:]
    private(set) lazy var network = SimulatedNetwork(world: self)
    private(set) lazy var ledger = Ledger(world: self)

    init(seed: UInt64, sabotage: Sabotage? = nil, keepsNotes: Bool = false) throws {
        self.seed = seed
        self.sabotage = sabotage
        self.keepsNotes = keepsNotes
        random = SeededGenerator(seed: seed)
        trouble = Trouble(&random)
        let addresses = (1...trouble.replicas).map { NodeAddress(host: "node", port: $0) }
        let slots = [SlotRange(first: HashSlot(rawValue: 0), last: HashSlot(rawValue: UInt16(HashSlot.count - 1)))]
        original = try Topology(
            cluster: "test", epoch: 1,
            shards: [
                ShardTopology(
                    name: SimulatedReplica.shard, index: 0, term: 1, leader: addresses[0],
                    followers: Array(addresses[1...]), slots: slots)
            ])
        newest = original
        let spare = trouble.membership ? [NodeAddress(host: "node", port: 9)] : []
        nodes = (addresses + spare).map { SimulatedNode(self, $0) }
        replicators = (1...trouble.replicators).map { SimulatedReplicator(self, "replicator\($0)") }
        clients = (1...2).map { SimulatedClient(self, $0) }
    }

    // MARK: Time and chance

    func after(_ delay: Instant, _ run: @escaping () -> Void) { queue.add(at: now + max(delay, 0), run) }

    /// A number from 0 up to but without `bound`.
    func below(_ bound: UInt64) -> UInt64 { random.next() % bound }

    func chance(_ percent: UInt64) -> Bool { percent > 0 && below(100) < percent }

    func note(_ text: @autoclosure () -> String) {
        guard keepsNotes else { return }
        if notes.count == Simulation.notesMax { notes.removeFirst() }
        notes.append("\(now) \(text())")
    }

    /// Runs what is due until `end`, until `isDone`, or until something is violated.
    @discardableResult private func run(until end: Instant, isDone: () -> Bool = { false }) -> Bool {
        while ledger.violation == nil, !isDone() {
            guard let time = queue.nextTime, time <= end, let event = queue.removeFirst() else {
                now = end
                return isDone()
            }
            now = time
            for node in nodes { node.clock.set(now: now) }
            eventCount += 1
            event()
        }
        return isDone()
    }

    // MARK: The cluster

    func node(_ address: NodeAddress) -> SimulatedNode? { nodes.first { $0.address == address } }

    func anyNode() -> NodeAddress { nodes[Int(random.next() % UInt64(nodes.count))].address }

    /// A topology that somebody goes by.
    func observe(_ topology: Topology) {
        if (try? topology.supersedes(newest)) ?? false { newest = topology }
    }

    private var members: [SimulatedNode] { newest.shards[0].replicas.compactMap(node) }

    /// Whether every replica has everything, its leader knows that, and all go by one topology.
    private var isConverged: Bool {
        guard let leader = node(newest.shards[0].leader), let leading = leader.process?.replica,
            leading.role == .leader(term: newest.shards[0].term)
        else { return false }
        let position = leader.disk.last
        return nodes.allSatisfy { $0.process?.topology == newest }
            && members.allSatisfy { $0.disk.last == position && $0.process?.replica != nil }
            && newest.shards[0].followers.allSatisfy { follower in
                leading.acks.followers.first { $0.address == follower }?.reported?.lsn == position.lsn
            }
    }

    private func noteState() {
        note("newest topology: \(newest.epoch) \(newest.shards[0].leader) \(newest.shards[0].followers)")
        for node in nodes {
            note(
                "\(node.name): \(node.disk.last), log from \(node.disk.read { $0.firstRetained }), topology "
                    + "\(node.process?.topology.epoch ?? 0), \(node.process?.replica.map { "\($0.core.role) joining \($0.isJoining)" } ?? "no replica")"
            )
        }
        for replicator in replicators { note("\(replicator.name): \(replicator.description)") }
    }

    // MARK: A schedule

    struct Outcome: CustomStringConvertible {
        var violation: String?
        var isConverged: Bool
        var batches: Int
        var events: Int
        var acknowledged: Int
        var failovers: Int
        var rebuilds: Int

        static let none = Outcome(
            violation: nil, isConverged: true, batches: 0, events: 0, acknowledged: 0, failovers: 0, rebuilds: 0)

        /// Adds up; bad where one is.
        static func += (total: inout Outcome, outcome: Outcome) {
            total.violation = total.violation ?? outcome.violation
            total.isConverged = total.isConverged && outcome.isConverged
            total.batches += outcome.batches
            total.events += outcome.events
            total.acknowledged += outcome.acknowledged
            total.failovers += outcome.failovers
            total.rebuilds += outcome.rebuilds
        }

        var isGood: Bool { violation == nil && isConverged }
        var description: String {
            "\(violation ?? (isConverged ? "good" : "not converged")): \(batches) batches, \(acknowledged) "
                + "acknowledged, \(failovers) failovers, \(rebuilds) rebuilds, \(events) events"
        }
    }

    func run() -> Outcome {
        network.faults = .init()
        network.faults.lossPercent = chance(40) ? random.next() % 15 : 0
        network.faults.duplicatePercent = chance(40) ? random.next() % 25 : 0
        network.faults.delayMicrosecondsMax = [200, 2_000, 40_000][Int(random.next() % 3)]
        for node in nodes { node.start() }
        for replicator in replicators { replicator.start() }
        for client in clients { client.start() }
        let disturber = Disturber(self)
        disturber.start()
        run(until: Simulation.troubleMicroseconds)
        disturber.end()
        network.faults = .init()
        network.healAll()
        for client in clients { client.isActive = false }
        for node in nodes { node.start() }
        for replicator in replicators { replicator.start() }
        note("trouble ends")
        disturber.care()
        let end = now + Simulation.calmMicrosecondsMax
        let isConverged = run(until: end) { self.isConverged }
        if !isConverged { noteState() }
        if isConverged { ledger.conclude(replicas: members, retired: nodes.filter { !members.contains($0) }) }
        return Outcome(
            violation: ledger.violation, isConverged: isConverged, batches: ledger.batchCount, events: eventCount,
            acknowledged: ledger.acknowledged.count, failovers: ledger.failovers.count, rebuilds: ledger.rebuilds)
    }
}

extension SimulatedNode: Equatable {
    static func == (one: SimulatedNode, other: SimulatedNode) -> Bool { one === other }
}
