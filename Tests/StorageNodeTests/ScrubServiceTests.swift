import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Synchronization
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

/// Scrubs over HTTP, and those that a node begins by itself.
@Suite(.timeLimit(.minutes(2))) struct ScrubServiceTests {
    private func scrub(_ node: NodeClient, _ method: HTTPMethod) async throws -> ScrubDocument {
        let response = try await node.send(method, APIPath.scrub(shard: "s0"))
        #expect(response.status == (method == .POST ? 202 : 200))
        return try DocumentCoding.decode(ScrubDocument.self, from: response.body.readableBytesView)
    }

    @Test func isBegunAndLookedAt() async throws {
        let shard = try ScriptedShard(replicas: 1)
        try await shard.withNode(0) { node in
            #expect(try await node.put("/kv/a").status == 204)
            #expect(try await scrub(node, .GET).number == 0)
            #expect(try await node.status().scrub == nil)
            #expect(try await scrub(node, .POST).number == 1)
            let done = try await eventually("the scrub ends") {
                let document = try await scrub(node, .GET)
                return document.isRunning ? nil : document
            }
            #expect(done.damage.isEmpty && done.failure == nil)
            #expect(try await node.status().scrub == done)
            #expect(try await node.metric("distribkv_scrub_passes_total") >= 1)
            #expect(try await node.send(.DELETE, APIPath.scrub(shard: "s0")).field("allow") == "GET, POST")
            #expect(try await node.send(.POST, APIPath.scrub(shard: "other")).status == 404)
        }
    }

    /// Nobody asks for it.
    @Test func damageIsFoundInTheBackground() async throws {
        let shard = try ScriptedShard(replicas: 1)
        let directory = try TemporaryDirectory()
        for isDamaged in [false, true] {
            try await shard.withNode(
                0,
                { configuration in
                    configuration.dataDirectory = directory.path
                    configuration.scrub.lookMilliseconds = 1
                    configuration.scrub.restMilliseconds = 0
                    configuration.scrub.retryMilliseconds = 0
                }
            ) { node in
                if !isDamaged {
                    // The next start makes a table of it.
                    #expect(try await node.put("/kv/a").status == 204)
                    return
                }
                let table = try #require(Damage.tables(in: "\(directory.path)/shards/s0/db").first)
                try Damage.flipBit(ofFile: table)
                let found = try await eventually("the damage is found") {
                    let document = try await scrub(node, .GET)
                    return document.damage.isEmpty ? nil : document
                }
                #expect(found.damage.first?.hasPrefix("\(table) is damaged: ") == true)
                #expect(try await node.metric("distribkv_scrub_damaged_files_total") >= 1)
            }
        }
    }

    @Test(arguments: [true, false]) func aFollowerWithOtherDataIsTold(isOther: Bool) async throws {
        // What the follower holds; nothing to say before the leader has anything.
        let held = Mutex<DigestDocument?>(nil)
        let asked = Atomic<Int>(0)
        let follower = try await ScriptedServer.start { request in
            guard request.target == APIPath.digest(shard: "s0"), var digest = held.withLock({ $0 }),
                let wanted = try? DocumentCoding.decode(DigestRequest.self, from: request.body.utf8),
                wanted.lsn == digest.position.lsn
            else { return .answer(.init(404)) }
            digest.expiringAfter = wanted.expiringAfter
            asked.add(1, ordering: .relaxed)
            return .answer(
                .init(200, body: String(decoding: (try? DocumentCoding.encode(digest)) ?? [], as: UTF8.self)))
        }
        let shard = try ScriptedShard(ports: [try DeafPort()], others: [follower.address])
        try await shard.withNode(
            0,
            { configuration in
                configuration.scrub.lookMilliseconds = 1
                configuration.scrub.restMilliseconds = 0
                configuration.scrub.retryMilliseconds = 0
                configuration.scrub.quietMilliseconds = 1
            }
        ) { node in
            #expect(try await node.put("/kv/a").status == 204)
            let request = try DocumentCoding.encode(DigestRequest(lsn: nil, boundaries: nil))
            var digest = try await eventually("no other digest is being computed") {
                let response = try await node.send(
                    .POST, APIPath.digest(shard: "s0"), body: ByteBuffer(bytes: request))
                guard response.status == 200 else { return nil as DigestDocument? }
                return try DocumentCoding.decode(DigestDocument.self, from: response.body.readableBytesView)
            }
            if isOther { digest.ranges[0].crc32c = "00000000" }
            held.withLock { [digest] in $0 = digest }
            #expect(try await node.report([(follower.address, try await node.position())]).status == 204)
            guard isOther else {
                _ = try await eventually("it is asked again") { asked.load(ordering: .relaxed) > 2 ? true : nil }
                #expect(try await scrub(node, .GET).difference == nil)
                return
            }
            let told = try await eventually("the difference is told") { try await scrub(node, .GET).difference }
            #expect(told.contains("\(follower.address)") && told.contains("kv verify s0"))
            #expect(try await node.metric("distribkv_scrub_differences_total") >= 1)
        }
        try await follower.stop()
    }
}
