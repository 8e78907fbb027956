import Core
import Shard
import Sharding
import Testing
import Wire

@testable import StorageNodeService

@Suite struct TopologyAdoptionTests {
    private func decide(
        _ current: Topology, _ roles: [String: ShardRole], _ incoming: Topology, as address: NodeAddress = n1
    ) throws -> TopologyAdoption.Decision {
        try TopologyAdoption(address: address, current: current, roles: roles).decide(on: incoming)
    }

    @Test func stepsInTheirOrder() throws {
        // n1 hands s0 to n2, takes s1 from it, loses s2, gains s3 as follower and s4 as leader, follows s5 in a new term.
        let current = try makeTopology([
            (1, [n1, n2]), (1, [n2, n1]), (1, [n2, n1]), (1, [n2, n3]), (1, [n3]), (1, [n2, n1]),
        ])
        let next = try makeTopology(
            epoch: 2,
            [
                (2, [n2, n1]), (2, [n1, n2]), (1, [n2, n3]), (1, [n2, n3, n1]), (2, [n1, n3]), (2, [n3, n1]),
            ])
        let roles: [String: ShardRole] = [
            "s0": .leader(term: 1), "s1": .follower(term: 1), "s2": .follower(term: 1), "s5": .follower(term: 1),
        ]
        #expect(
            try decide(current, roles, next)
                == .adopt([
                    .persist, .follow(shard: "s0", term: 2), .follow(shard: "s5", term: 2), .open(shard: "s3"),
                    .open(shard: "s4"), .lead(shard: "s1", term: 2), .publish, .close(shard: "s2"),
                ]))
    }

    @Test func nothingChangesHere() throws {
        let current = try makeTopology([(1, [n1, n2]), (1, [n2, n1])])
        let next = try #require(try current.adding(n3, to: "s0"))
        let roles: [String: ShardRole] = ["s0": .leader(term: 1), "s1": .follower(term: 1)]
        #expect(try decide(current, roles, next) == .adopt([.persist, .publish]))
        #expect(try decide(current, roles, current) == .ignore)
        #expect(try decide(next, roles, current) == .ignore)
    }

    /// A replica that has promised a later term is not told to follow an older one; whether it may lead is for it to
    /// say.
    @Test func promisedTerms() throws {
        let current = try makeTopology([(1, [n1, n2]), (1, [n2, n1])])
        let next = try makeTopology(epoch: 3, [(3, [n1, n2]), (3, [n2, n1])])
        let roles: [String: ShardRole] = ["s0": .follower(term: 5), "s1": .follower(term: 5)]
        #expect(
            try decide(current, roles, next) == .adopt([.persist, .lead(shard: "s0", term: 3), .publish]))
    }

    @Test func aShardThatIsGoneIsClosed() throws {
        let current = try makeTopology([(1, [n1]), (1, [n1])])
        let next = try makeTopology(epoch: 2, [(1, [n1])])
        let roles: [String: ShardRole] = ["s0": .leader(term: 1), "s1": .leader(term: 1)]
        #expect(try decide(current, roles, next) == .adopt([.persist, .publish, .close(shard: "s1")]))
    }

    @Test func refusals() throws {
        let current = try makeTopology(epoch: 4, [(3, [n1, n2])])
        let roles: [String: ShardRole] = ["s0": .leader(term: 3)]
        #expect(
            try decide(current, roles, try makeTopology(epoch: 5, [(2, [n2, n1])]))
                == .refuse(
                    Problem(
                        .staleTerm,
                        "This topology of epoch 5 has s0 in term 2, but 127.0.0.1:1 leads it in term 3: "
                            + "start from GET /topology.")))
        #expect(
            try decide(current, roles, try makeTopology(epoch: 5, cluster: "other", [(4, [n2, n1])]))
                == .refuse(
                    Problem(
                        .badRequest,
                        "This topology is of cluster \"other\", but this node belongs to cluster \"test\".")))
    }

    // MARK: Reconciling

    @Test func twoLeadersMovedApart() throws {
        let before = try makeTopology(epoch: 4, [(1, [n1, n2]), (1, [n2, n1])])
        let one = try before.promoting(n2, in: "s0", above: 0)
        var other = try before.promoting(n1, in: "s1", above: 0)
        let (first, second) = (one.shards[0].term, other.shards[1].term)
        let both = try makeTopology(epoch: max(first, second) + 1, [(first, [n2, n1]), (second, [n1, n2])])
        #expect(try TopologyAdoption.reconciled(one, other) == both)
        #expect(try TopologyAdoption.reconciled(other, one) == both)
        // One of them went on.
        while other.epoch <= one.epoch {
            other = try #require(try other.adding(n3, to: "s1"))
            other = try #require(try other.removing(n3, from: "s1"))
        }
        other = try #require(try other.adding(n3, to: "s1"))
        let later = try makeTopology(epoch: other.epoch + 1, [(first, [n2, n1]), (second, [n1, n2, n3])])
        #expect(try TopologyAdoption.reconciled(one, other) == later)
        #expect(try TopologyAdoption.reconciled(other, one) == later)
        // What is made of both supersedes both, and is adopted wherever one of them is.
        for topology in [one, other] {
            #expect(try later.supersedes(topology))
            let decision = try decide(topology, [:], later, as: n3)
            #expect(decision != .ignore)
            if case .refuse(let problem) = decision { Issue.record("\(problem)") }
        }
    }

    @Test func oneOfTwoWillDo() throws {
        let one = try makeTopology(epoch: 4, [(1, [n1, n2])])
        let other = try makeTopology(epoch: 5, [(1, [n1, n3])])
        #expect(try TopologyAdoption.reconciled(one, other) == nil)
        #expect(try TopologyAdoption.reconciled(other, one) == nil)
        #expect(try TopologyAdoption.reconciled(one, one) == nil)
        #expect(try TopologyAdoption.reconciled(one, try one.promoting(n2, in: "s0", above: 9)) == nil)
        #expect(
            try TopologyAdoption.reconciled(one, try makeTopology(epoch: 5, cluster: "other", [(0, [n1])])) == nil)
    }

    /// Who knows one of them and looks at epochs alone would never ask for the other.
    @Test func twoOfOneEpochBecomeOneOfTheNext() throws {
        let one = try makeTopology(epoch: 4, [(1, [n1, n2])])
        let other = try makeTopology(epoch: 4, [(1, [n1, n3])])
        let winner = try one.supersedes(other) ? one : other
        let next = try Topology(cluster: "test", epoch: 5, shards: winner.shards)
        for (current, shown) in [(one, other), (other, one)] {
            #expect(try TopologyAdoption.reconciled(current, shown) == next)
            let adoption = TopologyAdoption(address: n1, current: current, roles: ["s0": .leader(term: 1)])
            #expect(try adoption.incoming(shown) == next)
            #expect(try adoption.incoming(current) == current)
            #expect(try adoption.decide(on: next) == .adopt([.persist, .publish]))
        }
        // A leader that was moved meanwhile stays where it is now, whatever else differs.
        let moved = try makeTopology(epoch: 4, [(3, [n2, n1])])
        for (current, shown) in [(one, moved), (moved, one)] {
            #expect(
                try TopologyAdoption.reconciled(current, shown) == makeTopology(epoch: 5, [(3, [n2, n1])]))
        }
        // Of two epochs the higher one is taken as it is.
        let adoption = TopologyAdoption(address: n1, current: one, roles: [:])
        #expect(try adoption.incoming(next) == next)
    }
}
