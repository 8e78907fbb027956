import Core
import Sharding
import Testing

@testable import Configuration

/// The example of the contract, as it is.
let contractExample = """
    [[shards]]
    name = "shard-0"
    idx = 0
    address = "127.0.0.1:7001"                        # the first leader
    replicas = ["127.0.0.1:7002", "127.0.0.1:7003"]   # the first followers

    [[shards]]
    name = "shard-1"
    idx = 1
    address = "127.0.0.1:7002"
    replicas = ["127.0.0.1:7001"]
    """

@Suite struct ShardingFileTests {
    private func address(_ port: Int) -> NodeAddress { NodeAddress(host: "127.0.0.1", port: port) }

    @Test func theExampleOfTheContractWorksUnchanged() throws {
        let file = try ShardingFile(toml: contractExample)
        #expect(
            file.shards == [
                ShardPlacement(
                    name: "shard-0", index: 0, leader: address(7001), followers: [address(7002), address(7003)]),
                ShardPlacement(name: "shard-1", index: 1, leader: address(7002), followers: [address(7001)]),
            ])
        #expect(file.cluster == "distribkv")
        #expect(file.epoch == 1)
        #expect(file.storage == StorageSettings())
        #expect(file.replication == ReplicationSettings())
        #expect(file.router == RouterSettings())
    }

    @Test func fourShardsInTheAncestorsShapeWork() throws {
        let text = (0..<4).map { index in
            """
            [[shards]]
            name = "Shard-\(index)"
            idx = \(index)
            address = "127.0.0.\(index + 2):8080"
            replicas = ["127.0.0.\(index + 2)2:8080"]
            """
        }.joined(separator: "\n\n")
        let topology = try ShardingFile(toml: text).topology()
        #expect(topology.shards.map(\.name) == ["Shard-0", "Shard-1", "Shard-2", "Shard-3"])
        for shard in topology.shards {
            #expect(!shard.slots.isEmpty)
            #expect(shard.followers.count == 1)
        }
    }

    @Test func shardsStandByIndexWhateverTheirOrderInTheFile() throws {
        let file = try ShardingFile(
            toml: """
                [[shards]]
                name = "b"
                idx = 1
                address = "[::1]:7002"
                [[shards]]
                name = "a"
                idx = 0
                address = "node-1.example:7001"
                """)
        #expect(file.shards.map(\.name) == ["a", "b"])
        #expect(file.shards.map(\.leader.description) == ["node-1.example:7001", "[::1]:7002"])
        #expect(file.shards.map(\.followers) == [[], []])
    }

    @Test func everySettingIsRead() throws {
        let file = try ShardingFile(
            toml: contractExample + """

                [cluster]
                name = "orders"
                epoch = 7
                [storage]
                durability = "interval"
                block_cache_bytes = "1GiB"
                write_buffer_bytes = 33554432
                value_bytes_max = "1 MiB"
                reader_threads = 2
                reader_queue_max = 16
                scrub_bytes_per_second = "10MiB"
                [replication]
                log_retention_bytes = "2GiB"
                batch_bytes_max = "128KiB"
                in_flight_bytes_max = "256KiB"
                snapshot_bytes_per_second = "20MiB"
                default_ack = "quorum"
                [router]
                mode = "proxy"
                health_interval_ms = 250
                """)
        #expect(file.cluster == "orders")
        #expect(file.epoch == 7)
        var storage = StorageSettings()
        storage.durability = .interval
        storage.blockCacheBytes = 1 << 30
        storage.writeBufferBytes = 32 << 20
        storage.valueBytesMax = 1 << 20
        storage.readerThreads = 2
        storage.readerQueueMax = 16
        storage.scrubBytesPerSecond = 10 << 20
        #expect(file.storage == storage)
        var replication = ReplicationSettings()
        replication.logRetentionBytes = 2 << 30
        replication.batchBytesMax = 128 << 10
        replication.inFlightBytesMax = 256 << 10
        replication.snapshotBytesPerSecondMax = 20 << 20
        replication.defaultAck = .quorum
        #expect(file.replication == replication)
        var router = RouterSettings()
        router.mode = .proxy
        router.healthIntervalMilliseconds = 250
        #expect(file.router == router)
        let topology = try file.topology()
        #expect(topology.epoch == 7)
        #expect(topology.shards.map(\.term) == [7, 7])
    }

    /// What the file says, and what it means.
    @Test func acksAndRatesAreRead() throws {
        for (text, level) in [("leader", AckLevel.leader), ("1", .leader), ("2", .replicas(2)), ("all", .all)] {
            let file = try ShardingFile(toml: "\(contractExample)\n[replication]\ndefault_ack = \"\(text)\"")
            #expect(file.replication.defaultAck == level)
        }
        for (text, rate) in [("0", nil), ("1", 1), ("\"1GiB\"", 1 << 30)] as [(String, Int?)] {
            let file = try ShardingFile(toml: "\(contractExample)\n[replication]\nsnapshot_bytes_per_second = \(text)")
            #expect(file.replication.snapshotBytesPerSecondMax == rate)
        }
    }

    @Test func inlineTablesAndDottedKeysAreTheSameFile() throws {
        let text = """
            shards = [
              { name = "shard-0", idx = 0, address = "127.0.0.1:7001", replicas = ["127.0.0.1:7002", "127.0.0.1:7003"] },
              { name = "shard-1", idx = 1, address = "127.0.0.1:7002", replicas = ["127.0.0.1:7001"] },
            ]
            storage.durability = "os"
            """
        let file = try ShardingFile(toml: text)
        let plain = try ShardingFile(toml: contractExample)
        #expect(file.shards == plain.shards)
        #expect(file.storage.durability == .os)
    }
}

@Suite struct ByteSizeTests {
    @Test(arguments: [
        ("1B", 1), ("0KiB", 0), ("256MiB", 256 << 20), ("256 MiB", 256 << 20), ("3GiB", 3 << 30), ("2TiB", 2 << 40),
    ]) func reads(text: String, bytes: Int) {
        #expect(ByteSize.parse(text) == bytes)
    }

    @Test(arguments: [
        "", "MiB", "256", "256MB", "256mib", "-1MiB", "+1MiB", "1.5MiB", "1  MiB", "1MiB ", "9223372036854775807TiB",
        "٣MiB",
    ]) func refuses(text: String) {
        #expect(ByteSize.parse(text) == nil)
    }

    @Test func describesExactly() {
        for bytes in [0, 1, 1_000, 1 << 10, 1_536, 256 << 20, 5 << 30, 1 << 40, 1 << 44] {
            #expect(ByteSize.parse(ByteSize.describe(bytes)) == bytes)
        }
        #expect(ByteSize.describe(256 << 20) == "256MiB")
    }
}
