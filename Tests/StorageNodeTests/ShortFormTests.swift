import Configuration
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// The short forms of the Go ancestor, at one node.
@Suite(.timeLimit(.minutes(2))) struct ShortFormTests {
    private let shard: ScriptedShard

    init() throws { shard = try ScriptedShard(replicas: 1) }

    private func form(_ text: String) -> ByteBuffer { ByteBuffer(string: text) }
    private let formType = [(name: "content-type", value: "application/x-www-form-urlencoded; charset=utf-8")]

    @Test func valuesAreSetAndGot() async throws {
        try await shard.withNode(0) { client async throws in
            let set = try await client.get("/set?key=a+b%2F&value=1%20%2B+1")
            #expect(set.status == 200 && String(buffer: set.body) == "Key set successfully on shard 0\n")
            let got = try await client.get("/get?key=a%20b/")
            #expect(got.status == 200 && String(buffer: got.body) == "Value: 1 + 1")
            #expect(got.version == set.version && set.version != nil)
            #expect(String(buffer: try await client.get("/kv/a%20b%2F").body) == "1 + 1")
            let missing = try await client.get("/get?key=none")
            #expect(missing.status == 404 && String(buffer: missing.body) == "Value: , error = no such key\n")
            let posted = try await client.send(.POST, "/set", formType, body: form("key=c&value=%00%ff&ack=all"))
            #expect(posted.status == 200)
            #expect(
                Array(try await client.get("/get?key=c").body.readableBytesView) == Array("Value: ".utf8) + [0, 255])
            #expect(try await client.send(.POST, "/set?key=d", body: form("value=")).status == 200)
            #expect(String(buffer: try await client.get("/get?key=d").body) == "Value: ")
            #expect(try await client.get("/set?key=replica:x&value=y").status == 200)
            #expect(String(buffer: try await client.get("/get?key=replica:x").body) == "Value: y")
        }
    }

    @Test func badFormsAreRefused() async throws {
        try await shard.withNode(0, { $0.storage.valueBytesMax = 10 }) { client async throws in
            for target in [
                "/get", "/get?key=", "/set?key=a", "/set?value=a", "/get?key=%", "/get?key=a&key=b", "/get?keys=a",
                "/set?key=a&value=b&ack=2", "/set?key=a&value=b&ttl=1s",
                "/get?key=\(String(repeating: "k", count: 4_097))",
            ] {
                let response = try await client.get(target)
                #expect(response.status == 400 && response.problem.type == "bad-request", "\(target)")
            }
            #expect(try await client.get("/set?key=a&value=12345678901").status == 413)
            let large = ByteBuffer(repeating: 0x61, count: 3 * 4_106 + 1_025)
            #expect(try await client.send(.POST, "/set", formType, body: large).status == 413)
            let json = [(name: "content-type", value: "application/json")]
            #expect(try await client.send(.POST, "/set?key=a", json, body: form("{}")).status == 400)
            for (method, target) in [(HTTPMethod.POST, "/get?key=a"), (.PUT, "/set?key=a&value=b"), (.GET, "/purge")] {
                let response = try await client.send(method, target)
                #expect(response.status == 405 && response.headers.first(name: "allow") != nil, "\(target)")
            }
            #expect(try await client.get("/kv/a").status == 404)
            #expect(try await client.get("/gets?key=a").status == 404)
        }
    }

    /// The shards of the file have changed: what a shard does not own any more is removed, and nothing else.
    @Test func foreignKeysArePurged() async throws {
        let directory = try TemporaryDirectory()
        let keys = (0..<3_000).map { "k\($0)" }
        let half = UInt16(HashSlot.count / 2)
        let away = try DeafPort()
        let later = try Topology(
            cluster: "test", epoch: 2,
            shards: [
                ShardTopology(
                    name: "s0", index: 0, term: 1, leader: shard.replicas[0], followers: [],
                    slots: [SlotRange(first: HashSlot(rawValue: 0), last: HashSlot(rawValue: half - 1))]),
                ShardTopology(
                    name: "s1", index: 1, term: 1, leader: away.address, followers: [],
                    slots: [
                        SlotRange(first: HashSlot(rawValue: half), last: HashSlot(rawValue: UInt16(HashSlot.count - 1)))
                    ]),
            ])
        let foreign = keys.filter { later.position(of: HashSlot(key: $0.utf8)) == 1 }
        try await shard.withNode(0, { $0.dataDirectory = directory.path }) { client async throws in
            let lines = keys.map { "{\"op\":\"put\",\"key\":\"\($0)\",\"value\":\"1\"}\n" }.joined()
            #expect(try await client.send(.POST, "/batch", body: form(lines)).status == 200)
            let nothing = try await client.send(.POST, "/purge")
            #expect(nothing.status == 200 && String(buffer: nothing.body) == "Purged 0 keys\n")
        }
        #expect(foreign.count > 1_000, "more than go at once")
        let configure = { @Sendable (configuration: inout StorageNodeConfiguration) in
            configuration.dataDirectory = directory.path
            configuration.topology = later
        }
        try await shard.withNode(0, configure) { client async throws in
            let purged = try await client.send(.POST, "/purge")
            #expect(String(buffer: purged.body) == "Purged \(foreign.count) keys\n")
            #expect(String(buffer: try await client.send(.POST, "/purge").body) == "Purged 0 keys\n")
            let gets = keys.filter { !foreign.contains($0) }.map { "{\"op\":\"get\",\"key\":\"\($0)\"}\n" }.joined()
            let answer = try await client.send(.POST, "/batch", body: form(gets))
            #expect(!String(buffer: answer.body).contains("\"status\":404"))
        }
    }
}
