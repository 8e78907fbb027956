import Core
import LSM
import NIOCore
import Synchronization
import TestSupport
import Testing
import Wire

@testable import Shard

/// Changes of role, holds and promises in the writer without its thread.
@Suite struct RoleTests {
    typealias Rig = WriterCoreTests.Rig

    private let other = NodeAddress(host: "127.0.0.1", port: 7002)
    private let itself = NodeAddress(host: "127.0.0.1", port: 7001)

    private func code(_ body: () throws -> Void) -> KVError.Code? {
        let error = #expect(throws: KVError.self) { try body() }
        return error?.code
    }

    @Test func aFollowerBeginsToLeadWithTheBarrier() throws {
        let before = LogPosition(term: 2, lsn: 7, version: Version(rawValue: 9))
        let rig = Rig(role: .follower(term: 2), position: before)
        try rig.core.become(.leader(term: 5), during: nil)
        #expect(rig.core.role == .leader(term: 5) && rig.core.published.role == .leader(term: 5))
        #expect(rig.core.published.newestTerm == 5)
        #expect(rig.batches.count == 1 && rig.core.position.term == 5 && rig.core.position.lsn == 8)
        let start = try rig.batches[0].withUnsafeBytes { bytes in
            try LogBatch.validate(bytes, is: rig.core.position, after: before)
            var reader = try WriteBatchReader(bytes)
            _ = try reader.next()
            return try reader.next()?.value.flatMap { SystemRecords.decodeTermStart($0) }
        }
        #expect(start?.firstLsn == 8 && start?.previousVersion == Version(rawValue: 9))
        try rig.core.become(.leader(term: 5), during: nil)
        #expect(rig.batches.count == 1, "once a term")
        try rig.submit(1, [put("a", "1")])
        _ = rig.core.drain()
        #expect(rig.receipt(1)?.position.term == 5 && rig.receipt(1)?.position.lsn == 9)
        #expect(try #require(rig.receipt(1)?.version(at: 0)) > Version(rawValue: 9))
    }

    @Test func whoKnowsANewerTermDoesNotLead() throws {
        let log = LogPosition(term: 4, lsn: 7, version: Version(rawValue: 9))
        let follower = Rig(role: .follower(term: 4), position: log)
        for term: UInt64 in [0, 3, 4] {
            #expect(code { try follower.core.become(.leader(term: term), during: nil) } == .staleTerm)
        }
        #expect(code { try follower.core.become(.leader(term: .max), during: nil) } == .invalidArgument)
        try follower.core.become(.follower(term: 6), during: nil)
        #expect(code { try follower.core.become(.leader(term: 5), during: nil) } == .staleTerm)
        #expect(code { try follower.core.become(.leader(term: 6), during: nil) } == .staleTerm, "another leads it")
        try follower.core.become(.follower(term: 5), during: nil)
        #expect(follower.core.role == .follower(term: 6), "an older term changes nothing")
        #expect(follower.batches.isEmpty)

        let leader = Rig(role: .leader(term: 4), position: log)
        #expect(code { try leader.core.become(.follower(term: 3), during: nil) } == .staleTerm)
        #expect(code { try leader.core.become(.leader(term: 3), during: nil) } == .staleTerm)
        #expect(leader.core.role == .leader(term: 4))
        try leader.core.become(.leader(term: 6), during: nil)
        #expect(leader.core.position.term == 6 && leader.batches.count == 1)
    }

    @Test func aBarrierThatFailsLeavesAFollower() throws {
        let rig = Rig(role: .follower(term: 1))
        rig.sink.state.withLock { $0.failWrites = KVError(.storageFull, "no space") }
        #expect(code { try rig.core.become(.leader(term: 2), during: nil) } == .storageFull)
        #expect(rig.core.role == .follower(term: 1) && rig.core.published.role == .follower(term: 1))
        rig.sink.state.withLock { $0.failWrites = nil }
        #expect(code { try rig.core.become(.leader(term: 2), during: nil) } == .storageFull, "it stays stopped")
        try rig.core.become(.follower(term: 3), during: nil)
        #expect(rig.core.newestTerm == 3)
    }

    @Test func whatIsQueuedFailsWhenTheLeaderFollows() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1")])
        _ = rig.core.drain()
        try rig.submit(2, [put("b", "1")])
        try rig.core.become(.follower(term: 2), during: nil)
        try rig.submit(3, [put("c", "1")])
        _ = rig.core.drain()
        #expect(rig.receipt(1)?.failure == nil)
        for id in [2, 3] {
            #expect(rig.receipt(id)?.failure?.code == .notLeader && rig.receipt(id)?.committed == 0)
        }
        #expect(rig.batches.count == 1 && rig.receipts.all.count == 3)
        // It takes batches of the new leader now.
        let leader = Rig(role: .leader(term: 2), position: rig.core.position)
        try leader.core.startLeading()
        let frames = try frames(of: leader, after: rig.core.position)
        let outcome = rig.core.apply(ApplyRequest(frames: frames, leaderTerm: 2) { _ in })
        #expect(outcome.failure == nil && outcome.position == leader.core.position)
    }

    private func frames(of rig: Rig, after position: LogPosition = .start) throws -> [LogFrame] {
        guard case .frames(var buffer, _) = rig.log.read(after: position, bytesMax: .max) else { return [] }
        var frames: [LogFrame] = []
        while let frame = try LogFrame.decode(from: &buffer) { frames.append(frame) }
        return frames
    }

    // MARK: Holding

    @Test func heldWritesWaitAndThenBecomeOneBatch() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1")])
        _ = rig.core.drain()
        let hold = try rig.core.beginHold(milliseconds: 400)
        #expect(hold.position == rig.core.position && hold.position.lsn == 1)
        try rig.submit(2, [put("b", "1")])
        try rig.submit(3, [put("c", "1")])
        #expect(rig.core.drain() == 400, "it comes back by itself")
        rig.clock.advance(150)
        #expect(rig.core.drain() == 250)
        #expect(rig.batches.count == 1 && rig.core.position == hold.position && rig.receipts.all.count == 1)
        #expect(code { _ = try rig.core.beginHold(milliseconds: 1) } == .unavailable, "one at a time")
        rig.core.end(hold)
        #expect(rig.core.drain() == nil)
        #expect(rig.batches.count == 2 && rig.receipts.all.map(\.0) == [1, 2, 3])
        #expect(rig.receipts.all.allSatisfy { $0.1.failure == nil })
    }

    @Test func aHoldEndsByItselfAndOnlyItself() throws {
        let rig = Rig { $0.holdMillisecondsMax = 300 }
        let first = try rig.core.beginHold(milliseconds: 100_000)
        try rig.submit(1, [put("a", "1")])
        #expect(rig.core.drain() == 300, "bounded")
        rig.clock.advance(300)
        #expect(rig.core.drain() == nil)
        #expect(rig.receipt(1)?.failure == nil && rig.batches.count == 1)
        let second = try rig.core.beginHold(milliseconds: 100)
        rig.core.end(first)
        try rig.submit(2, [put("b", "1")])
        #expect(rig.core.drain() == 100, "who was late does not end another's hold")
        #expect(code { try rig.core.become(.follower(term: 2), during: first) } == .timedOut)
        #expect(rig.core.role.isLeader)
        rig.clock.advance(100)
        #expect(code { try rig.core.become(.follower(term: 2), during: second) } == .timedOut)
        _ = rig.core.drain()
        #expect(rig.receipt(2)?.failure == nil)
    }

    @Test func theInboxStaysBoundedWhileHeld() throws {
        let rig = Rig { $0.inboxOperationsMax = 3 }
        try rig.submit(1, [put("a", "1"), put("b", "1"), put("c", "1")])
        _ = rig.core.drain()
        let hold = try rig.core.beginHold(milliseconds: 100)
        _ = rig.core.drain()
        for id in 2...4 { try rig.submit(id, [put("a", "2")]) }
        #expect(code { try rig.submit(5, [put("a", "2")]) } == .overloaded)
        rig.core.end(hold)
        _ = rig.core.drain()
        #expect(rig.receipts.all.map(\.0) == [1, 2, 3, 4])
        try rig.submit(6, [put("a", "3")])
    }

    /// What event loops see changes when the hold ends, what the writer does at once.
    @Test func aHandoverLosesAndRepeatsNothing() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1")])
        _ = rig.core.drain()
        let hold = try rig.core.beginHold(milliseconds: 500)
        try rig.submit(2, [put("b", "1")])
        try rig.core.become(.follower(term: 2), during: hold)
        #expect(rig.core.published.role == .leader(term: 1) && rig.core.published.newestTerm == 2)
        #expect(rig.core.role == .follower(term: 2))
        try rig.submit(3, [put("c", "1")])
        _ = rig.core.drain()
        #expect(rig.receipts.all.count == 1 && rig.core.position == hold.position)
        rig.core.end(hold)
        #expect(rig.core.published.role == .follower(term: 2))
        _ = rig.core.drain()
        #expect([2, 3].allSatisfy { rig.receipt($0)?.failure?.code == .notLeader })
        #expect(rig.batches.count == 1)
    }

    @Test func syncsGoOnWhileHeld() throws {
        let rig = Rig(durability: .interval)
        try rig.submit(1, [put("a", "1")])
        #expect(rig.core.drain() == 100)
        _ = try rig.core.beginHold(milliseconds: 300)
        #expect(rig.core.drain() == 100)
        rig.clock.advance(100)
        #expect(rig.core.drain() == 200)
        #expect(rig.sink.state.withLock { $0.syncs } == 1)
    }

    // MARK: Promises

    @Test func aPromiseIsGivenOncePerTerm() throws {
        let rig = Rig(role: .follower(term: 3)) { $0.node = itself }
        #expect(code { try rig.core.fence(term: 2, candidate: other) } == .staleTerm)
        #expect(code { try rig.core.fence(term: 3, candidate: other) } == .staleTerm, "it has a leader")
        #expect(code { try rig.core.fence(term: .max, candidate: other) } == .invalidArgument)
        try rig.core.fence(term: 5, candidate: other)
        try rig.core.fence(term: 5, candidate: other)
        #expect(rig.promises.state.withLock { $0.saves } == 1)
        #expect(code { try rig.core.fence(term: 5, candidate: itself) } == .staleTerm)
        #expect(code { try rig.core.fence(term: 4, candidate: other) } == .staleTerm)
        #expect(code { try rig.core.become(.leader(term: 5), during: nil) } == .staleTerm, "promised to another")
        let old = rig.core.apply(ApplyRequest(frames: [], leaderTerm: 4) { _ in })
        #expect(old.failure?.code == .staleTerm)
        let new = rig.core.apply(ApplyRequest(frames: [], leaderTerm: 5) { _ in })
        #expect(new.failure == nil)
        try rig.core.fence(term: 5, candidate: other)
        #expect(rig.promises.state.withLock { $0.promise } == TermPromise(term: 5, candidate: other))
        try rig.core.become(.leader(term: 6), during: nil)
        #expect(rig.core.role == .leader(term: 6))
    }

    @Test func aTermPromisedToItselfIsLedByNobodyElse() throws {
        let rig = Rig(role: .follower(term: 3)) { $0.node = itself }
        try rig.core.fence(term: 5, candidate: itself)
        let outcome = rig.core.apply(ApplyRequest(frames: [], leaderTerm: 5) { _ in })
        #expect(outcome.failure?.code == .staleTerm)
        try rig.core.become(.leader(term: 5), during: nil)
        #expect(rig.core.role == .leader(term: 5) && rig.batches.count == 1)
        try rig.core.become(.follower(term: 5), during: nil)
        #expect(code { try rig.core.become(.leader(term: 5), during: nil) } == .staleTerm, "it was led before")
    }

    @Test func aFencedLeaderTakesNoWrites() throws {
        let rig = Rig()
        try rig.submit(1, [put("a", "1")])
        _ = rig.core.drain()
        try rig.submit(2, [put("b", "1")])
        try rig.core.fence(term: 4, candidate: other)
        #expect(rig.core.published.role == .follower(term: 4))
        _ = rig.core.drain()
        #expect(rig.receipt(2)?.failure?.code == .notLeader && rig.batches.count == 1)
        #expect(code { try rig.core.become(.leader(term: 1), during: nil) } == .staleTerm)
    }

    @Test func aPromiseThatCannotBeKeptIsNotGiven() throws {
        let rig = Rig()
        rig.promises.state.withLock { $0.fail = KVError(.storageFull, "no space") }
        #expect(code { try rig.core.fence(term: 4, candidate: other) } == .storageFull)
        #expect(rig.core.role == .leader(term: 1) && rig.core.newestTerm == 1)
        let follower = Rig(role: .follower(term: 1))
        follower.promises.state.withLock { $0.fail = KVError(.storageFull, "no space") }
        let leader = Rig(role: .leader(term: 2))
        try leader.core.startLeading()
        let request = ApplyRequest(frames: try frames(of: leader), leaderTerm: 2) { _ in }
        let refused = follower.core.apply(request)
        #expect(refused.failure?.code == .storageFull && follower.batches.isEmpty)
        #expect(follower.core.newestTerm == 1)
        follower.promises.state.withLock { $0.fail = nil }
        let applied = follower.core.apply(request)
        #expect(applied.failure == nil && follower.batches.count == 1)
    }

    @Test func aNewLeadersBatchesAreRememberedOncePerTerm() throws {
        let promises = TwinPromises()
        let rig = Rig(promises: promises)
        let same = rig.core.apply(ApplyRequest(frames: [], leaderTerm: 1) { _ in })
        #expect(same.failure?.code == .staleTerm && rig.core.role.isLeader, "it leads that one")
        for _ in 0..<3 {
            let outcome = rig.core.apply(ApplyRequest(frames: [], leaderTerm: 3) { _ in })
            #expect(outcome.failure == nil)
        }
        #expect(rig.core.role == .follower(term: 3), "an old leader makes way")
        #expect(promises.state.withLock { $0.saves } == 1)
        #expect(promises.state.withLock { $0.promise } == TermPromise(term: 3, candidate: nil))
        #expect(code { try rig.core.fence(term: 3, candidate: other) } == .staleTerm, "it has a leader")
        // After a restart with the topology of before.
        let again = Rig(role: .leader(term: 1), promises: promises)
        #expect(again.core.role == .follower(term: 3))
        let claimed = Rig(role: .leader(term: 3), promises: promises)
        #expect(claimed.core.role == .follower(term: 3), "another was seen to lead this term")
    }

    @Test func atTheStartThePromiseDecides() throws {
        func role(_ role: ShardRole, promised: TermPromise?) -> ShardRole {
            let promises = TwinPromises()
            promises.state.withLock { $0.promise = promised }
            return Rig(role: role, promises: promises) { $0.node = itself }.core.role
        }
        #expect(role(.leader(term: 2), promised: nil) == .leader(term: 2))
        #expect(role(.leader(term: 2), promised: TermPromise(term: 1, candidate: other)) == .leader(term: 2))
        #expect(role(.leader(term: 2), promised: TermPromise(term: 2, candidate: itself)) == .leader(term: 2))
        #expect(role(.leader(term: 2), promised: TermPromise(term: 2, candidate: other)) == .follower(term: 2))
        #expect(role(.leader(term: 2), promised: TermPromise(term: 3, candidate: itself)) == .follower(term: 3))
        #expect(role(.follower(term: 2), promised: TermPromise(term: 3, candidate: other)) == .follower(term: 3))
    }

    /// Random calls against one replica's terms: what must never happen, never does.
    @Test(arguments: [UInt64(1), 2, 3, 4]) func termsNeverGoBack(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let nodes = [itself, other, NodeAddress(host: "127.0.0.1", port: 7003)]
        for _ in 0..<300 {
            var terms = TermState(shard: "shard-0", node: itself, role: .follower(term: 1), logTerm: 0, promise: nil)
            var logTerm: UInt64 = 0
            var promised: [UInt64: NodeAddress] = [:]
            var ledBySomebody: Set<UInt64> = []
            for _ in 0..<40 {
                let before = terms
                let term = UInt64.random(in: 0...8, using: &generator)
                do throws(KVError) {
                    switch Int.random(in: 0..<5, using: &generator) {
                    case 0:
                        guard try terms.mustBegin(term, logTerm: logTerm) else { break }
                        #expect(!ledBySomebody.contains(term) && term > logTerm, "seed \(seed)")
                        #expect(promised[term] ?? itself == itself, "seed \(seed)")
                        terms.lead(term)
                        logTerm = term
                        ledBySomebody.insert(term)
                    case 1:
                        try terms.follow(term)
                    case 2:
                        let candidate = nodes[Int.random(in: 0..<3, using: &generator)]
                        if let promise = try terms.promise(of: term, to: candidate) { terms.keep(promise) }
                        #expect(promised[term] ?? candidate == candidate, "seed \(seed)")
                        promised[term] = candidate
                    case 3:
                        if let promise = try terms.promiseToTake(batchesOf: term) { terms.keep(promise) }
                        #expect(!terms.role.isLeader && promised[term] != itself, "seed \(seed)")
                        ledBySomebody.insert(term)
                        logTerm = term
                    default:
                        terms = TermState(
                            shard: "shard-0", node: itself, role: terms.role, logTerm: logTerm, promise: terms.promise)
                    }
                } catch {
                    #expect(
                        terms.role == before.role && terms.promise == before.promise, "seed \(seed): refused, changed")
                }
                #expect(terms.newestTerm >= before.newestTerm && terms.newestTerm >= logTerm, "seed \(seed)")
                #expect(terms.newestTerm >= terms.promise?.term ?? 0, "seed \(seed)")
                #expect(terms.promise?.term ?? 0 >= before.promise?.term ?? 0, "seed \(seed)")
            }
        }
    }
}
