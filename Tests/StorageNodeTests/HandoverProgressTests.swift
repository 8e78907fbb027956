import Core
import Sharding
import Testing
import Wire

@testable import StorageNodeService

@Suite struct HandoverProgressTests {
    private func makeProgress(to target: NodeAddress = n2, newestTerm: UInt64 = 1) throws -> HandoverProgress {
        let topology = try makeTopology(epoch: 4, [(1, [n1, n2, n3])])
        return try HandoverProgress(
            topology: topology, shard: topology.shards[0], to: target, newestTerm: newestTerm)
    }

    private func next(_ term: UInt64) throws -> Topology { try makeTopology(epoch: term, [(term, [n2, n1, n3])]) }

    @Test func inItsOrder() throws {
        var progress = try makeProgress(newestTerm: 7)
        #expect(progress.handle(.begun) == [.askStanding])
        #expect(progress.handle(.standing(position(1, 90), newestTerm: 7, own: position(1, 100))) == [.hold])
        #expect(progress.handle(.held(position(1, 104))) == [.wait(untilLsn: 104)])
        // The new term is above what both have promised.
        let term = try makeTopology(epoch: 4, [(1, [n1, n2, n3])]).shards[0].nextTerm(of: n2, above: 7)
        #expect(progress.handle(.caughtUp) == [.persist(try next(term))])
        #expect(progress.handle(.persisted) == [.stepDown(term: term)])
        #expect(progress.handle(.steppedDown) == [.show(try next(term))])
        #expect(progress.handle(.confirmed) == [.publish(try next(term))])
        #expect(
            progress.handle(.published) == [
                .release, .finish(.init(topology: try next(term), term: term, position: position(1, 104))),
            ])
        #expect(progress.handle(.published) == [])
    }

    /// Wherever it ends, writes that are held are let go, and before anybody was told nothing has changed.
    @Test func whereItEnds() throws {
        let storage = Problem(.storageFull, "full")
        let standing = HandoverProgress.Event.standing(position(1, 100), newestTerm: 1, own: position(1, 100))
        let held = HandoverProgress.Event.held(position(1, 100))
        let cases: [([HandoverProgress.Event], [HandoverProgress.Action])] = [
            (
                [.begun, .silent("no answer")],
                [
                    .fail(
                        Problem(
                            .replicaUnreachable,
                            "127.0.0.1:2 does not answer (no answer): start it, or hand s0 to another follower."))
                ]
            ),
            (
                [.begun, .standing(position(1, 100), newestTerm: 7, own: position(1, 100))],
                [
                    .fail(
                        Problem(
                            .topologyConflict,
                            "127.0.0.1:2 has promised term 7 of s0 to a node that takes it over: look at kv status, and "
                                + "try again once all go by one leader.", members: ["term": "7"]))
                ]
            ),
            (
                [.begun, .standing(position(1, 10), newestTerm: 1, own: position(1, 2_011))],
                [
                    .fail(
                        Problem(
                            .followerBehind,
                            "127.0.0.1:2 is 2001 batches behind in s0: wait until kv status shows it close, or choose "
                                + "another follower.", members: ["lag_batches": "2001"]))
                ]
            ),
            (
                [.begun, .standing(position(0, 0), newestTerm: 1, own: position(1, 1))],
                [
                    .fail(
                        Problem(
                            .followerBehind,
                            "127.0.0.1:2 ends in term 0 of s0 and has nothing of term 1 yet, in which 127.0.0.1:1 leads: "
                                + "right after a change of leader that takes a moment, so try again; if it stays so, see "
                                + "that a replicator runs.", members: ["term": "0"]))
                ]
            ),
            ([.begun, standing, .failed(storage)], [.fail(storage)]),
            (
                [.begun, standing, held, .notCaughtUp],
                [
                    .release,
                    .fail(
                        Problem(
                            .followerBehind,
                            "127.0.0.1:2 did not reach lsn 100 of s0 within 600 ms: see that a replicator runs, and try "
                                + "again.")),
                ]
            ),
            ([.begun, standing, held, .failed(storage)], [.release, .fail(storage)]),
            ([.begun, standing, held, .caughtUp, .failed(storage)], [.release, .fail(storage)]),
            (
                [.begun, standing, held, .caughtUp, .persisted, .failed(storage)],
                [.persistBefore, .release, .fail(storage)]
            ),
            (
                [.begun, standing, held, .caughtUp, .persisted, .steppedDown, .confirmed, .failed(storage)],
                [.release, .fail(storage)]
            ),
            (
                [.begun, standing, held, .caughtUp, .persisted, .steppedDown, .unconfirmed("no answer"), .published],
                [
                    .release,
                    .fail(
                        Problem(
                            .replicaUnreachable,
                            "127.0.0.1:2 has every write of s0 and is to lead it from epoch 16 on, but did not confirm "
                                + "that (no answer). It will as soon as it learns the topology; see kv status.")),
                ]
            ),
        ]
        for (events, expected) in cases {
            var progress = try makeProgress()
            var last: [HandoverProgress.Action] = []
            for event in events { last = progress.handle(event) }
            #expect(last == expected, "after \(events)")
            #expect(progress.handle(.confirmed) == [], "after \(events)")
        }
    }

    @Test func whoCannotLead() throws {
        #expect(throws: Problem(.badRequest, "127.0.0.1:1 leads s0 already.")) { _ = try makeProgress(to: n1) }
        let stranger = NodeAddress(host: "127.0.0.1", port: 9)
        #expect(
            throws: Problem(
                .badRequest,
                "127.0.0.1:9 holds no replica of s0: its followers are 127.0.0.1:2, 127.0.0.1:3.")
        ) { _ = try makeProgress(to: stranger) }
    }
}
