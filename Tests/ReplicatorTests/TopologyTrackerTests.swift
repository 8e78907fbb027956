import Core
import Logging
import Sharding
import Testing

@testable import ReplicatorService

@Suite struct TopologyTrackerTests {
    private func topology(epoch: UInt64, term: UInt64 = 1, leader: Int) throws -> Topology {
        let addresses = (7001...7003).map { NodeAddress(host: "127.0.0.1", port: $0) }
        let last = HashSlot(rawValue: UInt16(HashSlot.count - 1))
        return try Topology(
            cluster: "test", epoch: epoch,
            shards: [
                ShardTopology(
                    name: "shard-0", index: 0, term: term, leader: addresses[leader],
                    followers: addresses.filter { $0 != addresses[leader] },
                    slots: [SlotRange(first: HashSlot(rawValue: 0), last: last)])
            ])
    }

    /// Fetches `next` from a node that says it has epoch 9.
    private func fetching(_ next: Topology, knowing known: Topology) async -> Topology {
        let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let tracker = TopologyTracker(known, logger: quiet)
        tracker.observe(epoch: 9, of: NodeAddress(host: "127.0.0.1", port: 7001))
        await tracker.run { _ in
            tracker.finish()
            return next
        }
        return tracker.topology
    }

    @Test func theSupersedingOneIsTaken() async throws {
        let known = try topology(epoch: 4, term: 4, leader: 0)
        let newer = try topology(epoch: 9, term: 9, leader: 1)
        #expect(await fetching(newer, knowing: known) == newer)
        #expect(await fetching(try topology(epoch: 3, term: 9, leader: 1), knowing: known) == known)
        // Of one epoch: the higher term.
        let moved = try topology(epoch: 4, term: 5, leader: 2)
        #expect(await fetching(moved, knowing: known) == moved)
        #expect(await fetching(known, knowing: moved) == moved)
    }
}
