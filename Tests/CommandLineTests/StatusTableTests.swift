import Core
import Sharding
import Testing
import Wire

@testable import kv

@Suite struct StatusTableTests {
    private let n1 = NodeAddress(host: "127.0.0.1", port: 7001)
    private let n2 = NodeAddress(host: "127.0.0.1", port: 7002)
    private let n3 = NodeAddress(host: "127.0.0.1", port: 7003)

    private func topology() throws -> Topology {
        let half = UInt16(HashSlot.count / 2)
        func range(_ first: UInt16, _ last: UInt16) -> [SlotRange] {
            [SlotRange(first: HashSlot(rawValue: first), last: HashSlot(rawValue: last))]
        }
        return try Topology(
            cluster: "test", epoch: 3,
            shards: [
                ShardTopology(
                    name: "shard-0", index: 0, term: 1, leader: n1, followers: [n2, n3], slots: range(0, half - 1)),
                ShardTopology(
                    name: "shard-1", index: 1, term: 2, leader: n2, followers: [n1], slots: range(half, half * 2 - 1)),
            ])
    }

    private func node(_ address: NodeAddress, _ shards: [StorageNodeStatus.Shard]) -> StorageNodeStatus {
        StorageNodeStatus(
            version: "0.1.0", node: address, epoch: 3, uptimeSeconds: 10, durability: "always", shards: shards)
    }

    private func shard(
        _ name: String, _ role: PositionDocument.Role, term: UInt64, lsn: UInt64, failure: String? = nil
    ) -> StorageNodeStatus.Shard {
        StorageNodeStatus.Shard(
            name: name, role: role, position: LogPosition(term: term, lsn: lsn, version: .zero),
            keysEstimate: 1_234_567, diskBytes: 12 << 20, memtableBytes: 1 << 19, logFirstLsn: 1, failure: failure)
    }

    @Test func aTableOfEveryReplica() throws {
        let status = ClusterStatus(
            topology: try topology(),
            answers: [
                n1: .success(
                    node(
                        n1,
                        [shard("shard-0", .leader, term: 1, lsn: 12_345), shard("shard-1", .follower, term: 2, lsn: 7)])
                ),
                n2: .success(
                    node(
                        n2,
                        [
                            shard("shard-0", .follower, term: 1, lsn: 12_300),
                            shard("shard-1", .leader, term: 2, lsn: 5, failure: "the disk is full"),
                        ])),
                n3: .failure(KVError(.unavailable, "cannot connect to 127.0.0.1:7003")),
            ])
        #expect(!status.isHealthy)
        #expect(
            StatusTable.render(status) == """
                cluster test, epoch 3, 2 of 3 nodes up

                SHARD    TERM  ROLE      NODE               LSN  LAG      KEYS≈      SIZE  STATE
                shard-0     1  leader    127.0.0.1:7001  12,345       1,234,567  12.5 MiB  ok
                               follower  127.0.0.1:7002  12,300   45  1,234,567  12.5 MiB  ok
                               follower  127.0.0.1:7003       -    -          -         -  down: cannot connect to 127.0.0.1:7003
                shard-1     2  leader    127.0.0.1:7002       5       1,234,567  12.5 MiB  refuses writes: the disk is full
                               follower  127.0.0.1:7001       7    0  1,234,567  12.5 MiB  ok

                """)
    }

    @Test func aNodeThatHasNotTakenItsRoleIsShown() throws {
        let all = [shard("shard-0", .follower, term: 1, lsn: 1), shard("shard-1", .follower, term: 1, lsn: 1)]
        let status = ClusterStatus(
            topology: try topology(),
            answers: [n1: .success(node(n1, all)), n2: .success(node(n2, [])), n3: .success(node(n3, all))])
        let states = status.shards.map { $0.replicas.map(\.state) }
        #expect(
            states == [
                ["calls itself follower", "the node does not host this shard", "ok"],
                ["the node does not host this shard", "ok"],
            ])
        #expect(status.shards[1].replicas[1].lagBatches == nil, "the leader's position is not known")
    }

    @Test func jsonHasTheSame() throws {
        let status = ClusterStatus(topology: try topology(), answers: [:])
        let json = String(decoding: try DocumentCoding.encode(status), as: UTF8.self)
        #expect(
            json.hasPrefix(
                #"{"cluster":"test","epoch":3,"nodes":[{"address":"127.0.0.1:7001","error":"was not asked"}"#))
        #expect(json.contains(#""name":"shard-1""#))
    }
}
