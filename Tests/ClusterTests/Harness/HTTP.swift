import Core
import DistribKVClient
import NIOCore
import NIOHTTP1
import NIOPosix
import Sharding
import Wire

/// Requests to one process: nothing is retried, no redirect followed.
enum HTTP {
    private static let connections: NodeConnections = {
        var configuration = NodeConnectionsConfiguration()
        configuration.connectionsPerNodeMax = 64
        configuration.connectTimeout = .seconds(20)
        configuration.idleTimeout = .seconds(20)
        return NodeConnections(group: MultiThreadedEventLoopGroup.singleton, configuration: configuration)
    }()

    static let requestTimeout = TimeAmount.seconds(45)

    static func send(
        _ method: HTTPMethod, _ target: String, to address: NodeAddress, body: [UInt8]? = nil,
        headers: [(name: String, value: String)] = [], timeout: TimeAmount = requestTimeout
    ) async throws -> NodeResponse {
        try await connections.execute(
            NodeRequest(
                method: method, target: target, headers: headers, body: body.map { ByteBuffer(bytes: $0) }),
            to: address, deadline: .now() + timeout)
    }

    static func get(_ target: String, from address: NodeAddress) async throws -> NodeResponse {
        try await send(.GET, target, to: address)
    }

    /// One of Wire's documents.
    static func document<Document: Decodable>(
        _ type: Document.Type, _ target: String, from address: NodeAddress
    ) async throws -> Document {
        let response = try await get(target, from: address)
        guard response.status == 200 else { throw UnexpectedAnswer(target, response) }
        return try DocumentCoding.decode(type, from: response.bytes)
    }

    static func position(of shard: String, at address: NodeAddress) async throws -> LogPosition {
        try await document(PositionDocument.self, APIPath.position(shard: shard), from: address).position
    }

    /// Follows redirects as a browser or `curl -L` does, at most `redirectsMax` of them.
    static func following(
        _ method: HTTPMethod, _ target: String, to address: NodeAddress, body: [UInt8]? = nil,
        redirectsMax: Int = 10
    ) async throws -> (response: NodeResponse, path: [Hop]) {
        var (address, target) = (address, target)
        var path: [Hop] = []
        while true {
            let response = try await send(method, target, to: address, body: body)
            path.append(Hop(address: address, status: response.status))
            guard response.isRedirect, path.count <= redirectsMax else { return (response, path) }
            guard let location = response.headers.first(name: "location"), let (next, rest) = parse(location) else {
                throw UnexpectedAnswer(target, response)
            }
            (address, target) = (next, rest)
        }
    }

    struct Hop: Sendable, Hashable {
        let address: NodeAddress
        let status: Int
    }

    /// `http://host:port/path?query`
    static func parse(_ location: String) -> (NodeAddress, target: String)? {
        guard location.hasPrefix("http://") else { return nil }
        let rest = location.dropFirst("http://".count)
        guard let slash = rest.firstIndex(of: "/"), let address = NodeAddress(rest[..<slash]) else { return nil }
        return (address, String(rest[slash...]))
    }
}

struct UnexpectedAnswer: Error, CustomStringConvertible {
    let description: String

    init(_ target: String, _ response: NodeResponse) {
        description = "\(target.prefix(200)) was answered \(response.status): \(response.text.prefix(400))"
    }
}

extension NodeResponse {
    var bytes: [UInt8] { Array(body.readableBytesView) }
    var text: String { String(buffer: body) }
    /// The write is on its leader and not yet on as many replicas as it asked for.
    var isAckTimeout: Bool { status == 504 && version != nil && problem == "ack-timeout" }
    /// The `type` of a problem document; nil where the answer is none.
    var problem: String? {
        guard headers.first(name: "content-type") == MediaType.problem else { return nil }
        struct Document: Decodable { var type: String }
        return try? DocumentCoding.decode(Document.self, from: bytes).type
    }
}
