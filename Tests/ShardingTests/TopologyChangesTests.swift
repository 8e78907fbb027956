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
        for (seen, expected) in [(UInt64(0), UInt64(6)), (5, 6), (6, 7), (100, 101)] {
            let after = try before.promoting(address(7003), in: "a", above: seen)
            #expect(after.epoch == expected && after.shards[0].term == expected)
            #expect(after.shards[0].leader == address(7003))
            #expect(after.shards[0].followers == [address(7002), address(7001)], "the old leader takes its place")
            #expect(after.shards[1] == before.shards[1])
            #expect(try after.supersedes(before) && !before.supersedes(after))
        }
        let again = try before.promoting(address(7001), in: "a", above: 0)
        #expect(again.shards[0].replicas == before.shards[0].replicas && again.shards[0].term == 6)
        #expect(code { _ = try before.promoting(address(7009), in: "a", above: 0) } == .notFound)
        #expect(code { _ = try before.promoting(address(7001), in: "c", above: 0) } == .notFound)
    }

    @Test func ofTwoTopologiesOneWinsEverywhere() throws {
        let base = try topology()
        let higher = try topology(epoch: 6)
        #expect(try higher.supersedes(base) && !base.supersedes(higher))
        #expect(try !base.supersedes(base))
        // Two nodes made epoch 6 without knowing of each other.
        let one = try base.promoting(address(7002), in: "a", above: 0)
        let other = try base.promoting(address(7003), in: "a", above: 0)
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
