import Core
import NIOCore
import NIOHTTP1
import Sharding
import Synchronization
import TestSupport
import Wire

/// Nodes that keep keys in memory and route as storage nodes do, each by its own idea of the topology; a test can
/// put itself in front of any of them.
final class FakeCluster: Sendable {
    typealias Override = @Sendable (_ node: Int, _ request: ScriptedServer.Request) -> ScriptedServer.Action?

    private struct State {
        /// What each node believes.
        var topologies: [Topology] = []
        var override: Override?
        /// Where it says so the request is carried out, and the connection closed instead of answering.
        var dropsAnswer: (@Sendable (ScriptedServer.Request) -> Bool)?
        var data: [String: (value: String, version: Version)] = [:]
        var clock = HybridLogicalClock()
        /// What operations of batches on these keys are answered.
        var refusals: [String: Problem] = [:]
    }

    let nodes: [ScriptedServer]
    private let state: StateBox

    private final class StateBox: Sendable {
        let mutex = Mutex(State())
    }

    /// Shard i of `shards` is led by node i modulo `nodes` and followed by the next one.
    static func start(nodes count: Int, shards: Int) async throws -> FakeCluster {
        let state = StateBox()
        var nodes: [ScriptedServer] = []
        for index in 0..<count {
            nodes.append(try await .start { request in FakeCluster.handle(request, node: index, state) })
        }
        let cluster = FakeCluster(nodes: nodes, state: state)
        let topology = try cluster.topology(epoch: 1, shards: shards) { $0 % count }
        state.mutex.withLock { $0.topologies = Array(repeating: topology, count: count) }
        return cluster
    }

    private init(nodes: [ScriptedServer], state: StateBox) {
        self.nodes = nodes
        self.state = state
    }

    var addresses: [NodeAddress] { nodes.map(\.address) }

    func topology(epoch: UInt64, shards: Int, leader: (Int) -> Int) throws -> Topology {
        try Topology(
            cluster: "test", epoch: epoch,
            shards: (0..<shards).map { shard in
                let first = UInt16(shard * HashSlot.count / shards)
                let last = UInt16((shard + 1) * HashSlot.count / shards - 1)
                let leader = leader(shard)
                return ShardTopology(
                    name: "shard-\(shard)", index: shard, term: epoch, leader: addresses[leader],
                    followers: nodes.count == 1 ? [] : [addresses[(leader + 1) % nodes.count]],
                    slots: [SlotRange(first: HashSlot(rawValue: first), last: HashSlot(rawValue: last))])
            })
    }

    /// Gives `topology` to the nodes named, or to all.
    func adopt(_ topology: Topology, nodes indexes: [Int]? = nil) {
        state.mutex.withLock { state in
            for index in indexes ?? Array(nodes.indices) { state.topologies[index] = topology }
        }
    }

    func override(_ override: Override?) { state.mutex.withLock { $0.override = override } }

    /// Has the nodes carry out such requests and then close the connection instead of answering.
    func dropAnswers(_ isDropped: (@Sendable (ScriptedServer.Request) -> Bool)?) {
        state.mutex.withLock { $0.dropsAnswer = isDropped }
    }

    /// Has operations of batches on `key` fail with `problem`.
    func refuse(_ key: String, _ problem: Problem?) { state.mutex.withLock { $0.refusals[key] = problem } }

    var keys: Set<String> { Set(state.mutex.withLock { $0.data.keys }) }
    func value(_ key: String) -> String? { state.mutex.withLock { $0.data[key]?.value } }

    func requests(_ node: Int, path: String) -> [ScriptedServer.Request] {
        nodes[node].requests.filter { $0.target.hasPrefix(path) }
    }

    private static func handle(_ request: ScriptedServer.Request, node: Int, _ box: StateBox) -> ScriptedServer.Action {
        if let override = box.mutex.withLock({ $0.override }), let action = override(node, request) { return action }
        return box.mutex.withLock { state in
            let topology = state.topologies[node]
            let epoch = (KVHeader.epoch, String(topology.epoch))
            if request.target == APIPath.topology {
                let body = (try? topology.json()).map { String(decoding: $0, as: UTF8.self) } ?? ""
                return .answer(.init(200, [epoch], body: body))
            }
            let path = request.target.prefix { $0 != "?" }
            if path == APIPath.batch {
                let lines = batch(request, topology, &state)
                return state.dropsAnswer?(request) == true
                    ? .close : .answer(.init(200, [epoch], body: lines.map { String(buffer: $0) }.joined()))
            }
            guard path.hasPrefix("/kv/"), let bytes = PercentCoding.decode(path.dropFirst(4).utf8) else {
                return .answer(.init(404, [epoch], body: Problem(.unknownPath, "no such path").json))
            }
            let key = String(decoding: bytes, as: UTF8.self)
            let shard = topology.shard(of: HashSlot(key: bytes))
            let me = FakeCluster.address(request)
            let isRead = request.method == .GET || request.method == .HEAD
            guard shard.leader == me || isRead && shard.replicas.contains(where: { $0 == me }) else {
                return .answer(.init(307, [epoch, ("location", "http://\(shard.leader)\(request.target)")]))
            }
            let answer = answer(request, key: key, epoch, &state)
            return state.dropsAnswer?(request) == true ? .close : answer
        }
    }

    private static func batch(
        _ request: ScriptedServer.Request, _ topology: Topology, _ state: inout State
    ) -> [ByteBuffer] {
        let me = FakeCluster.address(request)
        let operations = (try? BatchOperation.read(ByteBuffer(string: request.body), countMax: 10_000)) ?? []
        return operations.map { operation, _ in
            let isLeader = operation.key.withUnsafeReadableBytes { topology.shard(of: HashSlot(key: $0)).leader == me }
            let result: BatchResult =
                isLeader ? answer(operation, &state) : .failed(Problem(.notLeader, "it is led by another"))
            var line = ByteBuffer()
            result.write(into: &line)
            return line
        }
    }

    private static func answer(_ operation: BatchOperation, _ state: inout State) -> BatchResult {
        let key = String(buffer: operation.key)
        if let problem = state.refusals[key] { return .failed(problem) }
        if key.isEmpty { return .failed(Problem(.badRequest, "the key is empty")) }
        let stored = state.data[key]
        if let condition = operation.condition, !condition.holds(for: stored?.version) {
            return .failed(Problem(.preconditionFailed, "no"))
        }
        switch operation.action {
        case .get: return stored.map { .found(ByteBuffer(string: $0.value), $0.version) } ?? .missing
        case .put(let value, _):
            let version = state.clock.next(wallMilliseconds: 1)
            state.data[key] = (String(buffer: value), version)
            return .written(version)
        case .delete:
            state.data[key] = nil
            return .written(state.clock.next(wallMilliseconds: 1))
        case .increment(let amount):
            guard let number = Int64(stored?.value ?? "0") else { return .failed(Problem(.notAnInteger, "no number")) }
            let version = state.clock.next(wallMilliseconds: 1)
            state.data[key] = ("\(number + amount)", version)
            return .counted(number + amount, version)
        }
    }

    /// The problem of a write whose condition does not hold.
    private static func refusal(of request: ScriptedServer.Request, _ stored: Version?) -> Problem? {
        let match = request.headers.first(name: "if-match")
        let noneMatch = request.headers.first(name: "if-none-match")
        let isMet =
            (match.map { $0 == "*" ? stored != nil : $0 == stored.map { "\"\($0.hexDigits)\"" } } ?? true)
            && (noneMatch == nil || stored == nil)
        return isMet ? nil : Problem(.preconditionFailed, "no")
    }

    private static func increment(
        _ request: ScriptedServer.Request, key: String, _ state: inout State
    ) -> ScriptedServer.Answer {
        let amount = Int64(request.target.split(separator: "=").last ?? "") ?? 0
        guard let number = Int64(state.data[key]?.value ?? "0") else {
            return .init(409, body: Problem(.notAnInteger, "no number").json)
        }
        let (sum, overflow) = number.addingReportingOverflow(amount)
        guard !overflow else { return .init(409, body: Problem(.counterOverflow, "no room").json) }
        let version = state.clock.next(wallMilliseconds: 1)
        state.data[key] = ("\(sum)", version)
        return .init(200, [(KVHeader.version, version.hexDigits)], body: "\(sum)")
    }

    private static func answer(
        _ request: ScriptedServer.Request, key: String, _ epoch: (String, String), _ state: inout State
    ) -> ScriptedServer.Action {
        let version: Version
        let isRead = request.method == .GET || request.method == .HEAD
        if !isRead, let problem = refusal(of: request, state.data[key]?.version) {
            return .answer(.init(problem.kind.status, [epoch], body: problem.json))
        }
        switch request.method {
        case .POST: return .answer(increment(request, key: key, &state))
        case .PUT:
            version = state.clock.next(wallMilliseconds: 1)
            state.data[key] = (request.body, version)
            return .answer(.init(204, [epoch, (KVHeader.version, version.hexDigits)]))
        case .DELETE:
            version = state.clock.next(wallMilliseconds: 1)
            state.data[key] = nil
            return .answer(.init(204, [epoch, (KVHeader.version, version.hexDigits)]))
        default:
            guard let entry = state.data[key] else {
                return .answer(.init(404, [epoch], body: Problem(.notFound, "no such key").json))
            }
            return .answer(.init(200, [epoch, (KVHeader.version, entry.version.hexDigits)], body: entry.value))
        }
    }

    /// The `host` of a request is the address of the node it was sent to.
    private static func address(_ request: ScriptedServer.Request) -> NodeAddress? {
        request.headers.first(name: "host").flatMap { NodeAddress($0) }
    }
}
