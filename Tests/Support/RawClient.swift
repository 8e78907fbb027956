public import Core
public import NIOCore
import NIOPosix

/// Sends and receives bytes as they are, over a real socket; every wait has a deadline.
public final class RawClient: Sendable {
    public struct Timeout: Error, CustomStringConvertible {
        public let waitedFor: String
        public let received: String
        public var description: String { "no \(waitedFor) in time; received so far: \(received.debugDescription)" }

        public init(waitedFor: String, received: String) {
            self.waitedFor = waitedFor
            self.received = received
        }
    }

    public static let deadline = TimeAmount.seconds(60)

    private let channel: any Channel
    private let collector: NIOLoopBound<Collector>

    private init(channel: any Channel, collector: NIOLoopBound<Collector>) {
        self.channel = channel
        self.collector = collector
    }

    /// - Parameter reading: false leaves everything in the sockets' buffers until ``startReading()``.
    public static func connect(to address: SocketAddress, reading: Bool = true) async throws -> RawClient {
        try await connect(reading: reading) { $0.connect(to: address) }
    }

    /// - Parameter reading: false leaves everything in the sockets' buffers until ``startReading()``.
    public static func connect(to address: NodeAddress, reading: Bool = true) async throws -> RawClient {
        try await connect(reading: reading) { $0.connect(host: address.host, port: address.port) }
    }

    private static func connect(
        reading: Bool, _ open: (ClientBootstrap) -> EventLoopFuture<any Channel>
    ) async throws -> RawClient {
        let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.autoRead, value: reading)
            .channelOption(.socketOption(.so_rcvbuf), value: reading ? 1 << 20 : 1 << 16)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Collector(eventLoop: channel.eventLoop))
                }
            }
        let channel = try await open(bootstrap).get()
        let collector = try await channel.eventLoop.submit {
            NIOLoopBound(
                try channel.pipeline.syncOperations.handler(type: Collector.self), eventLoop: channel.eventLoop)
        }.get()
        return RawClient(channel: channel, collector: collector)
    }

    /// Hands bytes to the socket. A peer that has closed is not an error here: what it answered shows.
    public func send(_ text: String) { send(Array(text.utf8)) }

    public func send(_ bytes: [UInt8]) { channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil) }

    /// Sends, and waits until the sockets have taken all of it; throws where the peer has closed or reset instead.
    public func deliver(_ bytes: [UInt8]) async throws { try await channel.writeAndFlush(ByteBuffer(bytes: bytes)) }

    /// Ends this side of the connection, after what was sent.
    public func finish() { channel.close(mode: .output, promise: nil) }

    /// A connection that has ended meanwhile has read what there was.
    public func startReading() async { try? await channel.setOption(.autoRead, value: true).get() }

    public func close() async { try? await channel.close().get() }

    /// Waits for `count` whole answers.
    public func answers(_ count: Int, heads: Set<Int> = []) async throws -> [RawAnswer] {
        let received = try await wait(for: "\(count) answers") { bytes, _ in
            ((try? RawAnswer.parse(bytes, heads: heads).answers.count) ?? 0) >= count
        }
        return try RawAnswer.parse(received, heads: heads).answers
    }

    public func bytes(_ count: Int) async throws -> [UInt8] {
        try await wait(for: "\(count) bytes") { bytes, _ in bytes.count >= count }
    }

    /// Waits until the server ends its side, and takes everything for whole answers.
    public func answersToEnd(heads: Set<Int> = []) async throws -> [RawAnswer] {
        let (answers, rest) = try RawAnswer.parse(try await bytesToEnd(), heads: heads)
        guard rest == 0 else { throw RawAnswer.Malformed(what: "\(rest) bytes after the last whole answer") }
        return answers
    }

    public func bytesToEnd() async throws -> [UInt8] {
        try await wait(for: "end of the connection") { _, ended in ended }
    }

    /// Everything received once `condition` holds of it; the flag says that nothing more will come.
    private func wait(
        for what: String, _ condition: @escaping @Sendable ([UInt8], Bool) -> Bool
    ) async throws -> [UInt8] {
        try await channel.eventLoop.flatSubmit { [collector] in collector.value.wait(for: what, condition) }.get()
    }
}

private final class Collector: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private struct Waiter {
        let condition: ([UInt8], Bool) -> Bool
        let promise: EventLoopPromise<[UInt8]>
    }

    private let eventLoop: any EventLoop
    private var received: [UInt8] = []
    private var ended = false
    private var waiter: Waiter?

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func wait(for what: String, _ condition: @escaping ([UInt8], Bool) -> Bool) -> EventLoopFuture<[UInt8]> {
        precondition(waiter == nil, "one wait at a time")
        let promise = eventLoop.makePromise(of: [UInt8].self)
        waiter = Waiter(condition: condition, promise: promise)
        let timeout = eventLoop.assumeIsolated().scheduleTask(in: RawClient.deadline) {
            self.waiter = nil
            promise.fail(RawClient.Timeout(waitedFor: what, received: String(decoding: self.received, as: UTF8.self)))
        }
        promise.futureResult.whenComplete { _ in timeout.cancel() }
        check()
        return promise.futureResult
    }

    private func check() {
        guard let waiter, waiter.condition(received, ended) else { return }
        self.waiter = nil
        waiter.promise.succeed(received)
    }

    private func end() {
        ended = true
        check()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received += unwrapInboundIn(data).readableBytesView
    }

    func channelReadComplete(context: ChannelHandlerContext) { check() }

    func channelInactive(context: ChannelHandlerContext) { end() }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .some(.inputClosed) = event as? ChannelEvent { end() }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
