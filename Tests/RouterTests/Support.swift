import Configuration
import Core
import DistribKVClient
import Foundation
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Sharding
import Testing
import Wire

@testable import RouterService

/// Deadlines that no test means to reach.
var ample: NIODeadline { .now() + .seconds(30) }

/// Waits until `condition` holds, asking again and again.
func eventually(_ what: String, within seconds: Int = 15, _ condition: () async throws -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < deadline {
        if try await condition() { return }
        await Task.yield()
    }
    throw KVError(.timedOut, "never happened: \(what)")
}

/// One shard that owns every slot for each entry: the first address leads, all slots to the first shard but the
/// last ones, which the others own one each.
func topology(epoch: UInt64 = 1, cluster: String = "test", _ shards: [[NodeAddress]]) throws -> Topology {
    let lastOfFirst = HashSlot.count - shards.count
    return try Topology(
        cluster: cluster, epoch: epoch,
        shards: shards.enumerated().map { position, replicas in
            let slot = UInt16(lastOfFirst + position)
            let first = HashSlot(rawValue: position == 0 ? 0 : slot)
            return ShardTopology(
                name: "shard-\(position)", index: position, term: 1, leader: replicas[0],
                followers: Array(replicas.dropFirst()),
                slots: [SlotRange(first: first, last: HashSlot(rawValue: slot))])
        })
}

func addresses(_ count: Int) -> [NodeAddress] {
    (1...count).map { NodeAddress(host: "127.0.0.1", port: 7_000 + $0) }
}

let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A router and a client of it. The router looks at nodes once, and then only when `configure` says so.
func withRouter<Result>(
    _ topology: Topology, _ configure: (inout RouterConfiguration) -> Void = { _ in },
    _ body: (RouterClient) async throws -> Result
) async throws -> Result {
    var configuration = RouterConfiguration(
        topology: topology, listen: NodeAddress(host: "127.0.0.1", port: 0), logger: quiet)
    configuration.threads = 1
    configuration.healthInterval = .hours(1)
    configuration.shutdownGrace = .milliseconds(100)
    configure(&configuration)
    let router = try await Router.start(configuration)
    let connections = NodeConnections(group: MultiThreadedEventLoopGroup.singleton)
    let client = RouterClient(router: router, connections: connections)
    let result: Swift.Result<Result, any Error>
    do { result = .success(try await body(client)) } catch { result = .failure(error) }
    await connections.shutdown()
    await router.shutdown()
    return try result.get()
}

struct RouterClient {
    let router: Router
    let connections: NodeConnections

    func send(
        _ method: HTTPMethod, _ target: String, headers: [(name: String, value: String)] = [], body: String? = nil
    ) async throws -> NodeResponse {
        try await connections.execute(
            NodeRequest(method: method, target: target, headers: headers, body: body.map { ByteBuffer(string: $0) }),
            to: router.localAddress, deadline: ample)
    }

    func location(_ method: HTTPMethod, _ target: String) async throws -> String {
        let response = try await send(method, target)
        #expect(response.status == 307)
        return try #require(response.headers.first(name: "location"))
    }

    func status() async throws -> RouterStatus {
        let response = try await send(.GET, "/status")
        return try DocumentCoding.decode(RouterStatus.self, from: response.body.readableBytesView)
    }

    func isHealthy(_ address: NodeAddress) async throws -> Bool? {
        try await status().nodes.first { $0.address == address }?.healthy
    }

    /// The value of a metric without labels.
    func metric(_ name: String) async throws -> Double? {
        let text = String(buffer: try await send(.GET, "/metrics").body)
        let line = text.split(separator: "\n").first { $0.hasPrefix(name + " ") }
        return line.flatMap { Double($0.dropFirst(name.count + 1)) }
    }

    /// Sends bytes as they are and returns all that comes back until the router closes.
    func raw(_ text: String) async throws -> String {
        let collector = RawCollector()
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(collector.handler())
                }
            }
            .connect(host: router.localAddress.host, port: router.localAddress.port).get()
        try await channel.writeAndFlush(ByteBuffer(string: text)).get()
        try await channel.closeFuture.get()
        return collector.text
    }
}

struct ProblemDocument: Decodable {
    let type: String
    let status: Int
    let detail: String
}

func problem(_ response: NodeResponse) throws -> ProblemDocument {
    #expect(response.headers.first(name: "content-type") == "application/problem+json")
    let document = try JSONDecoder().decode(ProblemDocument.self, from: Data(response.body.readableBytesView))
    #expect(document.status == response.status)
    return document
}
