import Core
import NIOCore
import Sharding
import Testing

@testable import RouterService

@Suite struct RoutingTableTests {
    private let nodes = addresses(3)
    private let now = NIODeadline.uptimeNanoseconds(1)

    private func table(dead: [Int] = [], notReady: [Int] = []) throws -> RoutingTable {
        var health: [NodeAddress: NodeHealth] = [:]
        for node in dead {
            var state = NodeHealth()
            for _ in 0..<NodeHealth.failuresUntilDead { _ = state.failed("x") }
            health[nodes[node]] = state
        }
        for node in notReady {
            var state = NodeHealth()
            _ = state.answered(ready: false, epoch: nil, at: now)
            health[nodes[node]] = state
        }
        let topology = try topology([[nodes[0], nodes[1], nodes[2]], [nodes[1], nodes[2]]])
        return try RoutingTable(generation: 1, document: TopologyDocument(topology), health: health)
    }

    @Test func allAlive() throws {
        let table = try table()
        #expect(table.shards[0] == .init(leader: 0, readers: [0, 1, 2]))
        #expect(table.shards[1] == .init(leader: 1, readers: [1, 2]))
    }

    @Test func deadNodesServeNothing() throws {
        let table = try table(dead: [1])
        #expect(table.shards[0] == .init(leader: 0, readers: [0, 2]))
        #expect(table.shards[1] == .init(leader: nil, readers: [2]))
    }

    @Test func readsAvoidNodesThatAreNotReady() throws {
        let table = try table(notReady: [0])
        #expect(table.shards[0] == .init(leader: 0, readers: [1, 2]))
    }

    @Test func readsTakeNodesThatAreNotReadyWhereNoOtherIsAlive() throws {
        let table = try table(dead: [1], notReady: [2])
        #expect(table.shards[1] == .init(leader: nil, readers: [2]))
    }

    @Test func whatNobodyHasSeenAnswerIsNotProven() throws {
        #expect(try table().unprovenShards == ["shard-0", "shard-1"])
        #expect(try table(dead: [0], notReady: [1]).unprovenShards == [])
        #expect(try table(dead: [1, 2], notReady: [0]).unprovenShards == ["shard-1"])
    }
}
