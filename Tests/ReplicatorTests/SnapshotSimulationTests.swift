import Core
import Testing
import Wire

@testable import ReplicatorService

/// Followers that only a snapshot can help, in the simulation.
@Suite struct SnapshotSimulationTests {
    private typealias Base = ReplicationSimulationTests

    /// A leader with `count` batches, of which the log holds those from `firstRetained` on.
    private static func truncated(
        seed: UInt64, count: Int = 50, firstRetained: UInt64 = 20, followers: Int = 2, replicators: Int = 1,
        limits: ReplicationLimits = Base.limits
    ) -> ReplicationSimulation {
        let simulation = ReplicationSimulation(
            seed: seed, followers: followers, replicators: replicators, limits: limits, faults: .init())
        for _ in 0..<count { simulation.append(batchBytes: 50) }
        simulation.leader.firstRetained = firstRetained
        return simulation
    }

    private static func count(_ simulation: ReplicationSimulation, _ notice: String) -> Int {
        simulation.notices.filter { $0.hasPrefix(notice) }.count
    }

    @Test(arguments: 0..<4) func everyScheduleWithTruncationsConvergesOnceFaultsStop(part: Int) async {
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
            faults.corruptPercent = choice.next() % 3 == 0 ? choice.next() % 30 : 0
            faults.delayMicrosecondsMax = [100, 2_000, 30_000][Int(choice.next() % 3)]
            faults.restarts = choice.next() % 2 == 0
            faults.rollbacks = faults.restarts && choice.next() % 2 == 0
            let simulation = ReplicationSimulation(
                seed: seed, followers: 1 + Int(choice.next() % 3), replicators: 1 + Int(choice.next() % 2),
                limits: Base.limits, faults: faults)
            simulation.start()
            Base.disturb(
                simulation, restarts: faults.restarts, rollbacks: faults.rollbacks, truncates: true,
                until: .seconds(2))
            simulation.run(until: .seconds(3))
            simulation.faults = .init()
            // The longest that one lost answer can hold things up, one transfer that nobody goes on with, and then
            // the way itself.
            let isConverged = simulation.run(until: .seconds(180)) {
                simulation.isConverged && simulation.isAcknowledged
            }
            #expect(isConverged, "seed \(seed) after \(simulation.leader.last)")
            Base.check(simulation, seed: seed)
            #expect(simulation.followers.allSatisfy { $0.reception.wrongInstalls == 0 }, "seed \(seed)")
            installed += simulation.followers.reduce(0) { $0 + $1.reception.installedCount }
            guard isConverged else { return }
        }
        // Chance must have made some of them necessary.
        #expect(installed > Base.runs / 100)
    }

    @Test func aFollowerBehindTheLogIsRebuiltAndTheOtherIsNot() {
        let simulation = Self.truncated(seed: 5)
        simulation.followers[1].applied = simulation.leader.frames[..<30].map(\.position)
        simulation.start()
        #expect(simulation.run(until: .seconds(5)) { simulation.isConverged })
        simulation.run(until: .seconds(10))
        #expect(simulation.followers.map(\.reception.installedCount) == [1, 0])
        for notice in ["needsSnapshot", "started", "installed", "canBeFedAgain"] {
            #expect(Self.count(simulation, notice) == 1, "\(notice)")
        }
        #expect(simulation.replication.followers[0].state == .replicate)
        #expect(simulation.leader.checkpoints.all.isEmpty, "the lease was not released")
        simulation.append(batchBytes: 10)
        #expect(simulation.run(until: simulation.now + .seconds(1)) { simulation.isConverged })
    }

    @Test func anEmptyFollowerIsFedFromALogThatReachesBack() {
        let simulation = Self.truncated(seed: 6, firstRetained: 1)
        simulation.start()
        #expect(simulation.run(until: .seconds(5)) { simulation.isConverged })
        #expect(simulation.leader.checkpoints.madeCount == 0)
    }

    @Test func aFollowerWithAnotherHistoryIsRebuilt() {
        let simulation = Self.truncated(seed: 7, count: 10, firstRetained: 1)
        var other = simulation.leader.frames.map(\.position)
        other[9].version = Version(rawValue: 999_999)
        simulation.followers[0].applied = other
        simulation.start()
        #expect(simulation.run(until: .seconds(5)) { simulation.isConverged })
        #expect(simulation.followers.map(\.reception.installedCount) == [1, 0])
    }

    @Test func aLeaderThatCameBackWithLessGetsItsFollowersOnceItHasMore() {
        let simulation = Self.truncated(seed: 8, count: 10, firstRetained: 1)
        simulation.start()
        simulation.run(until: .seconds(3))
        #expect(simulation.isConverged)
        let before = simulation.leader.frames.map(\.position)
        simulation.crashLeader()
        simulation.leader.frames.removeLast(3)
        simulation.leader.isUp = true
        simulation.run(until: .seconds(20))
        // They have more of the same history: nothing is taken from them, and it is said.
        for index in 0..<2 {
            #expect(simulation.followers[index].applied == before)
            let reported = simulation.replication.status(now: simulation.now).followers[index]
            #expect(reported.lastError == "it has more")
        }
        // A checkpoint makes the leader read its database: not again and again.
        #expect(simulation.leader.checkpoints.madeCount <= 12)
        for _ in 0..<3 { simulation.append(batchBytes: 51) }
        simulation.leader.frames[9].position.version = Version(rawValue: 777_777)
        simulation.leader.frames[9].bytes = makeFrame(simulation.leader.frames[9].position, batchBytes: 5)
        #expect(simulation.run(until: simulation.now + .seconds(60)) { simulation.isConverged })
    }

    @Test func followersShareACheckpoint() {
        let simulation = Self.truncated(seed: 9, followers: 3)
        simulation.start()
        #expect(simulation.run(until: .seconds(10)) { simulation.isConverged })
        #expect(simulation.leader.checkpoints.madeCount == 1)
    }

    @Test func whatIsThereIsNotSentAgainAfterAKill() {
        var limits = Base.limits
        limits.snapshotRangeBytesMax = 20
        for victim in 0..<3 {
            let simulation = Self.truncated(seed: 10 + UInt64(victim), followers: 1, limits: limits)
            simulation.start()
            let follower = simulation.followers[0]
            simulation.run(until: .seconds(5)) { follower.reception.bytesTaken >= 200 }
            #expect(follower.reception.bytesTaken >= 200)
            switch victim {
            case 0:
                simulation.crashFollower(follower)
                simulation.schedule(after: .seconds(5)) { follower.isUp = true }
            case 1:
                simulation.restartReplicator(0)
            default:
                // The checkpoint goes with its leader, so this one begins anew.
                simulation.crashLeader()
                simulation.schedule(after: .seconds(1)) { simulation.leader.isUp = true }
            }
            #expect(simulation.run(until: .seconds(60)) { simulation.isConverged })
            let history = simulation.leader.checkpoints
            #expect(history.madeCount == (victim == 2 ? 2 : 1))
            #expect(follower.reception.installedCount == 1 && follower.reception.wrongInstalls == 0)
        }
    }

    @Test func twoReplicatorsBringOneSnapshotOnce() {
        var limits = Base.limits
        limits.snapshotRangeBytesMax = 20
        for seed in 20..<40 as Range<UInt64> {
            let simulation = Self.truncated(seed: seed, followers: 1, replicators: 2, limits: limits)
            simulation.start()
            #expect(simulation.run(until: .seconds(20)) { simulation.isConverged }, "seed \(seed)")
            let reception = simulation.followers[0].reception
            #expect(reception.installedCount == 1 && reception.wrongInstalls == 0, "seed \(seed)")
            simulation.run(until: .seconds(40))
            #expect(simulation.followers[0].reception.installedCount == 1, "seed \(seed)")
            #expect(simulation.leader.checkpoints.madeCount == 1, "seed \(seed)")
            #expect(simulation.replications.allSatisfy { $0.followers[0].state == .replicate }, "seed \(seed)")
        }
    }

    @Test func aSilentFollowerInASnapshotDoesNotSlowTheOther() {
        let simulation = Self.truncated(seed: 41, firstRetained: 20)
        simulation.followers[1].applied = simulation.leader.frames.map(\.position)
        simulation.start()
        simulation.run(until: .seconds(5)) { simulation.followers[0].reception.bytesTaken > 0 }
        simulation.followers[0].isSilent = true
        for _ in 0..<1_000 {
            simulation.append(batchBytes: 50)
            let start = simulation.now
            let isDelivered = simulation.run(until: start + .seconds(1)) {
                simulation.followers[1].position == simulation.leader.last
            }
            #expect(isDelivered && simulation.now - start < .milliseconds(3))
        }
        simulation.followers[0].isSilent = false
        #expect(simulation.run(until: simulation.now + .seconds(60)) { simulation.isConverged })
    }

    @Test func aDeadFollowerDoesNotKeepACheckpointForever() {
        let simulation = Self.truncated(seed: 42, followers: 1)
        simulation.start()
        simulation.run(until: .seconds(5)) { simulation.followers[0].reception.bytesTaken > 0 }
        simulation.crashFollower(simulation.followers[0])
        simulation.run(until: .seconds(250))
        #expect(simulation.leader.checkpoints.all.count == 1)
        simulation.run(until: .seconds(400))
        #expect(simulation.leader.checkpoints.all.isEmpty)
        #expect(simulation.replication.status(now: simulation.now).followers[0].state == .needsSnapshot)
        simulation.followers[0].isUp = true
        #expect(simulation.run(until: .seconds(500)) { simulation.isConverged })
    }

    @Test func progressIsReported() throws {
        let simulation = Self.truncated(seed: 43, followers: 1)
        simulation.start()
        simulation.run(until: .seconds(5)) { simulation.followers[0].reception.bytesTaken >= 200 }
        let follower = simulation.replication.status(now: simulation.now).followers[0]
        let progress = try #require(follower.snapshot)
        #expect(follower.state == .snapshot)
        #expect(progress.bytesDone > 0 && progress.bytesDone <= progress.bytesTotal)
        simulation.run(until: .seconds(10))
        #expect(simulation.replication.status(now: simulation.now).followers[0].snapshot == nil)
    }
}
