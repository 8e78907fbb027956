import Core
import HTTPServer
import NIOCore
import NIOHTTP1
import NIOPosix
import Sharding
import Synchronization
import TestSupport

/// A server that keeps values in memory, and answers otherwise where a test wants it.
final class MemoryServer: Sendable {
    /// What a test puts in the place of an answer; nil leaves it.
    typealias Override = @Sendable (_ request: HTTPRequest, _ server: MemoryServer) -> Answer?

    enum Answer {
        case response(HTTPResponse)
        /// The value that was stored at the very first.
        case first
        /// The value under another key.
        case other
        /// One bit is another.
        case damaged
        /// Not made, and answered as if it had been.
        case forgotten
        case silence
    }

    private struct State {
        /// Oldest first.
        var values: [String: [ByteBuffer]] = [:]
        var requests: [HTTPRequest] = []
        var override: Override?
    }

    private let state = Mutex(State())
    private let box: Box

    /// The server is started with its handlers: known afterwards.
    private final class Box: Sendable {
        let server = Mutex<HTTPServer?>(nil)
    }

    private init() { box = Box() }

    static func run(_ override: Override? = nil, _ body: (MemoryServer) async throws -> Void) async throws {
        let memory = MemoryServer()
        memory.state.withLock { $0.override = override }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let configuration = HTTPServerConfiguration(host: "127.0.0.1", port: 0)
        let server = try await HTTPServer.start(configuration: configuration, group: group) { _ in
            Handler(memory: memory)
        }
        memory.box.server.withLock { $0 = server }
        let outcome: Result<Void, any Error>
        do {
            try await body(memory)
            outcome = .success(())
        } catch {
            outcome = .failure(error)
        }
        await server.shutdown(grace: .milliseconds(1))
        try await group.shutdownGracefully()
        try outcome.get()
    }

    var address: NodeAddress {
        NodeAddress(host: "127.0.0.1", port: box.server.withLock { $0?.localAddress.port ?? 0 })
    }
    var requests: [HTTPRequest] { state.withLock { $0.requests } }
    /// Paths that have a value.
    var keys: Set<String> { state.withLock { Set($0.values.keys) } }
    func requests(_ method: HTTPMethod) -> Int { requests.count { $0.method == method } }

    func topology(epoch: UInt64 = 1, followers: [NodeAddress] = []) throws -> Topology {
        let slots = [SlotRange(first: HashSlot(rawValue: 0), last: HashSlot(rawValue: UInt16(HashSlot.count - 1)))]
        return try Topology(
            cluster: "test", epoch: epoch,
            shards: [
                ShardTopology(
                    name: "s", index: 0, term: epoch, leader: address, followers: followers, slots: slots)
            ])
    }

    fileprivate func answer(_ request: HTTPRequest) -> HTTPResponse? {
        let override = state.withLock { state in
            state.requests.append(request)
            return state.override
        }
        let path = String(request.path)
        switch override?(request, self) {
        case .response(let response): return response
        case .silence: return nil
        case .forgotten: return HTTPResponse(status: 204)
        case .first: return found(state.withLock { $0.values[path]?.first })
        case .other: return found(state.withLock { $0.values.first { $0.key != path }?.value.last })
        case .damaged:
            var value = state.withLock { $0.values[path]?.last }
            if let byte = value?.getInteger(at: 40, as: UInt8.self) { value?.setInteger(byte ^ 1, at: 40) }
            return found(value)
        case nil: return state.withLock { Self.carryOut(request, path, &$0) }
        }
    }

    private static func carryOut(_ request: HTTPRequest, _ path: String, _ state: inout State) -> HTTPResponse {
        guard request.method == .PUT else {
            return state.values[path]?.last.map { HTTPResponse(status: 200, body: $0) } ?? HTTPResponse(status: 404)
        }
        state.values[path, default: []].append(ByteBuffer(bytes: request.body.readableBytesView))
        return HTTPResponse(status: 204)
    }

    private func found(_ value: ByteBuffer?) -> HTTPResponse {
        value.map { HTTPResponse(status: 200, body: $0) } ?? HTTPResponse(status: 404)
    }
}

private final class Handler: HTTPHandler {
    private let memory: MemoryServer
    init(memory: MemoryServer) { self.memory = memory }

    func bodyBytesMax(method: HTTPMethod, target: String) -> Int { 1 << 20 }
    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        if let response = memory.answer(request) { exchange.respond(response) }
    }
    func response(to rejection: HTTPRejection) -> HTTPResponse { HTTPResponse(status: 400) }
    func writeCommonFields(into buffer: inout ByteBuffer) { buffer.writeStaticString("kv-epoch: 1\r\n") }
}
