import ArgumentParser
import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import Sharding
import Synchronization
import TestSupport
import Testing
import Wire

@testable import kv

@Suite struct FailoverCommandTests {
    private func report(_ nodes: FakeNodes, to: Int) -> FailoverReport {
        FailoverReport(
            shard: "s", epoch: 2, term: 2, leader: nodes.nodes[to].address, previousLeader: nodes.nodes[0].address,
            lsn: 5, version: Version(rawValue: 5).hexDigits, isComplete: true, leaderLastSeen: nil, unreachable: [],
            writesHeldMilliseconds: nil)
    }

    @Test func theLeaderHandsOverToTheMostComplete() async throws {
        let nodes = try await FakeNodes(3)
        let topology = try nodes.topology(epoch: 1)
        let report = report(nodes, to: 2)
        nodes.answer { node, request, body in
            switch request {
            case "GET /topology": answer(topology)
            case "GET /replication/s/history": history(node == 0 ? .leader : .follower, lsn: UInt64(3 + node))
            case "POST /shards/s/handover" where body.contains("\(report.leader)"): answer(report)
            default: nil
            }
        }
        try await nodes.run(["failover", "s", "--json"])
        let histories = (0..<3).map { "\($0) GET /replication/s/history" }
        #expect(nodes.requests == (histories + ["0 POST /shards/s/handover"]).sorted())
    }

    @Test func aDeadLeaderIsReplacedInTheEpochThatIsCurrent() async throws {
        let nodes = try await FakeNodes(3)
        let (old, new) = (try nodes.topology(epoch: 1), try nodes.topology(epoch: 4))
        let report = report(nodes, to: 1)
        let bodies = Mutex<[String]>([])
        try await nodes.nodes[0].stop()
        nodes.answer { node, request, body in
            switch request {
            // The first to answer has not heard of the newest.
            case "GET /topology": return answer(node == 1 ? old : new)
            case "GET /replication/s/history":
                var answer = history(.follower, lsn: node == 1 ? 9 : 3)
                answer.headers.append((KVHeader.epoch, node == 1 ? "1" : "4"))
                return answer
            case "POST /shards/s/promote":
                bodies.withLock { $0.append("\(node) \(body)") }
                return answer(report)
            default: return nil
            }
        }
        try await nodes.run(["failover", "s"])
        #expect(bodies.withLock { $0 } == [#"1 {"epoch":4,"force":false}"#])
    }

    @Test func aLeaderThatCannotHandOverIsTakenOverOnlyByForce() async throws {
        let nodes = try await FakeNodes(2)
        let topology = try nodes.topology(epoch: 1)
        let report = report(nodes, to: 1)
        nodes.answer { node, request, _ in
            switch request {
            case "GET /topology": answer(topology)
            case "GET /replication/s/history": history(node == 0 ? .leader : .follower, lsn: 3)
            case "POST /shards/s/handover": .init(503, body: Problem(.storageFailed, "the disk is gone").json)
            case "POST /shards/s/promote": node == 1 ? answer(report) : nil
            default: nil
            }
        }
        let refused = try await nodes.failure(["failover", "s"])
        #expect(refused == CommandFailure(status: .unavailable, message: "the disk is gone"))
        #expect(!nodes.requests.contains { $0.hasSuffix("promote") })
        try await nodes.run(["failover", "s", "--force", "--json"])
        #expect(nodes.requests.filter { $0.hasSuffix("promote") } == ["1 POST /shards/s/promote"])
    }

    @Test func anUnknownShardIsAWrongCommandLine() async throws {
        let nodes = try await FakeNodes(1)
        let topology = try nodes.topology(epoch: 1)
        nodes.answer { _, request, _ in request == "GET /topology" ? answer(topology) : nil }
        for arguments in [["failover", "x"], ["verify", "x"], ["replica", "list", "x"]] {
            let refused = try await nodes.failure(arguments)
            #expect(refused == CommandFailure(status: .usage, message: "there is no shard x: there are s"))
        }
    }
}

@Suite struct ReplicaCommandTests {
    @Test func removingAsksTheLeaderOnceAndIsIdempotent() async throws {
        let nodes = try await FakeNodes(3)
        let removed = nodes.nodes[2].address
        let (before, after) = (try nodes.topology(epoch: 1), try nodes.topology(epoch: 2, followers: [1]))
        let isRemoved = Mutex(false)
        nodes.answer { node, request, _ in
            switch request {
            case "GET /topology": return answer(isRemoved.withLock { $0 } ? after : before)
            case "DELETE /shards/s/replicas/\(removed)" where node == 0:
                isRemoved.withLock { $0 = true }
                return answer(after)
            default: return nil
            }
        }
        try await nodes.run(["replica", "remove", "s", "\(removed)"])
        try await nodes.run(["replica", "remove", "s", "\(removed)"])
        #expect(nodes.requests == ["0 DELETE /shards/s/replicas/\(removed)"])
        let leader = try await nodes.failure(["replica", "remove", "s", "\(nodes.nodes[0].address)"])
        #expect(leader.status == .unavailable)
        #expect(leader.message?.contains("kv failover s --to") ?? false)
    }
}

@Suite struct VerificationTests {
    private func digest(_ lsn: UInt64, sum: String, role: PositionDocument.Role) -> ScriptedServer.Answer {
        answer(
            DigestDocument(
                position: position(role, lsn: lsn),
                ranges: [
                    DigestDocument.Range(start: "", keys: 1, crc32c: "1"),
                    DigestDocument.Range(start: "m", keys: 2, crc32c: sum),
                ]))
    }

    @Test func everyoneIsAskedAtTheHeldPositionInTheLeadersRanges() async throws {
        let nodes = try await FakeNodes(2)
        let topology = try nodes.topology(epoch: 1)
        let bodies = Mutex<[String]>([])
        nodes.answer { node, request, body in
            switch request {
            case "GET /topology": return answer(topology)
            case "POST /shards/s/hold?milliseconds=100": return answer(position(.leader, lsn: 7))
            case "DELETE /shards/s/hold": return .init(204)
            case "POST /shards/s/digest":
                bodies.withLock { $0.append("\(node) \(body)") }
                return digest(7, sum: "2", role: node == 0 ? .leader : .follower)
            default: return nil
            }
        }
        try await nodes.run(["verify", "--json"])
        let asked = bodies.withLock { $0 }
        #expect(asked.first == "0 {}")
        #expect(
            Set(asked.dropFirst()) == [
                #"0 {"boundaries":["m"],"lsn":7}"#, #"1 {"boundaries":["m"],"lsn":7}"#,
            ])
    }

    @Test func aDifferenceEndsWithItsOwnStatus() async throws {
        let nodes = try await FakeNodes(2)
        let topology = try nodes.topology(epoch: 1)
        nodes.answer { node, request, _ in
            switch request {
            case "GET /topology": answer(topology)
            case "POST /shards/s/hold?milliseconds=100": answer(position(.leader, lsn: 7))
            case "POST /shards/s/digest": digest(7, sum: "\(node)", role: node == 0 ? .leader : .follower)
            default: .init(204)
            }
        }
        #expect(try await nodes.failure(["verify", "s"]).status == .conditionFailed)
    }

    @Test func whoWasAskedTooLateIsAskedAgain() async throws {
        let nodes = try await FakeNodes(2)
        let topology = try nodes.topology(epoch: 1)
        let holds = Mutex<UInt64>(0)
        nodes.answer { node, request, body in
            switch request {
            case "GET /topology": return answer(topology)
            // The second time they have longer.
            case "POST /shards/s/hold?milliseconds=100", "POST /shards/s/hold?milliseconds=400":
                return answer(
                    position(
                        .leader,
                        lsn: holds.withLock {
                            $0 += 1; return $0
                        }))
            case "POST /shards/s/digest":
                if node == 1, body.contains(#""lsn":1"#) {
                    return .init(409, body: Problem(.logMismatch, "it has gone past").json)
                }
                return digest(holds.withLock { $0 }, sum: "2", role: node == 0 ? .leader : .follower)
            default: return .init(204)
            }
        }
        try await nodes.run(["verify", "s"])
        #expect(holds.withLock { $0 } == 2)
        #expect(nodes.requests.contains("0 POST /shards/s/hold?milliseconds=400"))
    }

    @Test func aFollowerThatIsBehindAndALeaderThatIsGoneAreUnavailable() async throws {
        let nodes = try await FakeNodes(2)
        let topology = try nodes.topology(epoch: 1)
        nodes.answer { node, request, _ in
            switch request {
            case "GET /topology": answer(topology)
            case "POST /shards/s/hold?milliseconds=100": answer(position(.leader, lsn: 7))
            case "POST /shards/s/digest" where node == 0: digest(7, sum: "2", role: .leader)
            case "POST /shards/s/digest": .init(503, body: Problem(.unavailable, "it stands at lsn 3").json)
            default: .init(204)
            }
        }
        #expect(try await nodes.failure(["verify", "s"]).status == .unavailable)
        try await nodes.nodes[0].stop()
        #expect(try await nodes.failure(["verify", "s"]).status == .unavailable)
    }
}

@Suite struct StatusCommandTests {
    private func status(_ address: NodeAddress, _ role: PositionDocument.Role, lsn: UInt64) -> ScriptedServer.Answer {
        let shard = StorageNodeStatus.Shard(
            name: "s", role: role, position: LogPosition(term: 1, lsn: lsn, version: .zero), keysEstimate: 1,
            diskBytes: 1, memtableBytes: 0, logFirstLsn: 1, failure: nil)
        return answer(
            StorageNodeStatus(
                version: "0", node: address, epoch: 1, uptimeSeconds: 1, durability: "os", shards: [shard]))
    }

    /// All are asked at once, so a follower can have what its leader got after it answered. The leader is asked again.
    @Test(arguments: [(second: UInt64(22), isHealthy: true), (15, false)])
    func aFollowerAheadIsABadSignOnlyIfItStaysSo(second: UInt64, isHealthy: Bool) async throws {
        let nodes = try await FakeNodes(2)
        let topology = try nodes.topology(epoch: 1)
        let addresses = nodes.nodes.map(\.address)
        let looks = Mutex(0)
        nodes.answer { node, request, _ in
            switch request {
            case "GET /topology": return answer(topology)
            case "GET /status" where node == 1: return status(addresses[1], .follower, lsn: 22)
            case "GET /status":
                let look = looks.withLock {
                    $0 += 1
                    return $0
                }
                return status(addresses[0], .leader, lsn: look == 1 ? 15 : second)
            default: return nil
            }
        }
        let failure = try await nodes.failure(["status"])
        #expect(failure.status == (isHealthy ? .done : .unavailable))
        #expect(looks.withLock { $0 } == 2)
    }
}
