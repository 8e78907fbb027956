import Core
import Testing
import Wire

@testable import Shard

private func position(_ lsn: UInt64, term: UInt64 = 1) -> LogPosition {
    LogPosition(term: term, lsn: lsn, version: Version(rawValue: lsn * 10))
}

private func makeManifest(
    _ id: String = "a", lsn: UInt64 = 100, term: UInt64 = 1, sizes: [UInt64] = [10, 20], names: [String] = []
) -> SnapshotManifest {
    let names = names.isEmpty ? ["CURRENT", "000001.sst", "000002.sst"] : names
    return SnapshotManifest(
        shard: "shard-0", id: id, leaderTerm: term,
        position: PositionDocument(shard: "shard-0", role: .leader, position: position(lsn, term: term)),
        terms: [TermDocument(TermStart(term: term, firstLsn: 1, previousVersion: .zero))],
        files: zip(names, sizes).map { .init(name: $0, bytes: $1, crc32c: "00000000") })
}

private func own(_ lsn: UInt64, newestTerm: UInt64 = 1) -> SnapshotReception.Own {
    let starts = lsn == 0 ? [] : [TermStart(term: 1, firstLsn: 1, previousVersion: .zero)]
    return .init(
        history: TermHistory(starts: starts, end: lsn == 0 ? .start : position(lsn)), newestTerm: newestTerm)
}

@Suite struct SnapshotLeasesTests {
    @Test func isSharedWhileTheLogReachesBack() throws {
        var leases = SnapshotLeases()
        #expect(try leases.open(logFirstLsn: 1, committed: position(100), now: 0) == .make)
        #expect(code { _ = try leases.open(logFirstLsn: 1, committed: position(100), now: 0) } == .overloaded)
        leases.add(id: "a", position: position(100), now: 0)
        // A follower at 100 wants 101 next, and has to find 100 in the log.
        #expect(try leases.open(logFirstLsn: 100, committed: position(200), now: 1) == .share(id: "a"))
        #expect(try leases.open(logFirstLsn: 101, committed: position(200), now: 2) == .make)
        leases.add(id: "b", position: position(200), now: 2)
        #expect(try leases.open(logFirstLsn: 102, committed: position(200), now: 3) == .share(id: "b"))
        #expect(code { _ = try leases.open(logFirstLsn: 202, committed: position(300), now: 3) } == .overloaded)
        // Without any log only what is the newest can be followed.
        #expect(try leases.open(logFirstLsn: nil, committed: position(200), now: 3) == .share(id: "b"))
    }

    /// A leader that led on in a new term: who has promised that takes no snapshot of the one before.
    @Test func isNotSharedInALaterTerm() throws {
        var leases = SnapshotLeases()
        _ = try leases.open(logFirstLsn: 1, committed: position(100), now: 0)
        leases.add(id: "a", position: position(100), now: 0)
        leases.retire(before: 1)
        #expect(try leases.open(logFirstLsn: 1, committed: position(100), now: 0) == .share(id: "a"))
        leases.retire(before: 2)
        #expect(try leases.open(logFirstLsn: 1, committed: position(101, term: 2), now: 1) == .make)
        leases.add(id: "b", position: position(101, term: 2), now: 1)
        leases.retire(before: 2)
        #expect(try leases.open(logFirstLsn: 1, committed: position(101, term: 2), now: 1) == .share(id: "b"))
        // Those who read it go on.
        #expect(leases.touch(id: "a", now: 2) == true)
        #expect(leases.release(id: "a") == false)
        #expect(leases.release(id: "a") == true)
    }

    @Test func goesWithItsLastUser() throws {
        var leases = SnapshotLeases()
        _ = try leases.open(logFirstLsn: 1, committed: position(1), now: 0)
        leases.add(id: "a", position: position(1), now: 0)
        _ = try leases.open(logFirstLsn: 1, committed: position(1), now: 0)
        #expect(leases.release(id: "a") == false)
        #expect(leases.release(id: "a") == true)
        #expect(leases.release(id: "a") == nil)
        #expect(leases.touch(id: "a", now: 0) == false)
    }

    @Test func goesWhenNobodyReadsIt() throws {
        var leases = SnapshotLeases()
        _ = try leases.open(logFirstLsn: 1, committed: position(1), now: 0)
        leases.add(id: "a", position: position(1), now: 0)
        #expect(leases.expire(now: 59_999) == [])
        #expect(leases.touch(id: "a", now: 59_999) == true)
        #expect(leases.expire(now: 119_998) == [])
        #expect(leases.expire(now: 119_999) == ["a"])
        #expect(leases.leases == [])
    }

    @Test func anotherMayBeMadeAfterAFailure() throws {
        var leases = SnapshotLeases()
        _ = try leases.open(logFirstLsn: 1, committed: position(1), now: 0)
        leases.giveUp()
        #expect(try leases.open(logFirstLsn: 1, committed: position(1), now: 0) == .make)
    }
}

@Suite struct SnapshotReceptionTests {
    private func begun(_ manifest: SnapshotManifest = makeManifest(), now: UInt64 = 0) throws -> SnapshotReception {
        var reception = SnapshotReception()
        #expect(try reception.begin(manifest, own: own(0), now: now) == .start)
        reception.started(manifest, now: now)
        return reception
    }

    @Test func partsContinueTheFile() throws {
        var reception = try begun()
        let first = try reception.part(of: "000001.sst", id: "a", offset: 0, bytes: 15, now: 1)
        reception.wrote(file: first, bytes: 15, now: 1)
        #expect(reception.transfer?.receipt.files.map(\.received) == [0, 15])
        let refusals: [(KVError.Code, (inout SnapshotReception) throws -> Void)] = [
            (.snapshotMismatch, { _ = try $0.part(of: "000001.sst", id: "a", offset: 14, bytes: 1, now: 2) }),
            (.snapshotMismatch, { _ = try $0.part(of: "000001.sst", id: "a", offset: 16, bytes: 1, now: 2) }),
            (.snapshotMismatch, { _ = try $0.part(of: "000001.sst", id: "a", offset: 15, bytes: 6, now: 2) }),
            (.snapshotMismatch, { _ = try $0.part(of: "../IDENTITY", id: "a", offset: 0, bytes: 1, now: 2) }),
            (.unknownSnapshot, { _ = try $0.part(of: "000001.sst", id: "b", offset: 15, bytes: 1, now: 2) }),
            (.invalidArgument, { _ = try $0.part(of: "CURRENT", id: "a", offset: 0, bytes: 4 << 20 + 1, now: 2) }),
            (.snapshotMismatch, { _ = try $0.install(id: "a", own: own(0)) }),
            (.unknownSnapshot, { _ = try $0.install(id: "b", own: own(0)) }),
        ]
        for (index, (expected, ask)) in refusals.enumerated() {
            #expect(code { try ask(&reception) } == expected, "refusal \(index)")
        }
        _ = try reception.part(of: "000001.sst", id: "a", offset: 15, bytes: 5, now: 3)
        #expect(
            code { _ = try reception.part(of: "CURRENT", id: "a", offset: 0, bytes: 1, now: 3) } == .snapshotBusy)
        reception.failedToWrite(now: 3)
        #expect(reception.transfer?.receipt.files.map(\.received) == [0, 15])
    }

    @Test func anotherTransferWaitsUntilThisOneIsSilent() throws {
        var reception = try begun()
        let other = makeManifest("b")
        _ = try reception.part(of: "CURRENT", id: "a", offset: 0, bytes: 1, now: 5_000)
        reception.wrote(file: 0, bytes: 1, now: 5_000)
        #expect(code { _ = try reception.begin(other, own: own(0), now: 14_999) } == .snapshotBusy)
        guard case .resume(let receipt) = try reception.begin(makeManifest(), own: own(0), now: 15_000) else {
            Issue.record("the same one does not go on")
            return
        }
        #expect(receipt.files.map(\.received) == [1, 0])
        #expect(code { _ = try reception.begin(other, own: own(0), now: 24_999) } == .snapshotBusy)
        #expect(try reception.begin(other, own: own(0), now: 25_000) == .start)
        // Until the folder is ready nothing fits.
        #expect(
            code { _ = try reception.part(of: "CURRENT", id: "a", offset: 1, bytes: 1, now: 25_000) }
                == .unknownSnapshot)
        reception.started(other, now: 25_000)
        #expect(reception.transfer?.receipt.files.map(\.received) == [0, 0])
    }

    @Test func whatWasThereAtTheStartKeepsNobodyOut() throws {
        var reception = SnapshotReception()
        reception.restore(makeManifest(), received: [10, 5], now: 0)
        #expect(try reception.begin(makeManifest("b"), own: own(0), now: 0) == .start)
    }

    @Test func onlyWhatGoesForwardIsTaken() throws {
        var reception = SnapshotReception()
        // The same history, further.
        #expect(code { _ = try reception.begin(makeManifest(lsn: 100), own: own(101), now: 0) } == .snapshotMismatch)
        // An old leader.
        let old = own(50, newestTerm: 3)
        #expect(code { _ = try reception.begin(makeManifest(term: 2), own: old, now: 0) } == .staleTerm)
        // Another history, longer than the snapshot's.
        #expect(try reception.begin(makeManifest(lsn: 20, term: 3), own: own(50, newestTerm: 3), now: 0) == .start)
    }

    @Test func nothingChangesDuringTheInstallation() throws {
        var reception = try begun(makeManifest(sizes: [1, 0]))
        _ = try reception.part(of: "CURRENT", id: "a", offset: 0, bytes: 1, now: 0)
        #expect(code { _ = try reception.install(id: "a", own: own(0)) } == .snapshotBusy)
        reception.wrote(file: 0, bytes: 1, now: 0)
        #expect(code { _ = try reception.install(id: "a", own: own(101)) } == .snapshotMismatch)
        _ = try reception.install(id: "a", own: own(0))
        #expect(code { _ = try reception.discard() } == .snapshotBusy)
        #expect(code { _ = try reception.begin(makeManifest("b"), own: own(0), now: 99_999) } == .snapshotBusy)
        #expect(code { _ = try reception.begin(makeManifest(), own: own(0), now: 99_999) } == .snapshotBusy)
        #expect(code { _ = try reception.install(id: "a", own: own(0)) } == .snapshotBusy)
        reception.installFailed(damagedFile: 0, now: 0)
        #expect(reception.transfer?.receipt.files.map(\.received) == [0, 0])
        #expect(try reception.discard() == true)
        #expect(try reception.discard() == false)
    }
}

@Suite struct SnapshotCheckTests {
    @Test func namesArePlain() {
        for name in ["CURRENT", "MANIFEST-000005", "OPTIONS-000007", "000008.sst", "000010.log"] {
            #expect(SnapshotChecks.isFileName(name))
        }
        for name in [
            "", ".", "..", ".hidden", "a/b", "/etc/passwd", "../IDENTITY", "a\\b", "a b", "ä", "a\0",
            String(repeating: "a", count: 129),
        ] { #expect(!SnapshotChecks.isFileName(name), "\(name)") }
    }

    @Test func manifestsAreBelievedNothing() throws {
        try SnapshotChecks.check(makeManifest(), shard: "shard-0")
        var wrong: [SnapshotManifest] = [
            makeManifest(names: ["CURRENT", "../x"]), makeManifest(names: ["CURRENT", "CURRENT"]),
            makeManifest(names: ["000001.sst", "000002.sst"]), makeManifest("../a"), makeManifest(""),
            makeManifest(sizes: [1, .max]), makeManifest(names: ["CURRENT", SnapshotFolder.completeMark]),
        ]
        wrong.append(makeManifest())
        wrong[wrong.count - 1].shard = "shard-1"
        wrong.append(makeManifest())
        wrong[wrong.count - 1].files[1].crc32c = "+0000000"
        wrong.append(makeManifest(term: 2))
        wrong[wrong.count - 1].leaderTerm = 1
        wrong.append(makeManifest())
        wrong[wrong.count - 1].position.version = "none"
        for (index, manifest) in wrong.enumerated() {
            #expect(
                code { try SnapshotChecks.check(manifest, shard: "shard-0") } == .invalidArgument, "manifest \(index)")
        }
    }

    @Test func checksumsAreEightDigits() {
        #expect(SnapshotChecks.text(0xAB) == "000000ab")
        #expect(SnapshotChecks.checksum("000000AB") == 0xAB)
        for text in ["", "ab", "+00000ab", "000000abc", "0000000g"] { #expect(SnapshotChecks.checksum(text) == nil) }
    }
}

@Suite struct TransferRateTests {
    @Test func isThatOfTheLastSeconds() {
        var rate = TransferRate()
        #expect(rate.progress(done: 5, total: 10, now: 0).secondsLeft == nil)
        rate.note(bytes: 0, now: 0)
        rate.note(bytes: 1_000, now: 1_000)
        rate.note(bytes: 4_000, now: 2_000)
        #expect(rate.bytesPerSecond(now: 2_000) == 2_000)
        let progress = rate.progress(done: 4_000, total: 10_000, now: 2_000)
        #expect(progress == .init(bytesDone: 4_000, bytesTotal: 10_000, bytesPerSecond: 2_000, secondsLeft: 3))
        // Nothing came for a while: slower and slower, then not at all.
        #expect(rate.bytesPerSecond(now: 4_000) == 1_000)
        #expect(rate.bytesPerSecond(now: 20_000) == 0)
    }

    @Test func manySmallPartsTakeNoMemory() {
        var rate = TransferRate()
        for index in 0..<10_000 { rate.note(bytes: UInt64(index * 100), now: UInt64(index / 10)) }
        let speed = rate.bytesPerSecond(now: 999)
        #expect(speed > 900_000 && speed < 1_100_000)
    }
}
