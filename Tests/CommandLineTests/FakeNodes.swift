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
final class FakeNodes: Sendable {
    typealias Script = @Sendable (_ node: Int, _ request: String, _ body: String) -> ScriptedServer.Action?

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
                    let action = script?(index, "\(request.method) \(request.target)", request.body)
                    return action ?? .answer(.init(404, body: Problem(.unknownPath, request.target).json))
                })
        }
        self.nodes = nodes
        script = box
    }

    func act(_ script: @escaping Script) { self.script.mutex.withLock { $0 = script } }

    func answer(
        _ script: @escaping @Sendable (_ node: Int, _ request: String, _ body: String) -> ScriptedServer.Answer?
    ) {
        act { node, request, body in script(node, request, body).map { .answer($0) } }
    }

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

func answer(_ document: some Encodable) -> ScriptedServer.Answer {
    do {
        return .init(200, body: String(decoding: try DocumentCoding.encode(document), as: UTF8.self))
    } catch {
        return .init(500, body: "\(error)")
    }
}

func answer(_ topology: Topology) -> ScriptedServer.Answer {
    do {
        return .init(
            200, [(KVHeader.epoch, "\(topology.epoch)")], body: String(decoding: try topology.json(), as: UTF8.self))
    } catch {
        return .init(500, body: "\(error)")
    }
}

func position(_ role: PositionDocument.Role, lsn: UInt64) -> PositionDocument {
    PositionDocument(
        shard: "s", role: role, position: LogPosition(term: 1, lsn: lsn, version: Version(rawValue: lsn)))
}

func history(_ role: PositionDocument.Role, lsn: UInt64) -> ScriptedServer.Answer {
    let position = position(role, lsn: lsn)
    return answer(
        HistoryDocument(
            position: position,
            history: TermHistory(
                starts: [], end: LogPosition(term: 1, lsn: lsn, version: Version(rawValue: lsn))),
            newestTerm: 1, leaderLastSeen: nil))
}
