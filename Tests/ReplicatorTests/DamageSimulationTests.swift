import Core
import Testing
import Wire

@testable import ReplicatorService

/// Followers that are damaged and have to be rebuilt, in the simulation.
@Suite struct DamageSimulationTests {
    private typealias Base = ReplicationSimulationTests

    private static func simulation(seed: UInt64, followers: Int = 2) -> ReplicationSimulation {
        let simulation = ReplicationSimulation(
            seed: seed, followers: followers, limits: Base.limits, faults: .init())
        for _ in 0..<50 { simulation.append(batchBytes: 50) }
        simulation.start()
        return simulation
    }

    @Test(arguments: 0..<2) func everyScheduleConvergesOnceFaultsStop(part: Int) async {
        let base = UInt64.random(in: 0...UInt64.max)
        print("seed \(base)")
        var installed = 0
        for run in 0..<Base.runs / 4 {
            // Other tests share the threads.
            await Task.yield()
            let seed = base &+ UInt64(run)
            var choice = TestRandom(seed: seed)
            var faults = ReplicationSimulation.Faults()
            faults.lossPercent = choice.next() % 3 == 0 ? choice.next() % 20 : 0
            faults.duplicatePercent = choice.next() % 3 == 0 ? choice.next() % 30 : 0
            faults.delayMicrosecondsMax = [100, 2_000, 30_000][Int(choice.next() % 3)]
            faults.restarts = choice.next() % 2 == 0
            let simulation = ReplicationSimulation(
                seed: seed, followers: 1 + Int(choice.next() % 3), replicators: 1 + Int(choice.next() % 2),
                limits: Base.limits, faults: faults)
            simulation.start()
            Base.disturb(
                simulation, restarts: faults.restarts, rollbacks: false, truncates: choice.next() % 2 == 0,
                damages: true, until: .seconds(2))
            simulation.run(until: .seconds(3))
            simulation.faults = .init()
            simulation.leader.isDamaged = false
            let isConverged = simulation.run(until: .seconds(240)) {
                simulation.isConverged && simulation.isAcknowledged
            }
            let states = simulation.replications.map { replication in
                replication.followers.map { "\($0.state) at \($0.acked.lsn): \($0.lastError ?? "-")" }
            }
            #expect(
                isConverged,
                "seed \(seed) after \(simulation.leader.last): \(simulation.followers.map(\.damage)) \(states)")
            Base.check(simulation, seed: seed)
            #expect(simulation.followers.allSatisfy { $0.reception.wrongInstalls == 0 }, "seed \(seed)")
            installed += simulation.followers.reduce(0) { $0 + $1.reception.installedCount }
            guard isConverged else { return }
        }
        // Chance must have damaged some of them.
        #expect(installed > Base.runs / 20)
    }

    @Test func theDamagedOneIsRebuiltAndTheOtherIsNot() {
        let simulation = Self.simulation(seed: 11)
        #expect(simulation.run(until: .seconds(5)) { simulation.isConverged })
        simulation.followers[1].damage = "a block"
        #expect(simulation.run(until: .seconds(15)) { simulation.isConverged })
        #expect(simulation.followers.map(\.reception.installedCount) == [0, 1])
        simulation.run(until: .seconds(60))
        #expect(simulation.leader.checkpoints.all.isEmpty, "the lease was not released")
        #expect(simulation.followers.map(\.reception.installedCount) == [0, 1], "it is whole")
    }

    /// Nobody destroys anybody, nothing runs hot, the follower is fed, and it is rebuilt when the leader is whole.
    @Test(arguments: [false, true]) func twoDamagedReplicasStayAsTheyAre(isStopped: Bool) {
        let simulation = Self.simulation(seed: 12, followers: 1)
        #expect(simulation.run(until: .seconds(5)) { simulation.isConverged })
        let follower = simulation.followers[0]
        simulation.leader.isDamaged = true
        follower.damage = "a block"
        follower.isStopped = isStopped
        let pushes = follower.pushCount
        for _ in 0..<100 {
            simulation.append(batchBytes: 10)
            simulation.run(until: simulation.now + .seconds(1))
        }
        #expect(follower.reception.installedCount == 0)
        #expect((4...12).contains(simulation.openCount), "\(simulation.openCount) snapshots asked for in 100 s")
        let text = simulation.replication.followers[0].lastError ?? ""
        #expect(text.contains("a block"), "\(text)")
        if isStopped {
            #expect(follower.pushCount - pushes < 20, "\(follower.pushCount - pushes) pushes at one that takes none")
        } else {
            #expect(follower.applied == simulation.leader.frames.map(\.position), "it was not fed")
            #expect(text.contains("a block of the leader"), "\(text)")
        }
        simulation.leader.isDamaged = false
        #expect(simulation.run(until: simulation.now + .seconds(60)) { simulation.isConverged })
        #expect(follower.reception.installedCount == 1)
    }
}
