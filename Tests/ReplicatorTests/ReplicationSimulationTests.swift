import Core
import FoundationEssentials
import Testing
import Wire

@testable import ReplicatorService

@Suite struct ReplicationSimulationTests {
    /// Small, so that every bound is met within a few frames.
    static var limits: ReplicationLimits {
        var limits = ReplicationLimits()
        limits.batchBytesMax = 250
        limits.inFlightBytesMax = 500
        limits.windowBytesMax = 4_000
        limits.readAheadBytesMax = 500
        limits.snapshotRangeBytesMax = 100
        limits.snapshotWorkTimeout = .seconds(5)
        return limits
    }

    /// Schedules to try; more in a long run.
    static let runs =
        ProcessInfo.processInfo.environment["DISTRIBKV_SIMULATION_RUNS"].flatMap(Int.init) ?? 1_000

    /// Loads, kills and revives at random for a virtual second.
    static func disturb(
        _ simulation: ReplicationSimulation, restarts: Bool, rollbacks: Bool, truncates: Bool = false,
        damages: Bool = false, until end: Duration = .seconds(1)
    ) {
        func later(_ meanMilliseconds: UInt64, _ run: @escaping () -> Void) {
            let wait = Duration.microseconds(Int64(simulation.random.next() % (2_000 * meanMilliseconds)))
            simulation.schedule(after: wait) {
                guard simulation.now < end else { return }
                run()
            }
        }
        func write() {
            for _ in 0...(simulation.random.next() % 5) {
                simulation.append(batchBytes: simulation.chance(3) ? 600 : Int(simulation.random.next() % 12))
            }
            later(simulation.chance(50) ? 1 : 60, write)
        }
        write()
        func truncate() {
            simulation.leader.firstRetained = max(
                simulation.leader.firstRetained, simulation.leader.last.lsn + 1 - simulation.random.next() % 3)
            later(200, truncate)
        }
        if truncates { later(200, truncate) }
        func damage() {
            simulation.leader.isDamaged = simulation.chance(30)
            let follower = simulation.followers[Int(simulation.random.next() % UInt64(simulation.followers.count))]
            follower.damage = "a block"
            follower.isStopped = simulation.chance(40)
            later(300, damage)
        }
        if damages { later(300, damage) }
        guard restarts else { return }
        func killReplicator() {
            simulation.restartReplicator(Int(simulation.random.next() % UInt64(simulation.replications.count)))
            later(300, killReplicator)
        }
        if truncates { later(300, killReplicator) }
        func killLeader() {
            simulation.crashLeader()
            let isNewTerm = simulation.chance(30)
            simulation.schedule(after: .milliseconds(Int64(simulation.random.next() % 300))) {
                if isNewTerm { simulation.leader.term += 1 }
                simulation.leader.isUp = true
                simulation.append(batchBytes: 0)
            }
            later(600, killLeader)
        }
        func killFollower() {
            let follower = simulation.followers[Int(simulation.random.next() % UInt64(simulation.followers.count))]
            simulation.crashFollower(follower)
            if rollbacks {
                follower.applied.removeLast(Int(simulation.random.next() % 8) % (follower.applied.count + 1))
            }
            simulation.schedule(after: .milliseconds(Int64(simulation.random.next() % 400))) { follower.isUp = true }
            later(250, killFollower)
        }
        later(600, killLeader)
        later(250, killFollower)
    }

    static func check(_ simulation: ReplicationSimulation, seed: UInt64) {
        let frameBytes = 600 + 32
        #expect(
            simulation.outstandingSeen <= ShardReplication.outstandingMax(followers: simulation.followers.count),
            "seed \(seed)")
        #expect(simulation.bytesInFlightSeen <= limits.inFlightBytesMax + 2 * frameBytes, "seed \(seed)")
        #expect(simulation.windowBytesSeen <= limits.windowBytesMax + 4 * frameBytes, "seed \(seed)")
        #expect(simulation.wrongClocks == 0 && simulation.unfoundedAcks == 0, "seed \(seed)")
    }

    @Test(arguments: 0..<4) func everyScheduleConvergesOnceFaultsStop(part: Int) async {
        let base = UInt64.random(in: 0...UInt64.max)
        print("seed \(base)")
        for run in 0..<Self.runs / 4 {
            // Other tests share the threads.
            await Task.yield()
            let seed = base &+ UInt64(run)
            var choice = TestRandom(seed: seed)
            var faults = ReplicationSimulation.Faults()
            faults.lossPercent = choice.next() % 3 == 0 ? choice.next() % 20 : 0
            faults.duplicatePercent = choice.next() % 3 == 0 ? choice.next() % 30 : 0
            faults.postponedPercent = choice.next() % 3 == 0 ? choice.next() % 60 : 0
            faults.tightPercent = choice.next() % 3 == 0 ? choice.next() % 100 : 0
            faults.delayMicrosecondsMax = [100, 2_000, 80_000][Int(choice.next() % 3)]
            faults.restarts = choice.next() % 2 == 0
            faults.rollbacks = faults.restarts && choice.next() % 2 == 0
            let simulation = ReplicationSimulation(
                seed: seed, followers: 1 + Int(choice.next() % 3), limits: Self.limits, faults: faults)
            simulation.start()
            Self.disturb(simulation, restarts: faults.restarts, rollbacks: faults.rollbacks)
            simulation.run(until: .seconds(2))
            simulation.faults = .init()
            // The longest that one lost answer can hold things up, and then the way itself.
            let isConverged = simulation.run(until: .seconds(60)) {
                simulation.isConverged && simulation.isAcknowledged
            }
            #expect(isConverged, "seed \(seed) after \(simulation.leader.last)")
            Self.check(simulation, seed: seed)
            if faults.duplicatePercent == 0, !faults.rollbacks {
                #expect(simulation.followers.allSatisfy { $0.gapCount == 0 }, "seed \(seed)")
            }
            guard isConverged else { return }
        }
    }

    @Test func aSingleWriteGoesOutWithoutWaiting() {
        let simulation = ReplicationSimulation(seed: 1, followers: 2, limits: Self.limits, faults: .init())
        simulation.start()
        simulation.append(batchBytes: 10)
        simulation.run(until: .seconds(10))
        #expect(simulation.isConverged)
        for _ in 0..<20 {
            simulation.append(batchBytes: 10)
            let start = simulation.now
            simulation.run(until: start + .seconds(5)) { simulation.isConverged }
            // Three times across the network, of at most 0.2 ms each: answer of the read, push, no timer between.
            #expect(simulation.now - start < .microseconds(400))
            simulation.run(until: simulation.now + .milliseconds(1_370))
        }
    }

    @Test func theLeaderIsReadOnceForAllFollowersNearItsEnd() {
        let simulation = ReplicationSimulation(seed: 2, followers: 3, limits: Self.limits, faults: .init())
        simulation.start()
        simulation.run(until: .seconds(1))
        let before = simulation.leader.readCount
        for _ in 0..<100 {
            simulation.append(batchBytes: 10)
            simulation.run(until: simulation.now + .milliseconds(20))
        }
        #expect(simulation.isConverged)
        #expect(simulation.leader.readCount - before <= 102)
    }

    @Test func readsArePacedAndBatchesGrowUnderLoad() {
        let simulation = ReplicationSimulation(seed: 3, followers: 2, limits: ReplicationLimits(), faults: .init())
        simulation.start()
        simulation.run(until: .seconds(1))
        let reads = simulation.leader.readCount
        let pushes = simulation.followers[0].pushCount
        for _ in 0..<5_000 {
            simulation.append(batchBytes: 10)
            simulation.run(until: simulation.now + .microseconds(50))
        }
        simulation.run(until: simulation.now + .seconds(1)) { simulation.isConverged }
        #expect(simulation.isConverged)
        // 250 ms of load: one read a millisecond at most.
        #expect(simulation.leader.readCount - reads <= 255)
        #expect(simulation.followers[0].pushCount - pushes <= 255)
    }

    @Test func aSilentFollowerDoesNotSlowTheOther() {
        let simulation = ReplicationSimulation(seed: 4, followers: 2, limits: Self.limits, faults: .init())
        simulation.start()
        simulation.run(until: .seconds(1))
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
        simulation.run(until: simulation.now + .seconds(60)) { simulation.isConverged }
        #expect(simulation.isConverged)
    }

    @Test func withNothingToDoAlmostNothingHappens() {
        let simulation = ReplicationSimulation(seed: 8, followers: 3, limits: ReplicationLimits(), faults: .init())
        simulation.append(batchBytes: 5)
        simulation.start()
        simulation.run(until: .seconds(5))
        let events = simulation.eventCount
        simulation.run(until: .seconds(105))
        // Four times a second: a read, three heartbeats, a report; and the timers between.
        #expect(simulation.eventCount - events <= 100 * 4 * 7)
    }

    @Test func aDeadLeaderIsAskedAtAModestPaceAndFoundSoonAfterItsReturn() {
        let simulation = ReplicationSimulation(seed: 9, followers: 2, limits: ReplicationLimits(), faults: .init())
        simulation.append(batchBytes: 5)
        simulation.start()
        simulation.run(until: .seconds(5))
        simulation.crashLeader()
        let events = simulation.eventCount
        simulation.run(until: .seconds(65))
        #expect(simulation.eventCount - events <= 60 * 2 * 5 + 40)
        #expect(simulation.replication.feed.error != nil)
        #expect(simulation.notices.filter { $0.contains("leaderLost") }.count == 1)
        simulation.leader.isUp = true
        simulation.append(batchBytes: 5)
        let start = simulation.now
        simulation.run(until: start + .seconds(10)) { simulation.isConverged }
        #expect(simulation.isConverged && simulation.now - start <= .milliseconds(1_100))
        #expect(simulation.replication.feed.error == nil)
    }

    @Test func deadFollowersDoNotMakeTheLeaderBeRead() {
        let simulation = ReplicationSimulation(seed: 10, followers: 2, limits: Self.limits, faults: .init())
        simulation.start()
        simulation.run(until: .seconds(2))
        for follower in simulation.followers { follower.isUp = false }
        for _ in 0..<1_000 {
            simulation.append(batchBytes: 100)
            simulation.run(until: simulation.now + .milliseconds(10))
        }
        #expect(simulation.leader.readCount <= 40)
        #expect(simulation.replication.feed.leaderLSN >= 900)
        for follower in simulation.followers { follower.isUp = true }
        simulation.run(until: simulation.now + .seconds(10)) { simulation.isConverged }
        #expect(simulation.isConverged)
        Self.check(simulation, seed: 10)
    }

    @Test func aFollowerFarBehindReadsForItselfWithoutHoldingTheOther() {
        let simulation = ReplicationSimulation(seed: 11, followers: 2, limits: Self.limits, faults: .init())
        for _ in 0..<3_000 { simulation.append(batchBytes: 100) }
        simulation.followers[0].applied = simulation.leader.frames.map(\.position)
        simulation.start()
        for _ in 0..<100 {
            simulation.append(batchBytes: 10)
            let start = simulation.now
            simulation.run(until: start + .seconds(1)) { simulation.followers[0].position == simulation.leader.last }
            #expect(
                simulation.followers[0].position == simulation.leader.last && simulation.now - start < .milliseconds(5))
        }
        simulation.run(until: simulation.now + .seconds(60)) { simulation.isConverged }
        #expect(simulation.isConverged)
        #expect(simulation.followers[1].gapCount == 0)
        Self.check(simulation, seed: 11)
    }

    @Test func aFollowerThatComesBackWithLessIsFedAgainAlsoWithoutAWrite() {
        let simulation = ReplicationSimulation(seed: 12, followers: 2, limits: Self.limits, faults: .init())
        for _ in 0..<30 { simulation.append(batchBytes: 40) }
        simulation.start()
        simulation.run(until: .seconds(5))
        #expect(simulation.isConverged)
        simulation.followers[0].applied.removeLast(10)
        simulation.run(until: .seconds(10))
        #expect(simulation.isConverged)
    }

    @Test func aDeadFollowerIsReportedAlsoWithoutAWrite() {
        let simulation = ReplicationSimulation(seed: 13, followers: 2, limits: Self.limits, faults: .init())
        simulation.append(batchBytes: 40)
        simulation.start()
        simulation.run(until: .seconds(5))
        simulation.followers[0].isUp = false
        simulation.run(until: .seconds(10))
        let status = simulation.replication.status(now: simulation.now)
        #expect(status.followers[0].state == .probe && status.followers[0].lastError == "refused")
        #expect(status.followers[1].state == .replicate && status.followers[1].lastError == nil)
        simulation.followers[0].isUp = true
        simulation.run(until: .seconds(15))
        #expect(simulation.replication.status(now: simulation.now).followers[0].state == .replicate)
        #expect(simulation.notices.filter { $0.contains("followerLost") }.count == 1)
        #expect(simulation.notices.filter { $0.contains("followerBack") }.count == 1)
    }
}

extension ReplicationSimulationTests {
    @Test func positionsReachTheLeaderAtOnceAndTogetherUnderLoad() {
        let simulation = ReplicationSimulation(seed: 14, followers: 3, limits: ReplicationLimits(), faults: .init())
        simulation.start()
        simulation.append(batchBytes: 10)
        simulation.run(until: .seconds(2)) { simulation.isAcknowledged }
        #expect(simulation.isAcknowledged)
        for _ in 0..<20 {
            simulation.run(until: simulation.now + .milliseconds(130))
            simulation.append(batchBytes: 10)
            let start = simulation.now
            simulation.run(until: start + .seconds(5)) { simulation.isAcknowledged }
            // Six times across the network of at most 0.2 ms, behind a heartbeat perhaps, and one report interval.
            #expect(simulation.isAcknowledged && simulation.now - start < .microseconds(2_600))
        }
        let reports = simulation.leader.reportCount
        for _ in 0..<5_000 {
            simulation.append(batchBytes: 10)
            simulation.run(until: simulation.now + .microseconds(50))
        }
        // 250 ms of load from three followers: one report a millisecond at most.
        #expect(simulation.leader.reportCount - reports <= 255)
        simulation.run(until: simulation.now + .seconds(1)) { simulation.isAcknowledged }
        #expect(simulation.isAcknowledged)
    }

    @Test func aRestartedLeaderLearnsThePositionsAlsoWithoutAWrite() {
        let simulation = ReplicationSimulation(seed: 15, followers: 2, limits: ReplicationLimits(), faults: .init())
        simulation.append(batchBytes: 10)
        simulation.start()
        simulation.run(until: .seconds(2))
        #expect(simulation.isAcknowledged)
        simulation.leader.acks = [:]
        simulation.run(until: .seconds(3))
        #expect(simulation.isAcknowledged)
        simulation.crashLeader()
        simulation.run(until: .seconds(4))
        simulation.leader.isUp = true
        simulation.run(until: .seconds(6))
        #expect(simulation.isAcknowledged)
    }

    @Test func aQuietShardIsHeardOfFourTimesASecond() {
        let simulation = ReplicationSimulation(seed: 16, followers: 2, limits: ReplicationLimits(), faults: .init())
        simulation.append(batchBytes: 10)
        simulation.start()
        simulation.run(until: .seconds(2))
        let before = simulation.followers.map(\.heartbeatCount)
        simulation.run(until: .seconds(12))
        for (index, count) in before.enumerated() {
            #expect((38...41).contains(simulation.followers[index].heartbeatCount - count))
        }
    }
}
