import Core
import NIOCore
import Sharding

@testable import Shard

/// Writes one thing after the other, wherever it believes the leader to be, remembers what was acknowledged, and
/// reads its own writes from any replica.
final class SimulatedClient {
    unowned let world: Simulation
    private let name: String
    private var target: NodeAddress
    private var writesBegun = 0
    /// Of its newest acknowledged write.
    private var session: (position: LogPosition, version: Version)?
    /// Whether it goes on.
    var isActive = true

    init(_ world: Simulation, _ number: Int) {
        self.world = world
        name = "client\(number)"
        target = world.original.shards[0].leader
    }

    func start() { pause(1_000) }

    private func pause(_ meanMicroseconds: UInt64) {
        world.after(Instant(world.below(2 * meanMicroseconds) + 1)) {
            guard self.isActive else { return }
            if self.session != nil, self.world.chance(30) { self.read() } else { self.write() }
        }
    }

    private func write() {
        guard let node = world.node(target) else { return pause(10_000) }
        let level: AckLevel = [.leader, .leader, .quorum, .all, .replicas(2)][Int(world.below(5))]
        writesBegun += 1
        let key = ByteBuffer(string: "\(name)-\(writesBegun % 7)")
        let operation: WriteOperation =
            world.chance(15)
            ? .delete(key: key) : .put(key: key, value: ByteBuffer(repeating: 120, count: Int(world.below(40))))
        world.network.exchange(
            from: name, to: node, timeout: 800_000, failed: SimulatedNode.Process.WriteAnswer.failed,
            { $0.write(operation, ack: level, timeout: 500_000, $1) }
        ) { answer in
            switch answer {
            case .done(let position, let version, let isReached):
                self.world.ledger.acknowledged(position, version, isReached ? level : .leader)
                self.session = (position, version)
            case .elsewhere(let leader): self.target = leader ?? self.world.anyNode()
            case .failed: self.target = self.world.anyNode()
            }
            self.pause(self.world.chance(80) ? 4_000 : 80_000)
        }
    }

    /// A replica that answers has what this client has written; one that has not yet heard of the term in which it was
    /// written, a leader that was replaced, cannot know.
    private func read() {
        guard let session, let node = world.node(world.anyNode()) else { return pause(1_000) }
        world.network.exchange(
            from: name, to: node, timeout: 300_000, failed: SimulatedNode.Process.ReadAnswer.failed,
            { process, reply in
                process.read(minVersion: session.version) { answer in
                    if case .value = answer { self.check(node, has: session) }
                    reply(answer)
                }
            }
        ) { _ in self.pause(2_000) }
    }

    private func check(_ node: SimulatedNode, has session: (position: LogPosition, version: Version)) {
        let place = Int(session.position.lsn) - 1
        let isThere = node.disk.read { place < $0.entries.count && $0.entries[place].position == session.position }
        guard let newest = node.process?.replica?.core.newestTerm, newest >= session.position.term else { return }
        let write = Ledger.Acknowledged(position: session.position, version: session.version, level: .leader)
        if !isThere, !world.ledger.mayBeLost(write) {
            world.ledger.violated("\(node.name) answers a read of \(session.version) without having it")
        }
    }
}
