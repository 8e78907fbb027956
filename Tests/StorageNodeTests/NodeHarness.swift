import Configuration
import Core
import DistribKVClient
import FoundationEssentials
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Sharding
import TestSupport
import Testing
import Wire

@testable import StorageNodeService

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// Asks again and again until there is an answer.
func eventually<Answer>(_ what: String, _ look: () async throws -> Answer?) async throws -> Answer {
    let deadline = ContinuousClock.now + .seconds(30)
    while ContinuousClock.now < deadline {
        if let answer = try await look() { return answer }
        await Task.yield()
    }
    throw KVError(.timedOut, "never happened: \(what)")
}

/// A shard's addresses, the leader's first: nobody listens there, because every node of these tests listens
/// somewhere else. So what passes between them is what a test carries.
struct ScriptedShard {
    let ports: [DeafPort]
    let topology: Topology
    var replicas: [NodeAddress] { ports.map(\.address) }

    init(replicas: Int) throws { try self.init(ports: (0..<replicas).map { _ in try DeafPort() }) }

    /// - Parameter others: followers that do listen, behind those that do not.
    init(ports: [DeafPort], others: [NodeAddress] = []) throws {
        self.ports = ports
        let last = HashSlot(rawValue: UInt16(HashSlot.count - 1))
        topology = try Topology(
            cluster: "test", epoch: 1,
            shards: [
                ShardTopology(
                    name: "s0", index: 0, term: 1, leader: ports[0].address,
                    followers: ports.dropFirst().map(\.address) + others,
                    slots: [SlotRange(first: HashSlot(rawValue: 0), last: last)])
            ])
    }

    /// Shards `s0`, `s1`, … that one node has all replicas of.
    init(shards: Int) throws {
        ports = [try DeafPort()]
        topology = try makeTopology([(term: UInt64, replicas: [NodeAddress])](repeating: (1, ports.map(\.address)), count: shards))
    }

    /// Runs the node of that replica, and `body` with a client of it.
    func withNode<Result: Sendable>(
        _ replica: Int, _ configure: (inout StorageNodeConfiguration) -> Void = { _ in },
        _ body: (NodeClient) async throws -> Result
    ) async throws -> Result {
        let directory = try TemporaryDirectory()
        var configuration = StorageNodeConfiguration(
            topology: topology, address: ports[replica].address, listen: NodeAddress(host: "127.0.0.1", port: 0),
            dataDirectory: directory.path, eventLoopThreads: 1, logger: quiet)
        configuration.storage.durability = .os
        configuration.storage.blockCacheBytes = 8 << 20
        configuration.storage.writeBufferBytes = 8 << 20
        configure(&configuration)
        let (started, continuation) = AsyncStream.makeStream(of: NodeAddress.self)
        let node = StorageNode(configuration: configuration) { continuation.yield($0) }
        let running = Task {
            defer { continuation.finish() }
            try await node.run()
        }
        let connections = NodeConnections(group: MultiThreadedEventLoopGroup.singleton)
        var result: Swift.Result<Result, any Error> = .failure(KVError(.unavailable, "the node did not start"))
        if let address = await started.first(where: { _ in true }) {
            do {
                result = .success(try await body(NodeClient(address: address, connections: connections)))
            } catch {
                result = .failure(error)
            }
        }
        await connections.shutdown()
        running.cancel()
        try await running.value
        withExtendedLifetime(directory) {}
        return try result.get()
    }
}

struct NodeClient: Sendable {
    let address: NodeAddress
    let connections: NodeConnections

    func send(
        _ method: HTTPMethod, _ target: String, _ headers: [(name: String, value: String)] = [],
        body: ByteBuffer? = nil
    ) async throws -> NodeResponse {
        try await connections.execute(
            NodeRequest(method: method, target: target, headers: headers, body: body), to: address,
            deadline: .now() + .seconds(60))
    }

    func put(_ target: String, _ value: String = "x") async throws -> NodeResponse {
        try await send(.PUT, target, body: ByteBuffer(string: value))
    }

    func get(_ target: String, minVersion: Version? = nil) async throws -> NodeResponse {
        try await send(.GET, target, minVersion.map { [(name: "KV-Min-Version", value: $0.hexDigits)] } ?? [])
    }

    func document<Document: Decodable>(_ type: Document.Type, _ target: String) async throws -> Document {
        try DocumentCoding.decode(type, from: try await send(.GET, target).body.readableBytesView)
    }

    func position() async throws -> LogPosition {
        try await document(PositionDocument.self, APIPath.position(shard: "s0")).position
    }

    func status() async throws -> StorageNodeStatus.Shard {
        let status = try await document(StorageNodeStatus.self, APIPath.status)
        return try #require(status.shards.first)
    }

    /// The sum of a metric over its label sets.
    func metric(_ name: String) async throws -> Double {
        let text = String(buffer: try await send(.GET, APIPath.metrics).body)
        return text.split(separator: "\n").filter { $0.hasPrefix(name + " ") || $0.hasPrefix(name + "{") }
            .compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }.reduce(0, +)
    }

    // MARK: In the replicator's place

    func report(_ acks: [(follower: NodeAddress, position: LogPosition)]) async throws -> NodeResponse {
        let report = AckReport(acks: acks.map { AckReport.Ack(follower: $0.follower, position: $0.position) })
        return try await send(.POST, APIPath.acks(shard: "s0"), body: report.encoded())
    }

    /// All log after a position.
    func log(after position: LogPosition = .start) async throws -> NodeResponse {
        try await send(
            .GET,
            "\(APIPath.wal(shard: "s0"))?term=\(position.term)&lsn=\(position.lsn)&version=\(position.version.hexDigits)"
        )
    }

    /// Pushes what a leader answered; with no frames that is a heartbeat.
    func push(_ log: NodeResponse) async throws -> NodeResponse {
        let fields = [KVHeader.term, KVHeader.lsn, KVHeader.clock].compactMap { name in
            log.headers.first(name: name).map { (name: name, value: $0) }
        }
        return try await send(.POST, APIPath.batches(shard: "s0"), fields, body: log.body)
    }

    func heartbeat(term: UInt64, lsn: UInt64, clockMilliseconds: UInt64) async throws -> NodeResponse {
        let fields = [(KVHeader.term, term), (KVHeader.lsn, lsn), (KVHeader.clock, clockMilliseconds)]
        return try await send(
            .POST, APIPath.batches(shard: "s0"), fields.map { (name: $0.0, value: "\($0.1)") })
    }
}

var wallMilliseconds: UInt64 { UInt64(Date().timeIntervalSince1970 * 1_000) }

extension NodeResponse {
    func field(_ name: String) -> String? { headers.first(name: name) }

    /// Name and detail of the problem this is; empty where it is none.
    var problem: (type: String, detail: String) {
        struct Document: Decodable {
            var type: String
            var detail: String
        }
        guard let document = try? DocumentCoding.decode(Document.self, from: body.readableBytesView) else {
            return ("", "")
        }
        return (document.type, document.detail)
    }
}
