import Core
import NIOCore
import Testing
import Wire

@testable import ReplicatorService

/// Transitions that the simulation meets by chance, one by one.
@Suite struct FollowerProgressTests {
    private struct Machine {
        var progress: FollowerProgress
        var random = SplitMix64(seed: 1)

        init(_ limits: ReplicationLimits = ReplicationLimits()) { progress = FollowerProgress(limits: limits) }

        /// The actions as text: enough to compare.
        mutating func callAsFunction(_ event: FollowerProgress.Event, at now: Duration = .zero) -> [String] {
            progress.handle(event, now: now, random: &random).map { action in
                switch action {
                case .probe: "probe"
                case .read(let position, let isDoubtful): "\(isDoubtful ? "doubtful " : "")read after \(position.lsn)"
                case .push(let push):
                    push.segment.map { "push \($0.base.lsn + 1)...\($0.last.lsn)" } ?? "heartbeat \(push.term)"
                case .wait: "wait"
                case .notice(.followerLost): "lost"
                case .notice(.followerBack): "back"
                case .notice(.needsSnapshot): "needs snapshot"
                case .notice(.canBeFedAgain): "can be fed again"
                case .notice(.snapshotFailed): "snapshot failed"
                case .notice(.damaged(let text)): "damaged: \(text)"
                case .notice(.whole): "whole"
                case .snapshot(let action): SnapshotTransferTests.text(action)
                }
            }
        }
    }

    private func position(_ lsn: UInt64) -> LogPosition {
        lsn == 0 ? .start : LogPosition(term: 1, lsn: lsn, version: Version(rawValue: lsn * 10))
    }

    private func clock(_ lsn: UInt64) -> LeaderClock { LeaderClock(term: 1, lsn: lsn, milliseconds: lsn * 1_000) }

    private func segment(_ lsns: ClosedRange<UInt64>) throws -> LogSegment {
        var bytes = makeFrame(position(lsns.lowerBound), batchBytes: 10)
        for lsn in lsns.dropFirst() { bytes.writeImmutableBuffer(makeFrame(position(lsn), batchBytes: 10)) }
        return try LogSegment(verifying: bytes, after: position(lsns.lowerBound - 1), leaderTerm: 1)
    }

    @Test func probesThenReadsAndPushesWhileReadingAhead() throws {
        var machine = Machine()
        #expect(machine(.start) == ["probe"])
        #expect(machine.progress.wanted == nil)
        #expect(machine(.probed(.position(position(5), .follower))) == [])
        #expect(machine.progress.wanted?.after == position(5))
        #expect(machine(.outsideWindow) == ["read after 5"])
        #expect(machine(.read(after: position(5), .segment(try segment(6...8), clock(20)))) == ["push 6...8"])
        #expect(machine.progress.wanted?.after == position(8) && machine.progress.wanted?.isPushable == false)
        #expect(machine(.outsideWindow) == ["read after 8"])
        #expect(machine(.read(after: position(8), .segment(try segment(9...9), clock(20)))) == [])
        #expect(machine.progress.wanted == nil)
        #expect(machine(.pushed(.accepted(position(8)))) == ["push 9...9"])
        #expect(machine(.pushed(.accepted(position(9)))) == [])
        #expect(machine.progress.acked == position(9) && machine.progress.bytesInFlight == 0)
    }

    /// Held back because others to the same node come first: it is not lost, holds nothing, and is asked before more is read.
    @Test func aPostponedPushIsReadAgain() throws {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(position(5), .follower)))
        #expect(machine(.offered(try segment(6...8), clock(20))) == ["push 6...8"])
        #expect(machine(.pushed(.postponed)) == ["wait"])
        #expect(machine.progress.wanted == nil && machine.progress.bytesInFlight == 0)
        #expect(machine.progress.lastError == nil)
        #expect(machine(.timerFired) == ["probe"])
        #expect(machine(.probed(.position(position(5), .follower))) == [])
        #expect(machine.progress.wanted?.after == position(5))
        #expect(machine(.outsideWindow) == ["read after 5"])
    }

    @Test func doesNotReadAheadWithoutRoom() throws {
        var limits = ReplicationLimits()
        limits.batchBytesMax = 1_000
        limits.inFlightBytesMax = 1_001
        var machine = Machine(limits)
        _ = machine(.start)
        _ = machine(.probed(.position(.start, .follower)))
        #expect(machine(.offered(try segment(1...2), clock(2))) == ["push 1...2"])
        #expect(machine.progress.wanted?.isReadable == false)
    }

    @Test func afterAFailedPushItIsAskedAgainAndLateReadsAreDropped() throws {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(.start, .follower)))
        _ = machine(.offered(try segment(1...2), clock(2)))
        #expect(machine(.outsideWindow) == ["read after 2"])
        #expect(machine(.pushed(.failed("timed out"))) == ["lost", "wait"])
        #expect(machine.progress.state == .probe && machine.progress.lastError == "timed out")
        #expect(machine(.read(after: position(2), .segment(try segment(3...4), clock(9)))) == [])
        #expect(machine(.timerFired) == ["probe"])
        // The push had arrived after all.
        #expect(machine(.probed(.position(position(2), .follower))) == [])
        #expect(machine(.outsideWindow) == ["doubtful read after 2"])
        #expect(machine(.read(after: position(2), .segment(try segment(3...3), clock(9)))) == ["push 3...3"])
        #expect(machine(.pushed(.accepted(position(3)))) == ["back"])
        #expect(machine.progress.lastError == nil)
    }

    @Test func aRejectionIsFollowedOnceWithoutAProbe() throws {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(position(5), .follower)))
        _ = machine(.offered(try segment(6...7), clock(7)))
        #expect(machine(.pushed(.rejected(position(3)))) == [])
        #expect(machine.progress.wanted?.after == position(3))
        _ = machine(.offered(try segment(4...7), clock(7)))
        #expect(machine(.pushed(.rejected(position(2)))) == ["lost", "wait"])
    }

    @Test func anAcceptedPushWithoutProgressIsAFailure() throws {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(position(5), .follower)))
        _ = machine(.offered(try segment(6...7), clock(7)))
        #expect(machine(.pushed(.accepted(position(5)))) == ["lost", "wait"])
    }

    @Test func anotherReplicatorMayBringItFurther() throws {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(position(5), .follower)))
        _ = machine(.offered(try segment(6...7), clock(7)))
        _ = machine(.outsideWindow)
        _ = machine(.read(after: position(7), .segment(try segment(8...9), clock(9))))
        // What was read ahead no longer continues it.
        #expect(machine(.pushed(.accepted(position(8)))) == [])
        #expect(machine.progress.wanted?.after == position(8) && machine.progress.bytesInFlight == 0)
    }

    @Test func aFollowerThatTheLogCannotFeedIsRebuiltAndAskedAgain() throws {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(position(5), .follower)))
        #expect(machine(.outsideWindow) == ["read after 5"])
        #expect(machine(.read(after: position(5), .cannotContinue("truncated"))) == ["needs snapshot", "await turn"])
        #expect(machine.progress.state == .snapshot && !machine.progress.isFed && machine.progress.wanted == nil)
        #expect(machine.progress.lastError == "truncated")
        let manifest = SnapshotTransferTests.manifest(files: ["a": 10])
        #expect(machine(.snapshot(.turn(nil))) == ["open"])
        #expect(machine(.snapshot(.opened(.opened(manifest)))) == ["offer", "wait to touch"])
        let receipt = SnapshotReceipt(id: manifest.id, files: [.init(name: "a", received: 10)])
        #expect(machine(.snapshot(.offered(.receipt(receipt)))) == ["started at 10", "install"])
        #expect(machine.progress.snapshotProgress(now: .zero)?.bytesDone == 10)
        #expect(
            machine(.snapshot(.installed(.installed(position(30))))) == ["installed, sent 0", "release", "probe"])
        #expect(machine.progress.state == .probe && machine.progress.acked == position(30))
        #expect(machine.progress.snapshotProgress(now: .zero) == nil)
        _ = machine(.probed(.position(position(30), .follower)))
        #expect(machine(.atTail) == ["can be fed again"])
        #expect(machine.progress.state == .replicate && machine.progress.lastError == nil)
    }

    @Test func aSnapshotThatDoesNotHelpIsFollowedByAnotherAfterAPause() throws {
        var machine = Machine()
        _ = machine(.start)
        for round in 0..<3 {
            _ = machine(.probed(.position(position(5), .follower)))
            _ = machine(.outsideWindow)
            let actions = machine(.read(after: position(5), .cannotContinue("truncated")))
            #expect(actions == (round == 0 ? ["needs snapshot", "await turn"] : ["await turn"]))
            _ = machine(.snapshot(.turn(nil)))
            _ = machine(.snapshot(.opened(.opened(SnapshotTransferTests.manifest(files: ["a": 10])))))
            #expect(machine(.snapshot(.offered(.useless("old")))) == ["release", "snapshot failed", "wait"])
            #expect(machine.progress.state == .needsSnapshot("old") && machine.progress.lastError == "old")
            _ = machine(.snapshot(.released))
            #expect(machine(.timerFired) == ["probe"])
        }
        // The operator has restored it from somewhere.
        _ = machine(.probed(.position(position(30), .follower)))
        #expect(machine.progress.state == .needsSnapshot("old"))
        #expect(machine(.atTail) == ["can be fed again"])
        #expect(machine.progress.state == .replicate)
    }

    @Test func theNextSnapshotWaitsForTheEndOfTheLast() {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(position(5), .follower)))
        _ = machine(.outsideWindow)
        _ = machine(.read(after: position(5), .cannotContinue("truncated")))
        _ = machine(.snapshot(.turn(nil)))
        _ = machine(.snapshot(.opened(.opened(SnapshotTransferTests.manifest(files: ["a": 10])))))
        _ = machine(.snapshot(.offered(.useless("old"))))
        _ = machine(.timerFired)
        _ = machine(.probed(.position(position(5), .follower)))
        _ = machine(.outsideWindow)
        #expect(machine(.read(after: position(5), .cannotContinue("truncated"))) == ["wait"])
        #expect(machine(.snapshot(.released)) == [])
        #expect(machine(.timerFired) == ["probe"])
    }

    /// A leader that has another history than a damaged follower has its surplus saved.
    @Test(arguments: [false, true]) func aDamagedFollowerIsComparedAndRebuilt(isDiverged: Bool) {
        var machine = Machine()
        _ = machine(.start)
        #expect(
            machine(.probed(.position(position(5), .follower, damaged: "a block"))) == [
                "damaged: a block", "doubtful read after 5",
            ])
        #expect(machine.progress.wanted == nil && !machine.progress.isFed)
        let outcome: ReadOutcome = isDiverged ? .cannotContinue("other", isDiverged: true) : .nothingNew(clock(5))
        #expect(machine(.read(after: position(5), outcome)) == ["await turn"])
        #expect(machine.progress.state == .snapshot && machine.progress.lastError == "it is damaged: a block")
        _ = machine(.snapshot(.turn(nil)))
        _ = machine(.snapshot(.opened(.opened(SnapshotTransferTests.manifest(files: [:])))))
        let install = machine(.snapshot(.offered(.receipt(SnapshotReceipt(id: "s1", files: [])))))
        #expect(
            install.contains { $0.hasPrefix("install") && $0.contains("another history") == isDiverged }, "\(install)")
        #expect(machine(.snapshot(.installed(.installed(position(30))))).last == "probe")
        #expect(machine(.probed(.position(position(30), .follower))) == ["whole"])
        _ = machine(.atTail)
        #expect(machine.progress.lastError == nil && machine.progress.state == .replicate)
    }

    /// A leader that is damaged as well: the follower is fed, and asked for no more than the pauses allow.
    @Test func aDamagedFollowerOfADamagedLeaderIsFed() throws {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(position(5), .follower, damaged: "a block")))
        _ = machine(.read(after: position(5), .nothingNew(clock(5))))
        _ = machine(.snapshot(.turn(nil)))
        #expect(machine(.snapshot(.opened(.damaged("its own")))) == ["snapshot failed", "probe"])
        #expect(machine(.probed(.position(position(5), .follower, damaged: "a block"))) == [])
        #expect(machine.progress.state == .replicate && machine.progress.wanted?.isPushable == true)
        let text = machine.progress.lastError ?? ""
        #expect(text.contains("a block") && text.contains("its own"), "\(text)")
        #expect(machine(.offered(try segment(6...7), clock(7))) == ["push 6...7"])
        #expect(machine(.pushed(.accepted(position(7), damaged: "a block"))) == [])
        #expect(machine.progress.confirmed?.position == position(7))
        // After the pause, without having been said again.
        #expect(machine(.beat(clock(7)), at: .seconds(60)) == ["doubtful read after 7"])
        _ = machine(.read(after: position(7), .nothingNew(clock(7))), at: .seconds(60))
        _ = machine(.snapshot(.turn(nil)), at: .seconds(60))
        #expect(machine(.snapshot(.opened(.damaged("its own"))), at: .seconds(60)) == ["probe"])
    }

    @Test func aLeaderThatCannotBeReadIsNotTheFollowersFault() {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(position(5), .follower)))
        _ = machine(.outsideWindow)
        #expect(machine(.read(after: position(5), .failed("refused"))) == ["wait"])
        #expect(machine.progress.state == .replicate)
        #expect(machine.progress.lastError == "reading from the leader: refused")
        #expect(machine(.timerFired) == [])
        #expect(machine.progress.wanted?.after == position(5))
    }

    @Test func aFollowerThatSaysItLeadsIsNotFed() {
        var machine = Machine()
        _ = machine(.start)
        #expect(machine(.probed(.position(position(5), .leader))) == ["lost", "wait"])
        #expect(machine.progress.wanted == nil)
    }

    @Test func aHeartbeatNoticesALostTailAndWhatAnotherReplicatorBrought() throws {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(position(5), .follower)))
        #expect(machine.progress.confirmed == nil)
        #expect(machine(.beat(clock(5))) == ["heartbeat 1"])
        #expect(machine(.beat(clock(5))) == [])
        #expect(machine.progress.wanted?.isPushable == false)
        #expect(machine(.pushed(.accepted(position(5)))) == [])
        #expect(machine.progress.confirmed == .init(leaderTerm: 1, position: position(5)))
        #expect(machine(.beat(clock(5))) == ["heartbeat 1"])
        _ = machine(.pushed(.accepted(position(3))))
        #expect(machine.progress.wanted?.after == position(3))
        #expect(machine.progress.confirmed == .init(leaderTerm: 1, position: position(3)))
        _ = machine(.offered(try segment(4...6), clock(6)))
        _ = machine(.pushed(.accepted(position(6))))
        _ = machine(.beat(clock(6)))
        _ = machine(.pushed(.accepted(position(9))))
        #expect(machine.progress.wanted?.after == position(9))
        #expect(machine.progress.confirmed == .init(leaderTerm: 1, position: position(9)))
    }

    @Test func whatIsInDoubtIsNotConfirmed() throws {
        var machine = Machine()
        _ = machine(.start)
        _ = machine(.probed(.position(position(5), .follower)))
        _ = machine(.beat(clock(5)))
        _ = machine(.pushed(.accepted(position(5))))
        _ = machine(.beat(clock(5)))
        #expect(machine(.pushed(.failed("timed out"))) == ["lost", "wait"])
        #expect(machine.progress.confirmed == nil)
        #expect(machine(.timerFired) == ["probe"])
        // Its own word without a leader's term behind it does not count.
        _ = machine(.probed(.position(position(5), .follower)))
        #expect(machine.progress.confirmed == nil)
    }

    @Test func aClockOfAnotherTermDoesNotGoWithASegment() throws {
        let segment = try segment(1...2)
        #expect(LogPush(segment, clock(2)).clock == clock(2))
        #expect(LogPush(segment, LeaderClock(term: 2, lsn: 5, milliseconds: 9)).clock == nil)
        #expect(LogPush(segment, LeaderClock(term: 2, lsn: 5, milliseconds: 9)).term == 1)
    }

    @Test func waitingTimesDoubleUpToTheirLimitWithJitter() {
        var random = SplitMix64(seed: 3)
        var backoff = Backoff(min: .milliseconds(20), max: .seconds(1))
        var full = Duration.milliseconds(20)
        for _ in 0..<20 {
            let wait = backoff.wait(using: &random)
            #expect(wait >= full / 2 && wait <= full)
            full = min(full * 2, .seconds(1))
        }
        backoff.reset()
        #expect(backoff.wait(using: &random) <= .milliseconds(20))
    }
}
