import Core
import Sharding
import Synchronization

@testable import Shard

/// Makes trouble by chance: kills, stops and cuts off processes, sets clocks, changes leaders and members, and deletes
/// old log; and then, as an operator would, sees to it that somebody leads.
final class Disturber {
    unowned let world: Simulation
    private var isActive = true

    init(_ world: Simulation) { self.world = world }

    private var trouble: Simulation.Trouble { world.trouble }

    func start() {
        if trouble.crashes { often(500) { self.crash() } }
        if trouble.stops { often(700) { self.stop() } }
        if trouble.partitions { often(600) { self.cut() } }
        if trouble.clockSteps { often(500) { self.stepClock() } }
        if trouble.handovers { often(600) { self.handOver() } }
        if trouble.failovers { often(800) { self.failOver(force: self.world.chance(60)) } }
        if trouble.membership { often(700) { self.changeMembers() } }
        if trouble.damage { often(700) { self.any(self.world.nodes).isDamaged = true } }
        if trouble.truncation { often(400) { self.truncate() } }
        if trouble.replicatorCrashes { often(500) { self.crashReplicator() } }
    }

    func end() {
        isActive = false
        // Where all are damaged nobody can be rebuilt.
        for node in world.nodes { node.isDamaged = false }
    }

    private func often(_ meanMilliseconds: UInt64, _ run: @escaping () -> Void) {
        world.after(Instant(world.below(2_000 * meanMilliseconds))) {
            guard self.isActive else { return }
            run()
            self.often(meanMilliseconds, run)
        }
    }

    private func any<Element>(_ elements: [Element]) -> Element {
        elements[Int(world.below(UInt64(elements.count)))]
    }

    private func milliseconds(upTo max: UInt64) -> Instant { Instant(world.below(max)) * 1_000 }

    // MARK: Processes

    private func crash() {
        let node = any(world.nodes)
        guard node.process != nil else { return }
        if world.chance(50) {
            node.dieInAWrite(after: Int(world.below(4)), keepsLast: world.chance(50))
        } else {
            node.crash("killed")
        }
        world.after(milliseconds(upTo: 900)) {
            node.crash("killed at last")
            node.start()
        }
    }

    private func stop() { any(world.nodes).stop(for: milliseconds(upTo: 1_500)) }

    private func crashReplicator() {
        let replicator = any(world.replicators)
        replicator.crash()
        world.after(milliseconds(upTo: 600)) { replicator.start() }
    }

    private func stepClock() {
        any(world.nodes).clock.step(milliseconds: Int64(world.below(20_000)) - 10_000)
    }

    /// The log can go only where it is in the database.
    private func truncate() {
        any(world.nodes).disk.state.withLock { state in
            state.firstRetained = max(
                state.firstRetained, UInt64(state.entries.count) + 1 - min(5, UInt64(state.entries.count)))
        }
    }

    // MARK: The network

    private func cut() {
        let names = world.nodes.map(\.name) + world.replicators.map(\.name) + ["client1", "client2"]
        if world.chance(50) {
            let one = any(names)
            for other in names where other != one && world.chance(60) { world.network.cut(one, other) }
        } else {
            let isHere = names.map { _ in world.chance(50) }
            for (one, here) in zip(names, isHere) where here {
                for (other, there) in zip(names, isHere) where !there { world.network.cut(one, other) }
            }
        }
        world.note("the network is cut")
        world.after(milliseconds(upTo: 1_200)) {
            self.world.note("the network is whole")
            self.world.network.healAll()
        }
    }

    // MARK: Administration

    private func handOver() {
        // As known to somebody, who may be wrong.
        guard let process = any(world.nodes).process, let shard = process.shard, !shard.followers.isEmpty else {
            return
        }
        world.node(shard.leader)?.process?.handOver(to: any(shard.followers))
    }

    private func failOver(force: Bool) {
        guard let process = any(world.nodes).process, let shard = process.shard else { return }
        let candidate = world.node(any(shard.replicas))?.process
        candidate?.promote(epoch: process.topology.epoch, force: force)
    }

    private func changeMembers() {
        let node = any(world.nodes)
        guard let leader = node.process?.shard.flatMap({ world.node($0.leader)?.process }), let shard = leader.shard
        else { return }
        if shard.replicas.contains(node.address) {
            if shard.replicas.count > 2 { leader.remove(node.address) }
        } else {
            leader.add(node.address)
        }
    }

    /// Every few seconds: where nobody leads, has the follower with the most do it, without force.
    func care() {
        world.after(5_000_000) {
            self.careOnce()
            self.care()
        }
    }

    private func careOnce() {
        let shard = world.newest.shards[0]
        if let leader = world.node(shard.leader)?.process?.replica, leader.role.isLeader { return }
        let replicas = shard.replicas.compactMap { world.node($0)?.process }.filter { $0.replica?.isJoining == false }
        guard let best = replicas.max(by: { $0.node.disk.last < $1.node.disk.last }) else { return }
        world.note("nobody leads: \(best.node.name) is asked to")
        best.promote(epoch: best.topology.epoch, force: false)
    }
}
