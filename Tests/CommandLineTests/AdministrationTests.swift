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

/// Nodes that answer as a test says, each by its number; requests are `METHOD target`.
private final class FakeNodes: Sendable {
    typealias Script = @Sendable (_ node: Int, _ request: String, _ body: String) -> ScriptedServer.Answer?

    let nodes: [ScriptedServer]
    private let script: Box

    private final class Box: Sendable {
        let mutex = Mutex<Script?>(nil)
    }

    init(_ count: Int) async throws {
        let box = Box()
        var nodes: [ScriptedServer] = []
        for index in 0..<count {
            nodes.append(
                try await .start { request in
                    let script = box.mutex.withLock { $0 }
                    let answer = script?(index, "\(request.method) \(request.target)", request.body)
                    let unknown = ScriptedServer.Answer(404, body: Problem(.unknownPath, request.target).json)
                    return .answer(answer ?? unknown)
                })
        }
        self.nodes = nodes
        script = box
    }

    func answer(_ script: @escaping Script) { self.script.mutex.withLock { $0 = script } }

    /// Shard `s`, led by node 0 and followed by the others.
    func topology(epoch: UInt64, followers: [Int]? = nil) throws -> Topology {
        try Topology(
            cluster: "test", epoch: epoch,
            shards: [
                ShardTopology(
                    name: "s", index: 0, term: 1, leader: nodes[0].address,
                    followers: (followers ?? Array(1..<nodes.count)).map { nodes[$0].address },
                    slots: [SlotRange(first: HashSlot(rawValue: 0), last: HashSlot(rawValue: 16_383))])
            ])
    }

    /// What was asked of the nodes, except for the topology, sorted.
    var requests: [String] {
        nodes.enumerated().flatMap { index, node in
            node.requests.filter { $0.target != APIPath.topology }.map { "\(index) \($0.method) \($0.target)" }
        }.sorted()
    }

    /// Runs `kv` with these arguments.
    func run(_ arguments: [String]) async throws {
        let seeds = nodes.map(\.address.description).joined(separator: ",")
        var command = try KV.parseAsRoot(arguments + ["--router", seeds, "--timeout", "60"])
        guard var command = command as? any AsyncParsableCommand else { return try command.run() }
        try await command.run()
    }

    /// The exit status, and what is said.
    func failure(_ arguments: [String]) async throws -> CommandFailure {
        do {
            try await run(arguments)
        } catch let failure as CommandFailure {
            return failure
        } catch let error as KVError {
            return CommandFailure(status: CommandStatus(error), message: error.message)
        }
        return CommandFailure(status: .done, message: nil)
    }
}

private func answer(_ document: some Encodable) -> ScriptedServer.Answer {
    do {
        return .init(200, body: String(decoding: try DocumentCoding.encode(document), as: UTF8.self))
    } catch {
        return .init(500, body: "\(error)")
    }
}

private func answer(_ topology: Topology) -> ScriptedServer.Answer {
    do {
        return .init(
            200, [(KVHeader.epoch, "\(topology.epoch)")], body: String(decoding: try topology.json(), as: UTF8.self))
    } catch {
        return .init(500, body: "\(error)")
    }
}

private func position(_ role: PositionDocument.Role, lsn: UInt64) -> PositionDocument {
    PositionDocument(
        shard: "s", role: role, position: LogPosition(term: 1, lsn: lsn, version: Version(rawValue: lsn)))
}

private func history(_ role: PositionDocument.Role, lsn: UInt64) -> ScriptedServer.Answer {
    let position = position(role, lsn: lsn)
    return answer(
        HistoryDocument(
            position: position,
            history: TermHistory(
                starts: [], end: LogPosition(term: 1, lsn: lsn, version: Version(rawValue: lsn))),
            newestTerm: 1, leaderLastSeen: nil))
}

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
