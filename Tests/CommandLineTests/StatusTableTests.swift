import TerminalText
import Core
import NIOCore
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
        _ name: String, _ role: PositionDocument.Role, term: UInt64, lsn: UInt64, failure: String? = nil,
        _ change: (inout StorageNodeStatus.Shard) -> Void = { _ in }
    ) -> StorageNodeStatus.Shard {
        var shard = StorageNodeStatus.Shard(
            name: name, role: role, position: LogPosition(term: term, lsn: lsn, version: .zero),
            keysEstimate: 1_234_567, diskBytes: 12 << 20, memtableBytes: 1 << 19, logFirstLsn: 1, failure: failure)
        change(&shard)
        return shard
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
                            shard("shard-0", .follower, term: 1, lsn: 12_300) { $0.lagMilliseconds = 1_250 },
                            shard("shard-1", .leader, term: 2, lsn: 5, failure: "the disk is full"),
                        ])),
                n3: .failure(KVError(.unavailable, "cannot connect to 127.0.0.1:7003")),
            ])
        #expect(!status.isHealthy)
        #expect(
            StatusTable.render(status) == """
                cluster test, epoch 3, 2 of 3 nodes up

                SHARD    TERM  ROLE      NODE               LSN  LAG  LAG MS      KEYS≈      SIZE  STATE
                shard-0     1  leader    127.0.0.1:7001  12,345               1,234,567  12.5 MiB  leading
                               follower  127.0.0.1:7002  12,300   45   1,250  1,234,567  12.5 MiB  following
                               follower  127.0.0.1:7003       -    -       -          -         -  down: cannot connect to 127.0.0.1:7003
                shard-1     2  leader    127.0.0.1:7002       5               1,234,567  12.5 MiB  refuses writes: the disk is full
                               follower  127.0.0.1:7001       7    0       -  1,234,567  12.5 MiB  2 ahead of its leader

                shard-1: its leader 127.0.0.1:7002 has lost the end of its log, which a follower has; what is written now \
                may be lost: stop 127.0.0.1:7002, run kv failover shard-1, then start it

                """)
        #expect(
            TextTable.raw(StatusTable.rows(status, { String($0) }, bytes: { String($0) }))
                == ByteBuffer(
                    string: """
                        shard-0\t1\tleader\t127.0.0.1:7001\t12345\t-\t-\t1234567\t13107200\tleading
                        shard-0\t1\tfollower\t127.0.0.1:7002\t12300\t45\t1250\t1234567\t13107200\tfollowing
                        shard-0\t1\tfollower\t127.0.0.1:7003\t-\t-\t-\t-\t-\tdown: cannot connect to 127.0.0.1:7003
                        shard-1\t2\tleader\t127.0.0.1:7002\t5\t-\t-\t1234567\t13107200\trefuses writes: the disk is full
                        shard-1\t2\tfollower\t127.0.0.1:7001\t7\t0\t-\t1234567\t13107200\t2 ahead of its leader

                        """))
    }

    @Test func aNodeThatHasNotTakenItsRoleIsShown() throws {
        let all = [shard("shard-0", .follower, term: 1, lsn: 1), shard("shard-1", .follower, term: 1, lsn: 1)]
        let status = ClusterStatus(
            topology: try topology(),
            answers: [n1: .success(node(n1, all)), n2: .success(node(n2, [])), n3: .success(node(n3, all))])
        let states = status.shards.map { $0.replicas.map(\.state) }
        #expect(
            states == [
                ["calls itself follower", "the node does not host this shard", "following"],
                ["the node does not host this shard", "following"],
            ])
        #expect(status.shards[1].replicas[1].lagBatches == nil, "the leader's position is not known")
    }

    @Test func whatAReplicaIsBusyWithIsShown() throws {
        let states = try [
            shard("shard-0", .follower, term: 1, lsn: 1) { $0.state = .joining },
            shard("shard-0", .follower, term: 1, lsn: 1) { $0.state = .installing },
            shard("shard-0", .follower, term: 1, lsn: 1) {
                $0.state = .joining
                $0.snapshot = SnapshotProgress(
                    bytesDone: 459, bytesTotal: 1_000, bytesPerSecond: 120_000_000, secondsLeft: 8.04)
            },
            shard("shard-0", .follower, term: 1, lsn: 1) {
                $0.snapshot = SnapshotProgress(bytesDone: 0, bytesTotal: 0, bytesPerSecond: 0, secondsLeft: nil)
            },
        ].map { replica in
            let status = ClusterStatus(topology: try topology(), answers: [n2: .success(node(n2, [replica]))])
            let shown = status.shards[0].replicas[1]
            #expect(!shown.isHealthy)
            return shown.state
        }
        #expect(
            states == [
                "joining", "installing a snapshot", "rebuilding 45 %, 120.0 MB/s, 8.0 s left",
                "rebuilding 0 %, 0.0 MB/s",
            ])
    }

    @Test func whatWantsAttentionStandsBelow() throws {
        var late = node(n2, [])
        late.epoch = 2
        let saved = [
            DivergedWrites(
                file: "/d/a.ndjson", shard: "shard-0", firstLsn: 5, lastLsn: 9, writes: 1_200, isComplete: true),
            DivergedWrites(
                file: "/d/b.ndjson", shard: "shard-0", firstLsn: 5, lastLsn: 9, writes: 1, isComplete: false),
        ]
        let status = ClusterStatus(
            topology: try topology(),
            answers: [
                n1: .success(node(n1, [shard("shard-0", .leader, term: 1, lsn: 1) { $0.diverged = saved }])),
                n2: .success(late),
            ])
        let text = StatusTable.render(status)
        let notes = try #require(text.split(separator: "\n\n").last)
        #expect(
            notes == """
                127.0.0.1:7002 is at epoch 2, the newest is 3: it learns it from another node within seconds, unless it \
                cannot reach one
                shard-0 at 127.0.0.1:7001 saved 1,200 writes that the shard's history does not have: /d/a.ndjson; look at \
                them and import what is wanted with kv import /d/a.ndjson
                shard-0 at 127.0.0.1:7001 saved 1 write that the shard's history does not have (the newest of each key: \
                its log no longer held all): /d/b.ndjson; look at them and import what is wanted with kv import \
                /d/b.ndjson

                """)
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
