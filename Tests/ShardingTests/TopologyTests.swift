import Core
import Testing

@testable import Sharding

@Suite struct TopologyTests {
    private func address(_ port: Int) -> NodeAddress { NodeAddress(host: "127.0.0.1", port: port) }

    private func slots(_ first: UInt16, _ last: UInt16) -> SlotRange {
        SlotRange(first: HashSlot(rawValue: first), last: HashSlot(rawValue: last))
    }

    private func twoShards() throws -> Topology {
        try Topology(
            cluster: "demo", epoch: 3,
            shards: [
                ShardTopology(
                    name: "a", index: 0, term: 2, leader: address(7001), followers: [address(7002), address(7003)],
                    slots: [slots(0, 99), slots(200, 16_383)]),
                ShardTopology(
                    name: "b", index: 1, term: 3, leader: NodeAddress(host: "::1", port: 7002), followers: [],
                    slots: [slots(100, 199)]),
            ])
    }

    private static let golden = """
        {"cluster":"demo","epoch":3,"shards":[{"followers":["127.0.0.1:7002","127.0.0.1:7003"],"idx":0,\
        "leader":"127.0.0.1:7001","name":"a","slots":[[0,99],[200,16383]],"term":2},{"followers":[],"idx":1,\
        "leader":"[::1]:7002","name":"b","slots":[[100,199]],"term":3}]}
        """

    @Test func jsonIsStable() throws {
        let topology = try twoShards()
        #expect(String(decoding: try topology.json(), as: UTF8.self) == TopologyTests.golden)
        #expect(try Topology(json: TopologyTests.golden.utf8) == topology)
    }

    @Test func slotsAreFound() throws {
        let topology = try twoShards()
        for (slot, name) in [(0, "a"), (99, "a"), (100, "b"), (199, "b"), (200, "a"), (16_383, "a")] {
            let slot = HashSlot(rawValue: UInt16(slot))
            #expect(topology.shard(of: slot).name == name)
            #expect(topology.shards[topology.position(of: slot)].name == name)
        }
        #expect(topology.shard(named: "b")?.index == 1)
        #expect(topology.shard(named: "c") == nil)
        #expect(topology.nodes == [address(7001), address(7002), address(7003), NodeAddress(host: "::1", port: 7002)])
    }

    /// The slot table follows from the shards; everything else counts.
    @Test func equalityIsOfTheDocument() throws {
        let topology = try twoShards()
        let same = try twoShards()
        #expect(topology == same && topology.hashValue == same.hashValue)
        var shards = topology.shards
        shards[1].term += 1
        let others = [
            try Topology(cluster: "other", epoch: 3, shards: topology.shards),
            try Topology(cluster: "demo", epoch: 4, shards: topology.shards),
            try Topology(cluster: "demo", epoch: 3, shards: shards),
            try Topology(cluster: "demo", epoch: 3, shards: topology.shards.reversed()),
        ]
        #expect(Set([topology, same] + others).count == 1 + others.count)
        for other in others { #expect(topology != other) }
    }

    /// In which order the shards name their ranges says nothing.
    @Test func rangesMayStandInAnyOrder() throws {
        let before = try twoShards()
        var shards = before.shards
        shards[0].slots.reverse()
        let after = try Topology(cluster: "demo", epoch: 3, shards: shards.reversed())
        for slot in stride(from: 0, to: HashSlot.count, by: 7) {
            let slot = HashSlot(rawValue: UInt16(slot))
            #expect(after.shard(of: slot).name == before.shard(of: slot).name)
        }
    }

    /// Each pair: what is changed in the golden document, and what the refusal says.
    @Test(arguments: [
        ("[100,199]", "[100,198]", "slot 199 belongs to no shard"),
        ("[100,199]", "[99,199]", "slot 99 belongs to two shards"),
        ("[0,99]", "[0,16383]", "slot 100 belongs to two shards"),
        ("[0,99]", "[1,99]", "slot 0 belongs to no shard"),
        ("[200,16383]", "[200,16382]", "slot 16383 belongs to no shard"),
        ("[100,199]", "[199,100]", "is not a range of slots"),
        ("[200,16383]", "[200,16384]", "is not a range of slots"),
        ("[100,199]", "[100]", "not a topology document"),
        ("[100,199]", "[-1,199]", "not a topology document"),
        ("\"name\":\"b\"", "\"name\":\"a\"", "two shards share a name"),
        ("\"idx\":1", "\"idx\":0", "two shards share an index"),
        ("7003", "7001", "an address stands twice in shard a"),
        ("\"[::1]:7002\"", "\"::1\"", "is not an address"),
        ("\"[::1]:7002\"", "7", "not a topology document"),
        ("\"epoch\":3", "\"epoch\":-3", "not a topology document"),
        ("\"epoch\":3,", "", "not a topology document"),
        ("\"cluster\":\"demo\"", "\"cluster\":null", "not a topology document"),
        ("}]}", "}]", "not a topology document"),
        ("{\"cluster\"", "[\"cluster\"", "not a topology document"),
    ])
    func wrongDocumentsAreRefused(original: String, replacement: String, message: String) throws {
        let text = TopologyTests.golden.replacing(original, with: replacement, maxReplacements: 1)
        #expect(text != TopologyTests.golden)
        let error = #expect(throws: KVError.self) { try Topology(json: text.utf8) }
        #expect(error?.code == .invalidData)
        #expect(error.map { $0.message.contains(message) } == true, "\(error?.message ?? "")")
    }

    @Test func aTopologyWithoutShardsIsRefused() {
        #expect(throws: KVError.self) { try Topology(cluster: "x", epoch: 1, shards: []) }
        #expect(throws: KVError.self) { try Topology.placing(cluster: "x", epoch: 1, shards: []) }
        #expect(throws: KVError.self) { try Topology(json: []) }
    }

    @Test(arguments: [1, 2, 5, 64]) func placingCoversAllSlotsAndRoundTrips(count: Int) throws {
        let placements = (0..<count).reversed().map { index in
            ShardPlacement(
                name: "shard-\(index)", index: index, leader: address(7_000 + index),
                followers: [address(8_000 + index)])
        }
        let topology = try Topology.placing(cluster: "c", epoch: 9, shards: placements)
        #expect(topology.shards.map(\.index) == Array(0..<count))
        #expect(topology.shards.map(\.term) == [UInt64](repeating: 9, count: count))
        let table = ConsistentHashRing.assign(shards: topology.shards.map(\.name))
        for slot in 0..<HashSlot.count {
            guard topology.position(of: HashSlot(rawValue: UInt16(slot))) == Int(table[slot]) else {
                Issue.record("slot \(slot) is not where the ring has it")
                return
            }
        }
        for shard in topology.shards {
            for (left, right) in zip(shard.slots, shard.slots.dropFirst()) {
                #expect(left.last.rawValue + 1 < right.first.rawValue)
            }
        }
        let decoded = try Topology(json: topology.json())
        #expect(decoded == topology)
    }

    @Test func placingRefusesWhatIsNoTopology() {
        let one = ShardPlacement(name: "a", index: 0, leader: address(1), followers: [])
        let sameName = ShardPlacement(name: "a", index: 1, leader: address(1), followers: [])
        let sameIndex = ShardPlacement(name: "b", index: 0, leader: address(1), followers: [])
        let twice = ShardPlacement(name: "b", index: 1, leader: address(1), followers: [address(1)])
        for other in [sameName, sameIndex, twice] {
            #expect(throws: KVError.self) { try Topology.placing(cluster: "x", epoch: 1, shards: [one, other]) }
        }
    }
}
