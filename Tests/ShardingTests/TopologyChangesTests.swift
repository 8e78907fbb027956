import Core
import TestSupport
import Testing

@testable import Sharding

@Suite struct TopologyChangesTests {
    private func address(_ port: Int) -> NodeAddress { NodeAddress(host: "127.0.0.1", port: port) }

    private func topology(epoch: UInt64 = 5) throws -> Topology {
        try Topology.placing(
            cluster: "demo", epoch: epoch,
            shards: [
                ShardPlacement(
                    name: "a", index: 0, leader: address(7001), followers: [address(7002), address(7003)]),
                ShardPlacement(name: "b", index: 1, leader: address(7002), followers: []),
            ])
    }

    private func code(_ body: () throws -> Void) -> KVError.Code? {
        let error = #expect(throws: KVError.self) { try body() }
        return error?.code
    }

    @Test func addingAndRemovingAreOneEpochEach() throws {
        let before = try topology()
        let more = try #require(try before.adding(address(7009), to: "b"))
        #expect(more.epoch == 6 && more.cluster == "demo")
        #expect(more.shards[0] == before.shards[0], "the other shard stays")
        #expect(more.shards[1].followers == [address(7009)] && more.shards[1].leader == address(7002))
        #expect(more.shards[1].term == before.shards[1].term, "membership is no change of leader")
        #expect(more.shards[1].slots == before.shards[1].slots)
        #expect(try more.adding(address(7009), to: "b") == nil && more.adding(address(7002), to: "b") == nil)
        let less = try #require(try more.removing(address(7009), from: "b"))
        #expect(less.epoch == 7 && less.shards == before.shards)
        #expect(try less.removing(address(7009), from: "b") == nil)
        #expect(code { _ = try before.adding(address(7009), to: "c") } == .notFound)
        #expect(code { _ = try before.removing(address(7009), from: "c") } == .notFound)
        let leads = #expect(throws: KVError.self) { try before.removing(address(7001), from: "a") }
        #expect(leads?.code == .invalidArgument)
        #expect(
            leads?.message
                == "127.0.0.1:7001 leads a: move the leadership first with kv failover a --to")
    }

    @Test func promotingSwapsTheLeaderAboveEverythingSeen() throws {
        let before = try topology()
        for seen in [UInt64(0), 5, 6, 7, 100, 1 << 60] {
            let after = try before.promoting(address(7003), in: "a", above: seen)
            let expected = before.shards[0].nextTerm(of: address(7003), above: max(5, seen))
            #expect(after.epoch == expected && after.shards[0].term == expected)
            #expect(expected > max(5, seen) && expected <= max(5, seen) + 16)
            #expect(after.shards[0].leader == address(7003))
            #expect(after.shards[0].followers == [address(7002), address(7001)], "the old leader takes its place")
            #expect(after.shards[1] == before.shards[1])
            #expect(try after.supersedes(before) && !before.supersedes(after))
        }
        let again = try before.promoting(address(7001), in: "a", above: 0)
        #expect(again.shards[0].replicas == before.shards[0].replicas && again.shards[0].term > 5)
        #expect(code { _ = try before.promoting(address(7009), in: "a", above: 0) } == .notFound)
        #expect(code { _ = try before.promoting(address(7001), in: "c", above: 0) } == .notFound)
    }

    @Test func ofTwoTopologiesOneWinsEverywhere() throws {
        let base = try topology()
        let higher = try topology(epoch: 6)
        #expect(try higher.supersedes(base) && !base.supersedes(higher))
        #expect(try !base.supersedes(base))
        // Two nodes made epoch 6 without knowing of each other.
        let one = try #require(try base.adding(address(7008), to: "a"))
        let other = try #require(try base.adding(address(7009), to: "a"))
        #expect(try one.supersedes(other) != other.supersedes(one))
        // Whatever the order in which they hear of each other, they end with the same.
        func end(_ heard: [Topology]) throws -> Topology {
            try heard.reduce(base) { try $1.supersedes($0) ? $1 : $0 }
        }
        let orders = [
            [one, other], [other, one], [other, one, base, other], [one, higher, other], [other, higher, one],
        ]
        let ends = try orders.map(end)
        #expect(Set(ends[..<3]).count == 1 && Set(ends[3...]).count == 1)
    }

    /// Bytes alone would prefer the lower term wherever it has more digits of 9.
    @Test func ofOneEpochTheHigherTermsWin() throws {
        func make(_ terms: [UInt64], _ leader: Int) throws -> Topology {
            try Topology(
                cluster: "demo", epoch: 50,
                shards: try topology().shards.enumerated().map { position, shard in
                    var shard = shard
                    shard.term = terms[position]
                    if position == 0, leader == 7002 {
                        shard.followers = [shard.leader, address(7003)]
                        shard.leader = address(7002)
                    }
                    return shard
                })
        }
        for leaders in [(7001, 7002), (7002, 7001)] {
            let old = try make([9, 5], leaders.0)
            let new = try make([10, 5], leaders.1)
            #expect(try new.supersedes(old) && !old.supersedes(new))
        }
        // The first by name decides, wherever it stands.
        let (one, other) = (try make([10, 9], 7001), try make([9, 10], 7001))
        let turned = try Topology(cluster: "demo", epoch: 50, shards: other.shards.reversed())
        for lower in [other, turned] { #expect(try one.supersedes(lower) && !lower.supersedes(one)) }
    }

    // MARK: Terms

    private func shard(_ ports: some Sequence<Int>) -> ShardTopology {
        let all = ports.map(address)
        return ShardTopology(
            name: "a", index: 0, term: 1, leader: all[0], followers: Array(all.dropFirst()), slots: [])
    }

    /// Whoever of the replicas is promoted, and whatever it has seen.
    @Test(arguments: [1, 2, 3, 5, 16]) func noTermBelongsToTwoReplicas(count: Int) {
        let shard = shard(7001...7000 + count)
        var owners: [UInt64: NodeAddress] = [:]
        for seen in UInt64(0)...100 {
            for candidate in shard.replicas {
                let term = shard.nextTerm(of: candidate, above: seen)
                #expect(term > seen && term <= seen + 16)
                #expect(owners.updateValue(candidate, forKey: term) ?? candidate == candidate, "term \(term)")
                #expect(shard.nextTerm(of: candidate, above: term - 1) == term)
                #expect(shard.nextTerm(of: candidate, above: term) == term + 16)
            }
        }
        if count == 16 { #expect(Set(owners.keys) == Set(1...116), "each term has an owner") }
    }

    /// The part of a replica changes with every change of leader, its terms do not.
    @Test func termsStayWithTheirReplicas() throws {
        let shard = shard([7001, 7002, 7003])
        let turned = self.shard([7003, 7001, 7002])
        for node in shard.replicas {
            #expect(shard.nextTerm(of: node, above: 40) == turned.nextTerm(of: node, above: 40))
        }
    }

    /// Two halves that do not agree about who the replicas are: with places among the sorted addresses, every node
    /// behind the one that is added or removed would share its terms with its neighbour.
    @Test func halvesThatDisagreeAboutOneReplicaSeldomShareTerms() {
        var shared = 0
        for first in stride(from: 7_001, to: 7_501, by: 5) {
            let all = shard(first...first + 4)
            let fewer = shard(first + 1...first + 4)
            for one in all.replicas {
                for other in fewer.replicas where other != one {
                    if all.nextTerm(of: one, above: 9) == fewer.nextTerm(of: other, above: 9) { shared += 1 }
                }
            }
        }
        #expect(shared < 100, "\(shared) of 2000 pairs; by places it would be 400")
    }

    /// The classes are part of what nodes of different versions agree about.
    @Test func termsAreTheSameEverywhere() {
        let shard = shard([7001, 7002, 7003])
        #expect(shard.replicas.map { shard.nextTerm(of: $0, above: 1) } == [6, 15, 11])
    }

    @Test func thereIsNoTermBeyondAllNumbers() {
        #expect(shard([7001]).nextTerm(of: address(7001), above: .max) > 1 << 62)
    }

    @Test func aShardHasSixteenReplicasAtMost() throws {
        func make(_ count: Int) throws -> Topology {
            try Topology.placing(
                cluster: "demo", epoch: 1,
                shards: [
                    ShardPlacement(
                        name: "a", index: 0, leader: address(7001), followers: (1..<count).map { address(7001 + $0) })
                ])
        }
        let full = try make(16)
        #expect(code { _ = try make(17) } == .invalidData)
        let error = #expect(throws: KVError.self) { try full.adding(address(9), to: "a") }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message == "a has 16 replicas, as many as a shard may have: remove one first")
    }

    /// Random changes: epochs rise by one or more, terms never above the epoch and never back, slots stay.
    @Test(arguments: [UInt64(1), 2, 3]) func changesKeepTheInvariants(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var current = try topology()
        for round in 0..<100 {
            let shard = ["a", "b"][Int.random(in: 0..<2, using: &generator)]
            let node = address(7001 + Int.random(in: 0..<6, using: &generator))
            let next: Topology?
            do {
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: next = try current.adding(node, to: shard)
                case 1: next = try current.removing(node, from: shard)
                default:
                    let seen = current.epoch + UInt64.random(in: 0...3, using: &generator)
                    next = try current.promoting(node, in: shard, above: seen)
                }
            } catch let error as KVError {
                #expect([.notFound, .invalidArgument].contains(error.code), "seed \(seed)")
                continue
            }
            guard let next else { continue }
            #expect(try next.epoch > current.epoch && next.supersedes(current), "seed \(seed)")
            for (old, new) in zip(current.shards, next.shards) {
                #expect(new.term >= old.term && new.term <= next.epoch, "seed \(seed)")
                #expect(new.slots == old.slots && new.name == old.name, "seed \(seed)")
                #expect(new.leader == old.leader || new.term > old.term, "seed \(seed): a new leader, a new term")
            }
            if round % 20 == 0 { #expect(try Topology(json: next.json()) == next, "seed \(seed)") }
            current = next
        }
        #expect(current.epoch > 30, "seed \(seed)")
    }
}
