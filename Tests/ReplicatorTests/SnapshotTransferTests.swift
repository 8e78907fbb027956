import Core
import NIOCore
import Testing
import Wire

@testable import ReplicatorService

/// Transitions of a transfer that the simulation meets by chance, one by one.
@Suite struct SnapshotTransferTests {
    static func manifest(id: String = "s1", lsn: UInt64 = 30, files: KeyValuePairs<String, UInt64>) -> SnapshotManifest
    {
        let position = LogPosition(term: 1, lsn: lsn, version: Version(rawValue: lsn * 10))
        return SnapshotManifest(
            shard: "shard-0", id: id, leaderTerm: 1,
            position: PositionDocument(shard: "shard-0", role: .leader, position: position), terms: [],
            files: files.map { .init(name: $0.key, bytes: $0.value, crc32c: "00000000") })
    }

    /// An action as text: enough to compare.
    static func text(_ action: SnapshotTransfer.Action) -> String {
        switch action {
        case .awaitTurn: "await turn"
        case .open: "open"
        case .offer: "offer"
        case .fetch(let range): "fetch \(range.file) \(range.offset)+\(range.length)"
        case .send(let chunk): "send \(chunk.range.file) \(chunk.range.offset)+\(chunk.range.length)"
        case .install(_, let isDiverged): isDiverged ? "install over another history" : "install"
        case .probe: "probe"
        case .waitToRetry: "wait to retry"
        case .waitToTouch: "wait to touch"
        case .release: "release"
        case .discard: "discard"
        case .notice(.started(_, let bytesThere)): "started at \(bytesThere)"
        case .notice(.interrupted(let text)): "interrupted: \(text)"
        case .notice(.resumed): "resumed"
        case .notice(.installed(_, let bytesSent, _)): "installed, sent \(bytesSent)"
        }
    }

    private struct Machine {
        var transfer: SnapshotTransfer
        var random = SplitMix64(seed: 1)
        var now = Duration.zero
        var ending: SnapshotTransfer.Ending?
        /// Ranges asked for and parts sent that nobody has answered, in order.
        var fetches: [SnapshotRange] = []
        var sends: [SnapshotChunk] = []

        init(rangeBytes: Int = 10, ahead: Int = 2) {
            var limits = ReplicationLimits()
            limits.snapshotRangeBytesMax = rangeBytes
            limits.snapshotRangesAhead = ahead
            transfer = SnapshotTransfer(limits: limits)
        }

        private mutating func note(_ actions: [SnapshotTransfer.Action]) -> [String] {
            for case .fetch(let range) in actions { fetches.append(range) }
            for case .send(let chunk) in actions { sends.append(chunk) }
            return actions.map(SnapshotTransferTests.text)
        }

        mutating func begin(at lsn: UInt64 = 5, isDiverged: Bool = false) -> [String] {
            note(transfer.begin(at: position(lsn), isDiverged: isDiverged, now: now))
        }

        mutating func callAsFunction(_ event: SnapshotTransfer.Event) -> [String] {
            let (actions, ending) = transfer.handle(event, now: now, random: &random)
            self.ending = ending
            return note(actions)
        }

        mutating func offered(_ received: KeyValuePairs<String, UInt64>, id: String = "s1") -> [String] {
            let files = received.map { SnapshotReceipt.File(name: $0.key, received: $0.value) }
            return self(.offered(.receipt(SnapshotReceipt(id: id, files: files))))
        }

        /// Up to the first range.
        mutating func start(_ manifest: SnapshotManifest, received: KeyValuePairs<String, UInt64> = [:]) -> [String] {
            _ = begin()
            _ = self(.turn(nil))
            _ = self(.opened(.opened(manifest)))
            return offered(received, id: manifest.id)
        }

        mutating func fetched() -> [String] {
            let range = fetches.removeFirst()
            let bytes = ByteBuffer(repeating: 1, count: range.length)
            return self(.fetched(range, .chunk(SnapshotChunk(range: range, bytes: bytes, checksum: "00000000"))))
        }

        mutating func fetched(_ outcome: SnapshotFetching) -> [String] {
            self(.fetched(fetches.removeFirst(), outcome))
        }

        mutating func sent() -> [String] {
            let range = sends.removeFirst().range
            return self(.sent(range, .taken(range.end)))
        }

        mutating func sent(_ outcome: SnapshotSending) -> [String] { self(.sent(sends.removeFirst().range, outcome)) }
    }

    private static func position(_ lsn: UInt64) -> LogPosition {
        LogPosition(term: 1, lsn: lsn, version: Version(rawValue: lsn * 10))
    }

    @Test func opensOffersCopiesInstallsReleases() throws {
        var machine = Machine()
        #expect(machine.begin() == ["await turn"])
        #expect(!machine.transfer.canBegin)
        #expect(machine(.turn(nil)) == ["open"])
        let manifest = Self.manifest(files: ["a": 15, "empty": 0, "b": 4])
        #expect(machine(.opened(.opened(manifest))) == ["offer", "wait to touch"])
        #expect(machine.transfer.progress(now: .zero) == nil)
        #expect(machine.offered(["a": 0, "empty": 0, "b": 0]) == ["started at 0", "fetch a 0+10"])
        #expect(machine.fetched() == ["send a 0+10", "fetch a 10+5"])
        #expect(machine.sent() == [])
        #expect(machine.transfer.progress(now: .zero)?.bytesDone == 10)
        #expect(machine.fetched() == ["send a 10+5", "fetch b 0+4"])
        #expect(machine.transfer.bytesInFlight == 9)
        #expect(machine.fetched() == [])
        #expect(machine.sent() == ["send b 0+4"])
        #expect(machine.sent() == ["install"])
        #expect(machine.transfer.progress(now: .zero)?.bytesTotal == 19)
        machine.now = .seconds(3)
        #expect(machine(.installed(.installed(Self.position(31)))) == ["installed, sent 19", "release"])
        guard case .installed(Self.position(31)) = machine.ending else { throw Unexpected() }
        #expect(!machine.transfer.canBegin)
        #expect(machine(.released) == [])
        #expect(machine.transfer.canBegin)
        // The timer of the last one is still set when the next one begins.
        #expect(machine.begin() == ["await turn"])
        _ = machine(.turn(nil))
        #expect(machine(.opened(.opened(manifest))) == ["offer"])
        #expect(machine(.touchTimerFired) == ["wait to touch"])
    }

    private struct Unexpected: Error {}

    @Test func whatIsFetchedAheadIsBounded() {
        var machine = Machine(ahead: 2)
        _ = machine.start(Self.manifest(files: ["a": 100]))
        #expect(machine.fetched() == ["send a 0+10", "fetch a 10+10"])
        #expect(machine.fetched() == ["fetch a 20+10"])
        #expect(machine.fetched() == [])
        #expect(machine.transfer.bytesInFlight == 30)
        #expect(machine.sent() == ["send a 10+10", "fetch a 30+10"])
    }

    @Test func goesOnWhereTheReceiptSays() {
        var machine = Machine()
        let manifest = Self.manifest(files: ["a": 15, "b": 4, "c": 8])
        // A receipt may name files in any order, leave some out and name what is unknown.
        #expect(machine.start(manifest, received: ["c": 3, "a": 15, "z": 9]) == ["started at 18", "fetch b 0+4"])
        #expect(machine.fetched() == ["send b 0+4", "fetch c 3+5"])
        _ = machine.sent()
        _ = machine.fetched()
        #expect(machine.sent() == ["install"])
    }

    @Test func aFailureLeadsBackToTheReceiptAndIsSaidOnce() {
        var machine = Machine()
        _ = machine.start(Self.manifest(files: ["a": 100]))
        _ = machine.fetched()
        _ = machine.fetched()
        #expect(machine.sent(.failed("timed out")) == ["interrupted: timed out", "wait to retry"])
        #expect(machine.transfer.bytesInFlight == 0 || machine.fetches.count == 1)
        // What was still on its way is dropped, and nothing new is fetched before it is there.
        #expect(machine(.retryTimerFired) == ["probe"])
        #expect(machine(.probed(.failed("refused"))) == ["wait to retry"])
        #expect(machine(.retryTimerFired) == ["probe"])
        #expect(machine(.probed(.position(Self.position(5), .follower))) == ["await turn"])
        #expect(machine(.turn(nil)) == ["offer"])
        #expect(machine.offered(["a": 10]) == [])
        #expect(machine.fetched() == ["fetch a 10+10"])
        #expect(machine.fetched() == ["send a 10+10", "fetch a 20+10"])
        #expect(machine.sent() == ["resumed"])
    }

    @Test func anAnswerOfAnEarlierAttemptIsWaitedForAndNotCounted() {
        var machine = Machine()
        _ = machine.start(Self.manifest(files: ["a": 20]))
        _ = machine.fetched()
        // The fetch of the second range fails while the first is being sent.
        #expect(
            machine.fetched(.failed("corrupt")) == ["interrupted: reading a from the leader: corrupt", "wait to retry"])
        _ = machine(.retryTimerFired)
        _ = machine(.probed(.position(Self.position(5), .follower)))
        _ = machine(.turn(nil))
        #expect(machine.offered(["a": 0]) == ["fetch a 0+10"])
        #expect(machine.fetched() == ["fetch a 10+10"])
        // Two parts on their way to the follower at once could come in any order.
        #expect(machine.sends.count == 1)
        #expect(machine.sent() == ["send a 0+10"])
        #expect(machine.transfer.progress(now: .zero)?.bytesDone == 0)
    }

    @Test func aCheckpointThatIsGoneIsReplacedByAnother() {
        var machine = Machine()
        _ = machine.start(Self.manifest(files: ["a": 100]))
        #expect(
            machine.fetched(.gone("expired")) == [
                "interrupted: the leader has given up the snapshot: expired", "wait to retry",
            ])
        _ = machine(.retryTimerFired)
        #expect(machine(.probed(.position(Self.position(5), .follower))) == ["await turn"])
        #expect(machine(.turn(nil)) == ["open"])
        #expect(machine(.opened(.opened(Self.manifest(id: "s2", files: ["a": 100])))) == ["offer"])
        #expect(machine.offered([:], id: "s2") == ["started at 0", "fetch a 0+10"])
    }

    @Test func whatSomebodyElseBringsIsWatchedAndTakenOverWhenItStops() {
        var machine = Machine()
        _ = machine.start(Self.manifest(files: ["a": 100]))
        _ = machine.fetched()
        #expect(machine.sent(.overtaken("goes on at byte 10")) == ["wait to retry"])
        for received in [UInt64(20), 50] {
            _ = machine(.retryTimerFired)
            _ = machine(.probed(.position(Self.position(5), .follower)))
            _ = machine(.turn(nil))
            // It moves: the other one is still at it.
            #expect(machine.offered(["a": received]) == ["wait to retry"])
        }
        _ = machine.fetched()
        _ = machine(.retryTimerFired)
        _ = machine(.probed(.position(Self.position(5), .follower)))
        _ = machine(.turn(nil))
        #expect(machine.offered(["a": 50]) == ["fetch a 50+10"])
    }

    @Test func aReceiptBeyondWhatWasSentIsWatchedToo() {
        var machine = Machine()
        _ = machine.start(Self.manifest(files: ["a": 100]))
        _ = machine.fetched()
        #expect(machine.sent(.taken(30)) == ["wait to retry"])
    }

    @Test func aFollowerThatSomebodyElseRebuiltIsLeftAlone() throws {
        var machine = Machine()
        _ = machine.start(Self.manifest(lsn: 30, files: ["a": 100]))
        _ = machine.fetched()
        _ = machine.sent(.overtaken("busy"))
        _ = machine.fetched()
        _ = machine(.retryTimerFired)
        #expect(machine(.probed(.position(Self.position(30), .follower))) == ["release"])
        guard case .moved(Self.position(30)) = machine.ending else { throw Unexpected() }
    }

    @Test func aFollowerThatCameBackWithLessStillTakesTheSnapshot() {
        var machine = Machine()
        _ = machine.start(Self.manifest(lsn: 30, files: ["a": 100]))
        _ = machine.fetched(.failed("reset"))
        _ = machine(.retryTimerFired)
        #expect(machine(.probed(.position(Self.position(2), .follower))) == ["await turn"])
    }

    @Test func aFollowerThatMovedBeforeThereWasASnapshotMayBeFedFromTheLog() throws {
        var machine = Machine()
        _ = machine.begin(at: 5)
        _ = machine(.turn(nil))
        #expect(
            machine(.opened(.failed("overloaded"))) == [
                "interrupted: opening a snapshot at the leader: overloaded", "wait to retry",
            ])
        _ = machine(.retryTimerFired)
        #expect(machine(.probed(.position(Self.position(6), .follower))) == [])
        guard case .moved(Self.position(6)) = machine.ending else { throw Unexpected() }
    }

    @Test func aSnapshotOfNoUseIsReleased() throws {
        var machine = Machine()
        _ = machine.begin()
        _ = machine(.turn(nil))
        _ = machine(.opened(.opened(Self.manifest(files: ["a": 100]))))
        #expect(machine(.offered(.useless("stale term"))) == ["release"])
        guard case .failed("stale term") = machine.ending else { throw Unexpected() }
    }

    @Test func theFollowerIsToldThatItHasWritesToSave() {
        var machine = Machine()
        _ = machine.begin(isDiverged: true)
        _ = machine(.turn(nil))
        _ = machine(.opened(.opened(Self.manifest(files: ["a": 10]))))
        #expect(machine.offered(["a": 10]) == ["started at 10", "install over another history"])
    }

    @Test func anIncompleteOneIsCompletedAndABrokenOneIsGivenUpOnBothSides() throws {
        var machine = Machine()
        #expect(machine.start(Self.manifest(files: ["a": 10]), received: ["a": 10]) == ["started at 10", "install"])
        #expect(machine(.installed(.incomplete("damaged"))) == ["interrupted: installing: damaged", "wait to retry"])
        _ = machine(.retryTimerFired)
        _ = machine(.probed(.position(Self.position(5), .follower)))
        _ = machine(.turn(nil))
        #expect(machine.offered(["a": 0]) == ["fetch a 0+10"])
        _ = machine.fetched()
        #expect(machine.sent() == ["resumed", "install"])
        #expect(machine(.installed(.broken("cannot be opened"))) == ["discard", "release"])
        guard case .failed = machine.ending else { throw Unexpected() }
        #expect(machine(.released) == [] && !machine.transfer.canBegin)
        #expect(machine(.released) == [] && machine.transfer.canBegin)
    }

    @Test func theLeaseIsKeptWhileNothingElseIsRead() {
        var machine = Machine()
        _ = machine.start(Self.manifest(files: ["a": 10]), received: ["a": 10])
        machine.now = .seconds(20)
        #expect(machine(.touchTimerFired) == ["fetch a 0+1", "wait to touch"])
        // The installation goes on whatever the leader says; what is there is there.
        #expect(machine.fetched(.gone("expired")) == [])
        machine.now = .seconds(40)
        #expect(machine(.touchTimerFired) == ["fetch a 0+1", "wait to touch"])
        #expect(machine.fetched() == [])
        #expect(machine.sends.isEmpty)
        _ = machine(.installed(.installed(Self.position(30))))
        #expect(machine(.touchTimerFired) == [])
    }

    @Test func aTransferThatIsReadDoesNotTouch() {
        var machine = Machine()
        _ = machine.start(Self.manifest(files: ["a": 100]))
        _ = machine.fetched()
        machine.now = .seconds(19)
        _ = machine.sent()
        _ = machine.fetched()
        machine.now = .seconds(20)
        #expect(machine(.touchTimerFired) == ["wait to touch"])
    }

    @Test func aTransferThatDoesNotMoveIsGivenUp() throws {
        var machine = Machine()
        _ = machine.start(Self.manifest(files: ["a": 100]))
        #expect(machine.fetched(.failed("reset")).last == "wait to retry")
        machine.now = .seconds(299)
        _ = machine(.retryTimerFired)
        #expect(machine(.probed(.failed("refused"))) == ["wait to retry"])
        // While it stands in line it cannot move.
        _ = machine(.retryTimerFired)
        _ = machine(.probed(.position(Self.position(5), .follower)))
        machine.now = .seconds(1_000)
        _ = machine(.turn(nil))
        #expect(machine(.offered(.failed("reset"))) == ["wait to retry"])
        machine.now = .seconds(1_001)
        _ = machine(.retryTimerFired)
        #expect(machine(.probed(.failed("refused"))) == ["release"])
        guard case .failed(let text) = machine.ending else { throw Unexpected() }
        #expect(text.contains("refused"))
    }

    @Test func aTurnIsHeldOnlyWhileTheTransferMoves() async throws {
        let turnstile = Turnstile(places: 2)
        var machine = Machine()
        _ = machine.begin()
        _ = machine(.turn(try await turnstile.pass()))
        let other = try await turnstile.pass()
        #expect(turnstile.isTaken)
        _ = machine(.opened(.failed("overloaded")))
        #expect(!turnstile.isTaken)
        _ = machine(.retryTimerFired)
        _ = machine(.probed(.position(Self.position(5), .follower)))
        _ = machine(.turn(try await turnstile.pass()))
        #expect(turnstile.isTaken)
        _ = machine(.opened(.opened(Self.manifest(files: ["a": 1]))))
        _ = machine(.offered(.useless("old")))
        #expect(!turnstile.isTaken)
        withExtendedLifetime(other) {}
    }
}
