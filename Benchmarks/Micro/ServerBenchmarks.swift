import Core
import HTTPServer
import NIOCore
import NIOEmbedded
import NIOHTTP1
import ServiceSupport
import Sharding
import Wire

/// What the server does around a request: decoding it and encoding its answer, on a channel without a socket.
let serverBenchmarks = [
    Benchmark("GET decoded, value answered") {
        try exchange("GET /kv/key-00012345 HTTP/1.1\r\nHost: 127.0.0.1:7001\r\n\r\n", .value)
    },
    Benchmark("GET decoded, value answered, 16 at once", iterations: 200) {
        let request = "GET /kv/key-00012345 HTTP/1.1\r\nHost: 127.0.0.1:7001\r\n\r\n"
        return try exchange(String(repeating: request, count: 16), .value)
    },
    Benchmark("PUT decoded, 204 answered") {
        let value = String(buffer: Fixture.value)
        return try exchange(
            "PUT /kv/key-00012345 HTTP/1.1\r\nHost: 127.0.0.1:7001\r\nContent-Length: 100\r\n\r\n\(value)", .written)
    },
    Benchmark("GET decoded, routed and redirected") {
        try exchange("GET /kv/key-00012345 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n", .redirected)
    },
]

private func exchange(_ text: String, _ answer: Answering.Answer) throws -> (Int) throws -> Void {
    let channel = EmbeddedChannel()
    let handler = try Answering(answer)
    let loop = HTTPLoop(
        eventLoop: channel.eventLoop, loops: 1, configuration: HTTPServerConfiguration(host: "", port: 0),
        handler: handler)
    try loop.serve(channel)
    try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
    let request = ByteBuffer(string: text)
    return { _ in
        try channel.writeInbound(request)
        channel.embeddedEventLoop.run()
        guard let answer = try channel.readOutbound(as: ByteBuffer.self) else {
            throw KVError(.internalError, "a request of the benchmark was not answered")
        }
        keep(answer)
    }
}

/// Answers as a node or a router would, from memory.
private final class Answering: HTTPHandler {
    enum Answer {
        case value, written, redirected
    }

    private let answer: Answer
    private let topology: Topology
    private let redirects: [[UInt8]]
    private let epochField = KVHeader.epochField(1)
    private let version = Array("etag: \"0186a3f0c0de0001\"\r\nkv-version: 0186a3f0c0de0001\r\n".utf8)

    init(_ answer: Answer) throws {
        self.answer = answer
        topology = try Fixture.topology(shards: 2)
        redirects = topology.shards.map { RoutedQuery.redirectFields(to: $0.leader) }
    }

    func bodyBytesMax(method: HTTPMethod, target: String) -> Int { 1 << 20 }

    func handle(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        switch answer {
        case .value:
            let value = Fixture.value
            exchange.respond(status: 200, contentLength: value.readableBytes) {
                $0.writeBytes(version)
            } body: {
                $0.writeImmutableBuffer(value)
            }
        case .written: exchange.respond(status: 204, contentLength: nil) { $0.writeBytes(version) }
        case .redirected: redirect(request, exchange)
        }
    }

    private func redirect(_ request: HTTPRequest, _ exchange: HTTPExchange) {
        let problem = request.withTargetBytes { target -> Problem? in
            do throws(Problem) {
                guard let place = KeyTarget(target) else { throw Problem(.badRequest, "no key") }
                let slot = try place.withKey(in: target) { HashSlot(key: $0) }
                let query = try RoutedQuery(place.query, in: target)
                query.redirect(
                    exchange, .temporary, fields: redirects[topology.position(of: slot)], place, of: target)
                return nil
            } catch {
                return error
            }
        }
        if let problem { exchange.respond(HTTPResponse(problem: problem)) }
    }

    func response(to rejection: HTTPRejection) -> HTTPResponse { HTTPResponse(problem: Problem(rejection)) }

    func writeCommonFields(into buffer: inout ByteBuffer) { buffer.writeBytes(epochField) }
}
