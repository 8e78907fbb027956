import Core
import Testing

@testable import Configuration

/// A wrong sharding.toml and the one line it is refused with.
struct BadFile: Sendable, CustomTestStringConvertible {
    let toml: String
    let message: String

    init(_ toml: String, _ message: String) {
        self.toml = toml
        self.message = message
    }

    /// The example of the contract with `old` replaced by `new`, or with `new` added where `old` is empty.
    init(_ old: String, _ new: String, _ message: String) {
        toml =
            old.isEmpty ? "\(contractExample)\n\(new)" : contractExample.replacing(old, with: new, maxReplacements: 1)
        self.message = message
    }

    var testDescription: String { message }
}

private let nameAllowed = "1 to 64 of the characters A–Z a–z 0–9 . _ -, not only dots"
private let addressAllowed = "\"host:port\" with a port from 1 to 65535"
private let cacheAllowed = "1MiB to 1TiB, as bytes or as a string like \"256MiB\""
private let ackAllowed = "allowed: \"leader\", \"quorum\", \"all\" or a number of replicas as \"2\""
private let rateAllowed = "allowed: 0B to 1TiB, as bytes or as a string like \"256MiB\""
private let noShard =
    "sharding.toml: shards: there is no shard; write a [[shards]] table with name, idx, address and replicas for each"
private let shardKeys = "known here: address, idx, name, replicas"

@Suite struct BadFileTests {
    static let shards = [
        BadFile("", noShard),
        BadFile("# nothing\n", noShard),
        BadFile(
            "shards = []",
            "sharding.toml:1: shards: there is no shard; write a [[shards]] table with name, idx, address and replicas for each"
        ),
        BadFile(
            "\nshards = 1",
            "sharding.toml:2: shards: an integer is not allowed; write every shard as a table [[shards]]"),
        BadFile(
            "[shards]\nname = \"a\"",
            "sharding.toml:1: shards: a table is not allowed; write every shard as a table [[shards]]"),
        BadFile(
            "shards = [\n  1]",
            "sharding.toml:2: shards[0]: an integer is not allowed; write every shard as a table [[shards]]"),
        BadFile(
            "idx = 1\n", "idx = 0\n",
            "sharding.toml:9: shards[1].idx: 0 is also shards[0].idx on line 3; allowed: 0 to 1, each once"),
        BadFile(
            "idx = 1\n", "idx = 2\n",
            "sharding.toml:9: shards[1].idx: 2 is out of range; allowed: an integer from 0 to 1"),
        BadFile(
            "idx = 1\n", "idx = -1\n",
            "sharding.toml:9: shards[1].idx: -1 is out of range; allowed: an integer from 0 to 1"),
        BadFile("idx = 1\n", "", "sharding.toml:7: shards[1].idx: missing; required: an integer from 0 to 1"),
        BadFile(
            "idx = 1\n", "idx = \"1\"\n",
            "sharding.toml:9: shards[1].idx: a string is not allowed; allowed: an integer from 0 to 1"),
        BadFile(
            "idx = 1\n", "idx = 1.0\n",
            "sharding.toml:9: shards[1].idx: a floating-point number is not allowed; allowed: an integer from 0 to 1"),
        BadFile(
            "idx = 1\n", "idx = true\n",
            "sharding.toml:9: shards[1].idx: a boolean is not allowed; allowed: an integer from 0 to 1"),
        BadFile(
            "idx = 1\n", "idx = 2026-11-24\n",
            "sharding.toml:9: shards[1].idx: a date or time is not allowed; allowed: an integer from 0 to 1"),
        BadFile(
            "\"shard-1\"", "\"shard-0\"",
            "sharding.toml:8: shards[1].name: \"shard-0\" is also shards[0].name on line 2; every shard needs a name of its own"
        ),
        BadFile(
            "\"shard-1\"", "\"shard 1\"",
            "sharding.toml:8: shards[1].name: \"shard 1\" is not allowed; allowed: \(nameAllowed)"),
        BadFile("\"shard-1\"", "\"\"", "sharding.toml:8: shards[1].name: \"\" is not allowed; allowed: \(nameAllowed)"),
        BadFile(
            "\"shard-1\"", "\"..\"", "sharding.toml:8: shards[1].name: \"..\" is not allowed; allowed: \(nameAllowed)"),
        BadFile(
            "\"shard-1\"", "\"a/b\"", "sharding.toml:8: shards[1].name: \"a/b\" is not allowed; allowed: \(nameAllowed)"
        ),
        BadFile(
            "\"shard-1\"", "\"größe\"",
            "sharding.toml:8: shards[1].name: \"größe\" is not allowed; allowed: \(nameAllowed)"),
        BadFile(
            "\"shard-1\"", "\"\(String(repeating: "x", count: 65))\"",
            "sharding.toml:8: shards[1].name: \"\(String(repeating: "x", count: 65))\" is not allowed; allowed: \(nameAllowed)"
        ),
        BadFile(
            "\"shard-1\"", "\"\(String(repeating: "x", count: 999))\"",
            "sharding.toml:8: shards[1].name: \"\(String(repeating: "x", count: 80))…\" is not allowed; allowed: \(nameAllowed)"
        ),
        BadFile(
            "\"shard-1\"", "\"a\\nb\"",
            "sharding.toml:8: shards[1].name: \"a\\nb\" is not allowed; allowed: \(nameAllowed)"),
        BadFile("name = \"shard-1\"\n", "", "sharding.toml:7: shards[1].name: missing; required: \(nameAllowed)"),
        BadFile(
            "name = \"shard-1\"\n", "name = 1\n",
            "sharding.toml:8: shards[1].name: an integer is not allowed; allowed: \(nameAllowed)"),
    ]

    static let addresses = [
        BadFile(
            "address = \"127.0.0.1:7002\"\n", "",
            "sharding.toml:7: shards[1].address: missing; required: \(addressAllowed)"),
        BadFile(
            "address = \"127.0.0.1:7002\"", "address = \"127.0.0.1\"",
            "sharding.toml:10: shards[1].address: \"127.0.0.1\" is not an address; allowed: \(addressAllowed)"),
        BadFile(
            "address = \"127.0.0.1:7002\"", "address = \"127.0.0.1:0\"",
            "sharding.toml:10: shards[1].address: \"127.0.0.1:0\" is not an address; allowed: \(addressAllowed)"),
        BadFile(
            "address = \"127.0.0.1:7002\"", "address = \"127.0.0.1:70020\"",
            "sharding.toml:10: shards[1].address: \"127.0.0.1:70020\" is not an address; allowed: \(addressAllowed)"),
        BadFile(
            "address = \"127.0.0.1:7002\"", "address = \"http://127.0.0.1:7002\"",
            "sharding.toml:10: shards[1].address: \"http://127.0.0.1:7002\" is not an address; allowed: \(addressAllowed)"
        ),
        BadFile(
            "address = \"127.0.0.1:7002\"", "address = 7002",
            "sharding.toml:10: shards[1].address: an integer is not allowed; allowed: \(addressAllowed)"),
        BadFile(
            "[\"127.0.0.1:7001\"]", "[\"127.0.0.1:7002\"]",
            "sharding.toml:11: shards[1].replicas[0]: 127.0.0.1:7002 stands twice in this shard; a node holds at most one replica of a shard"
        ),
        BadFile(
            "[\"127.0.0.1:7001\"]", "\((1...16).map { "b:\($0)" })",
            "sharding.toml:11: shards[1].replicas: 17 replicas with the one at address; allowed: at most 16"),
        BadFile(
            "[\"127.0.0.1:7001\"]", "[\"a:1\",\n \"b:1\",\n \"a:1\"]",
            "sharding.toml:13: shards[1].replicas[2]: a:1 stands twice in this shard; a node holds at most one replica of a shard"
        ),
        BadFile(
            "[\"127.0.0.1:7001\"]", "[\"a:1\", # first\n \"b\"]",
            "sharding.toml:12: shards[1].replicas[1]: \"b\" is not an address; allowed: \(addressAllowed)"),
        BadFile(
            "[\"127.0.0.1:7001\"]", "[\"a:1\", 7001]",
            "sharding.toml:11: shards[1].replicas[1]: an integer is not allowed; allowed: \(addressAllowed)"),
        BadFile(
            "[\"127.0.0.1:7001\"]", "\"127.0.0.1:7001\"",
            "sharding.toml:11: shards[1].replicas: a string is not allowed; allowed: an array of addresses, each \(addressAllowed)"
        ),
    ]

    static let unknown = [
        BadFile(
            "address = \"127.0.0.1:7002\"", "adress = \"127.0.0.1:7002\"",
            "sharding.toml:10: shards[1].adress: unknown key; did you mean \"address\"? \(shardKeys)"),
        BadFile(
            "address = \"127.0.0.1:7002\"", "Address = \"127.0.0.1:7002\"",
            "sharding.toml:10: shards[1].Address: unknown key; did you mean \"address\"? \(shardKeys)"),
        BadFile(
            "idx = 1", "index = 1", "sharding.toml:9: shards[1].index: unknown key; did you mean \"idx\"? \(shardKeys)"),
        BadFile("idx = 1", "idx = 1\nweight = 3", "sharding.toml:10: shards[1].weight: unknown key; \(shardKeys)"),
        BadFile("idx = 1", "idx = 1\n\"a b\" = 3", "sharding.toml:10: shards[1].\"a b\": unknown key; \(shardKeys)"),
        BadFile(
            "", "[storge]\ndurability = \"os\"",
            "sharding.toml:12: storge: unknown table or key; did you mean \"storage\"? known here: cluster, replication, router, shards, storage"
        ),
        BadFile(
            "", "[auth]\n",
            "sharding.toml:12: auth: unknown table or key; known here: cluster, replication, router, shards, storage"),
        BadFile(
            "", "[[shard]]\nname = \"x\"",
            "sharding.toml:12: shard: unknown table or key; did you mean \"shards\"? known here: cluster, replication, router, shards, storage"
        ),
        BadFile(
            "", "[storage]\ncache_bytes = 1",
            "sharding.toml:13: storage.cache_bytes: unknown key; known here: block_cache_bytes, durability, reader_queue_max, reader_threads, scrub_bytes_per_second, value_bytes_max, write_buffer_bytes"
        ),
        BadFile(
            "", "[router]\nmdoe = \"proxy\"",
            "sharding.toml:13: router.mdoe: unknown key; did you mean \"mode\"? known here: health_interval_ms, mode"),
    ]

    static let settings = [
        BadFile(
            "", "[cluster]\nname = \"a b\"",
            "sharding.toml:13: cluster.name: \"a b\" is not allowed; allowed: \(nameAllowed)"),
        BadFile(
            "", "[cluster]\nepoch = 0",
            "sharding.toml:13: cluster.epoch: 0 is out of range; allowed: an integer from 1 to 9223372036854775807"),
        BadFile(
            "", "[storage]\ndurability = \"sometimes\"",
            "sharding.toml:13: storage.durability: \"sometimes\" is not allowed; allowed: \"always\", \"interval\", \"os\""
        ),
        BadFile(
            "", "[storage]\ndurability = true",
            "sharding.toml:13: storage.durability: a boolean is not allowed; allowed: \"always\", \"interval\", \"os\""),
        BadFile(
            "", "[storage]\nblock_cache_bytes = \"256MB\"",
            "sharding.toml:13: storage.block_cache_bytes: \"256MB\" is not a size; allowed: \(cacheAllowed)"),
        BadFile(
            "", "[storage]\nblock_cache_bytes = \"1KiB\"",
            "sharding.toml:13: storage.block_cache_bytes: \"1KiB\" is out of range; allowed: \(cacheAllowed)"),
        BadFile(
            "", "[storage]\nblock_cache_bytes = -1",
            "sharding.toml:13: storage.block_cache_bytes: -1 is out of range; allowed: \(cacheAllowed)"),
        BadFile(
            "", "[storage]\nblock_cache_bytes = [1]",
            "sharding.toml:13: storage.block_cache_bytes: an array is not allowed; allowed: \(cacheAllowed)"),
        BadFile(
            "", "[storage]\nvalue_bytes_max = \"33MiB\"",
            "sharding.toml:13: storage.value_bytes_max: \"33MiB\" is out of range; allowed: 1B to 32MiB, as bytes or as a string like \"256MiB\""
        ),
        BadFile(
            "", "[storage]\nreader_threads = 0",
            "sharding.toml:13: storage.reader_threads: 0 is out of range; allowed: an integer from 1 to 256"),
        BadFile(
            "", "[replication]\ndefault_ack = \"two\"",
            "sharding.toml:13: replication.default_ack: \"two\" is not allowed; \(ackAllowed)"),
        BadFile(
            "", "[replication]\ndefault_ack = \"0\"",
            "sharding.toml:13: replication.default_ack: \"0\" is not allowed; \(ackAllowed)"),
        BadFile(
            "", "[replication]\ndefault_ack = 2",
            "sharding.toml:13: replication.default_ack: an integer is not allowed; \(ackAllowed)"),
        BadFile(
            "", "[replication]\nsnapshot_bytes_per_second = -1",
            "sharding.toml:13: replication.snapshot_bytes_per_second: -1 is out of range; \(rateAllowed)"),
        BadFile(
            "", "[replication]\nsnapshot_bytes_per_second = \"fast\"",
            "sharding.toml:13: replication.snapshot_bytes_per_second: \"fast\" is not a size; \(rateAllowed)"),
        BadFile(
            "", "[replication]\ndefault_acks = \"all\"",
            "sharding.toml:13: replication.default_acks: unknown key; did you mean \"default_ack\"? known here: batch_bytes_max, default_ack, in_flight_bytes_max, log_retention_bytes, snapshot_bytes_per_second"
        ),
        BadFile(
            "", "[replication]\nbatch_bytes_max = \"8MiB\"\nin_flight_bytes_max = \"4MiB\"",
            "sharding.toml:14: replication.in_flight_bytes_max: 4MiB is less than batch_bytes_max; allowed: at least 8MiB"
        ),
        BadFile(
            "", "[router]\nmode = \"proxying\"",
            "sharding.toml:13: router.mode: \"proxying\" is not allowed; allowed: \"redirect\", \"proxy\""),
        BadFile(
            "", "[router]\nhealth_interval_ms = \"1s\"",
            "sharding.toml:13: router.health_interval_ms: a string is not allowed; allowed: an integer from 100 to 60000"
        ),
        BadFile(
            "", "[[storage]]\ndurability = \"os\"",
            "sharding.toml:12: storage: an array is not allowed; write it as the table [storage]"),
        BadFile(
            "storage = 1\n" + contractExample,
            "sharding.toml:1: storage: an integer is not allowed; write it as the table [storage]"),
        // What stands in strings and comments is not a key, and the lines of what follows still hold.
        BadFile(
            "", "# [storage]\n[cluster]\nname = '''\nepoch = 1\n\"\"\"'''\n",
            "sharding.toml:14: cluster.name: \"epoch = 1\\n\\\"\\\"\\\"\" is not allowed; allowed: \(nameAllowed)"),
        BadFile(
            "", "[cluster]\nname = \"\"\"x \\\" \"\"\"\nepoch = 0",
            "sharding.toml:13: cluster.name: \"x \\\" \" is not allowed; allowed: \(nameAllowed)"),
        BadFile(
            "", "[router]\r\nmode = 1\r\n",
            "sharding.toml:13: router.mode: an integer is not allowed; allowed: \"redirect\", \"proxy\""),
    ]

    @Test(arguments: shards + addresses + unknown + settings)
    func isRefusedWithExactlyThisLine(bad: BadFile) {
        let error = #expect(throws: KVError.self) { try ShardingFile(toml: bad.toml) }
        #expect(error?.code == .invalidConfiguration)
        #expect(error?.message == bad.message)
        #expect(error?.description.contains("\n") == false)
    }

    /// The parser's own words are the library's, so only file, line and kind are held here.
    @Test(arguments: [
        ("[[shards]]\nname = ", 2), ("a = 1\na = 2", 2), ("[[shards]\n", 1), ("x", 1), ("a = 'b", 1),
        ("\n\na = [1,\n", 3),
        ("a = 01", 1), ("[a]\n[a]", 2), ("a = \"\\q\"", 1), ("ä = 1", 1), ("a = 9223372036854775808", 1), ("= 1", 1),
    ])
    func syntaxErrorsNameTheLine(toml: String, line: Int) {
        let error = #expect(throws: KVError.self) { try ShardingFile(toml: toml, file: "dir/my.toml") }
        #expect(error?.code == .invalidConfiguration)
        let prefix = "dir/my.toml:\(line): not valid TOML: "
        #expect(error?.message.hasPrefix(prefix) == true, "\(error?.message ?? "")")
        #expect(error?.description.contains("\n") == false)
    }

    @Test func aNULByteIsRefused() {
        let error = #expect(throws: KVError.self) { try ShardingFile(toml: contractExample + "\n\0[storage]") }
        #expect(error?.message == "sharding.toml:12: not valid TOML: the file contains a NUL byte")
    }

    /// The library would end the process.
    @Test(arguments: ["[é]", "[\\u0061]", "[[\\a]]", " [ é]", "[[[a]]]", "[", "[\t", "[#"])
    func namesOfTablesThatAreNone(header: String) {
        let error = #expect(throws: KVError.self) { try ShardingFile(toml: "a = 1\n" + header + "\nb = 2\n") }
        #expect(error?.message.hasPrefix("sharding.toml:2: not valid TOML: the name of a table begins with") == true)
    }

    @Test func tooManyShardsAreRefused() {
        let toml = (0...1_024).map { "[[shards]]\nname = \"s\($0)\"\nidx = \($0)\naddress = \"a:1\"\n" }.joined()
        let error = #expect(throws: KVError.self) { try ShardingFile(toml: toml) }
        #expect(error?.message == "sharding.toml:1: shards: 1025 shards; allowed: at most 1024")
    }
}

@Suite struct FileReadingTests {
    @Test func aFileIsReadFromDisk() throws {
        try withTemporaryDirectory { directory in
            let path = directory + "/sharding.toml"
            try LocalFile.replace(path: path, with: Array(contractExample.utf8))
            let file = try ShardingFile.load(path: path)
            let parsed = try ShardingFile(toml: contractExample, file: path)
            #expect(file == parsed)
        }
    }

    @Test func anUnreadableFileIsRefused() throws {
        try withTemporaryDirectory { directory in
            let missing = #expect(throws: KVError.self) { try ShardingFile.load(path: "\(directory)/none.toml") }
            #expect(missing?.code == .invalidConfiguration)
            #expect(
                missing?.message
                    == "\(directory)/none.toml: cannot be read: No such file or directory; name a readable sharding.toml with --config"
            )
            let isDirectory = #expect(throws: KVError.self) { try ShardingFile.load(path: directory) }
            #expect(
                isDirectory?.message
                    == "\(directory): cannot be read: Is a directory; name a readable sharding.toml with --config")
        }
    }

    @Test func bytesThatAreNotTextAreRefusedWithTheirLine() throws {
        try withTemporaryDirectory { directory in
            let path = directory + "/s.toml"
            try LocalFile.replace(path: path, with: Array("# ok\n# ü\n# ".utf8) + [0xFF, 0x0A])
            let error = #expect(throws: KVError.self) { try ShardingFile.load(path: path) }
            #expect(error?.message == "\(path):3: not valid TOML: not UTF-8 text")
        }
    }

    @Test func anEndlessFileIsRefused() {
        let error = #expect(throws: KVError.self) { try ShardingFile.load(path: "/dev/zero") }
        #expect(
            error?.message
                == "/dev/zero: cannot be read: larger than 4MiB; name a readable sharding.toml with --config")
    }
}
