import Core
import Sharding
import TestSupport
import Testing

@testable import StorageNodeService

@Suite struct GossipTests {
    private let gossip = Gossip(address: n1)

    @Test func everyPeerIsAskedSometimesAndOneselfNever() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let topology = try makeTopology([(1, [n1, n2]), (1, [n2, n3])])
        let asked = (0..<200).map { _ in gossip.peer(in: topology, &random) }
        #expect(Set(asked) == [n2, n3])
        #expect(gossip.peer(in: try makeTopology([(1, [n1])]), &random) == nil)
        // A node that is no replica any more goes on asking those that are.
        #expect(gossip.peer(in: try makeTopology([(1, [n2])]), &random) == n2)
        for _ in 0..<200 { #expect((800...1_200).contains(gossip.pauseMilliseconds(&random))) }
    }

    @Test func whatAnAnswerLeadsTo() throws {
        let own = try makeTopology(epoch: 4, [(2, [n1, n2])])
        let newer = try makeTopology(epoch: 5, [(3, [n2, n1])])
        let older = try makeTopology(epoch: 3, [(2, [n1])])
        #expect(try gossip.action(on: .same, own: own) == .nothing)
        #expect(try gossip.action(on: .silence, own: own) == .nothing)
        #expect(try gossip.action(on: .topology(own), own: own) == .nothing)
        #expect(try gossip.action(on: .topology(newer), own: own) == .adopt(newer))
        #expect(try gossip.action(on: .topology(older), own: own) == .tell)
        #expect(
            try gossip.action(on: .topology(makeTopology(epoch: 9, cluster: "other", [(1, [n1])])), own: own)
                == .complain("other"))
        // A higher epoch in which a term went back: both are needed.
        let backwards = try makeTopology(epoch: 8, [(1, [n1, n3])])
        #expect(
            try gossip.action(on: .topology(backwards), own: own)
                == .adopt(try makeTopology(epoch: 9, [(2, [n1, n2])])))
    }

    /// Nodes that were told different topologies of one epoch end with the same, whoever asks whom and when.
    @Test func allEndWithTheSame() throws {
        let base = try makeTopology(epoch: 4, [(1, [n1, n2]), (1, [n2, n1])])
        let variants = [
            try #require(try base.adding(n3, to: "s0")), try #require(try base.adding(n3, to: "s1")),
            try base.promoting(n2, in: "s0", above: 0), try base.promoting(n1, in: "s1", above: 0),
        ]
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            var known = variants.shuffled(using: &random)
            var questions = 0
            while Set(known).count > 1 {
                questions += 1
                guard questions < 500 else {
                    Issue.record("no end, seed \(seed): \(known.map(\.epoch))")
                    return
                }
                let asking = Int.random(in: 0..<known.count, using: &random)
                let asked = Int.random(in: 0..<known.count, using: &random)
                switch try gossip.action(on: .topology(known[asked]), own: known[asking]) {
                case .adopt(let topology): known[asking] = topology
                case .tell: known[asked] = known[asking]
                case .nothing, .complain: break
                }
            }
            #expect(known[0].shard(named: "s0")?.leader == n2 && known[0].shard(named: "s1")?.leader == n1)
        }
    }

    // MARK: At the start

    @Test func leadersWaitForEveryReplica() throws {
        let topology = try makeTopology([(1, [n1, n2, n3]), (1, [n1, n2]), (1, [n2, n1]), (1, [n1])])
        var question = StartQuestion(topology: topology, address: n1)
        #expect(question.peers == [n2, n3])
        #expect(question.settled(n2) == ["s1"])
        #expect(question.settled(n2) == [])
        #expect(question.settled(n3) == ["s0"])
        #expect(question.timedOut() == [])
    }

    @Test func theWaitEnds() throws {
        var question = StartQuestion(topology: try makeTopology([(1, [n1, n2, n3]), (1, [n1, n2])]), address: n1)
        #expect(question.settled(n3) == [])
        #expect(question.timedOut() == ["s0", "s1"])
        #expect(question.timedOut() == [])
        #expect(StartQuestion(topology: try makeTopology([(1, [n2, n1])]), address: n1).peers == [])
    }
}
