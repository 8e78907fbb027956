import Core
import NIOCore
import NIOPosix
import Synchronization

/// A TCP proxy in front of a node, which can do to its connections what networks do.
///
/// Faults go by who has connected, so that chosen pairs are separated. The test's own connections meet none.
final class NetworkProxy: Sendable {
    enum Fault: Sendable, Hashable {
        /// Nothing passes and nothing is closed, as where packets are lost. What was under way arrives afterwards.
        case drop
        /// Connections are closed, new ones at once.
        case reset
        /// Every piece of up to 16 KiB waits so long, and no more than so many bytes pass in a second.
        case slow(delay: TimeAmount, bytesPerSecond: Int)

        fileprivate func delay(of bytes: Int) -> TimeAmount {
            guard case .slow(let delay, let rate) = self else { return .zero }
            return delay + .microseconds(Int64(bytes) * 1_000_000 / Int64(max(1, rate)))
        }
    }

    /// Names the process at the other end of a connection; nil for the test itself.
    typealias Identify = @Sendable (_ source: NodeAddress, _ destination: NodeAddress) -> String?

    private struct State {
        /// By the name of who connects.
        var faults: [String: Fault] = [:]
        /// Of those who have none of their own.
        var others: Fault?
        var links: [ObjectIdentifier: Entry] = [:]

        func fault(of source: String?) -> Fault? { source.flatMap { faults[$0] ?? others } }
    }

    private struct Entry {
        let source: String?
        let link: NIOLoopBound<ProxyLink>
    }

    private let state = Mutex(State())
    private let listener = Mutex<(any Channel)?>(nil)

    private init() {}

    static func start(
        at address: NodeAddress, to target: NodeAddress, identify: @escaping Identify
    ) async throws -> NetworkProxy {
        let proxy = NetworkProxy()
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 16_384))
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    // Reads a few files of /proc: short, and on no loop that what is tested uses.
                    let source = proxy.source(of: channel, identify)
                    let link = ProxyLink(from: channel, to: target)
                    try channel.pipeline.syncOperations.addHandler(link.front)
                    proxy.add(link, from: source)
                    channel.closeFuture.whenComplete { _ in proxy.remove(ObjectIdentifier(channel)) }
                }
            }
            .bind(host: address.host, port: address.port).get()
        proxy.listener.withLock { $0 = channel }
        return proxy
    }

    private func source(of channel: any Channel, _ identify: Identify) -> String? {
        guard let source = channel.remoteAddress.flatMap(NodeAddress.init(socket:)),
            let destination = channel.localAddress.flatMap(NodeAddress.init(socket:))
        else { return nil }
        return identify(source, destination)
    }

    private func add(_ link: ProxyLink, from source: String?) {
        let bound = NIOLoopBound(link, eventLoop: link.eventLoop)
        let fault = state.withLock { state in
            state.links[ObjectIdentifier(link.channel)] = Entry(source: source, link: bound)
            return state.fault(of: source)
        }
        link.apply(fault)
    }

    private func remove(_ id: ObjectIdentifier) { state.withLock { _ = $0.links.removeValue(forKey: id) } }

    /// Sets the fault of connections from `source`, those that are open included, or takes it away.
    /// - Parameter source: the name of a process; nil for all that have no fault of their own.
    ///
    /// When it returns the fault is in force.
    func set(_ fault: Fault?, from source: String? = nil) async throws {
        try await change { state in
            if let source { state.faults[source] = fault } else { state.others = fault }
        }
    }

    func heal() async throws {
        try await change { state in
            state.faults = [:]
            state.others = nil
        }
    }

    private func change(_ body: (inout State) -> Void) async throws {
        let changed = state.withLock { state in
            body(&state)
            return state.links.values.map { ($0.link, state.fault(of: $0.source)) }
        }
        for (link, fault) in changed {
            try await link.eventLoop.submit { link.value.apply(fault) }.get()
        }
    }

    /// Who is connected now; nil stands for the test itself.
    var sources: [String?] { state.withLock { $0.links.values.map(\.source) } }

    func stop() async {
        let channel = listener.withLock { $0 }
        do {
            try await channel?.close().get()
            try await change { $0.others = .reset }
        } catch {
            print("a proxy does not stop: \(error)")
        }
    }
}

extension NodeAddress {
    /// nil for what is no IPv4 or IPv6 address.
    fileprivate init?(socket: SocketAddress) {
        guard let host = socket.ipAddress, let port = socket.port else { return nil }
        self.init(host: host, port: port)
    }
}

/// One connection through the proxy and the one behind it. Lives on its event loop.
private final class ProxyLink {
    let channel: any Channel
    let front: ProxyEnd
    private let target: NodeAddress
    private var isConnecting = false
    private(set) var fault: NetworkProxy.Fault?

    var eventLoop: any EventLoop { channel.eventLoop }

    init(from channel: any Channel, to target: NodeAddress) {
        self.channel = channel
        self.target = target
        front = ProxyEnd()
        front.link = self
    }

    func apply(_ fault: NetworkProxy.Fault?) {
        self.fault = fault
        switch fault {
        case .reset: channel.close(promise: nil)
        case .drop: break
        case .slow, nil:
            connect()
            front.pump()
            front.partner?.pump()
        }
        if fault == .reset { front.partner?.close() }
    }

    /// Behind a fault that drops everything nobody is reached, so it waits for the end of that.
    private func connect() {
        guard !isConnecting else { return }
        isConnecting = true
        let back = ProxyEnd()
        back.link = self
        let bound = NIOLoopBound(back, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .channelOption(.autoRead, value: false)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 16_384))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(bound.value)
                }
            }
            .connect(host: target.host, port: target.port)
            .assumeIsolated()
            .whenComplete { [self] result in
                switch result {
                case .success:
                    front.partner = back
                    back.partner = front
                    apply(fault)
                case .failure: channel.close(promise: nil)
                }
            }
    }
}

/// One end of a link: what it reads goes to its partner, one piece after the other.
private final class ProxyEnd: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    var link: ProxyLink?
    var partner: ProxyEnd?
    private var context: ChannelHandlerContext?
    private var held = CircularBuffer<ByteBuffer>()
    private var isReading = false
    private var isDelivering = false
    private var hasEnded = false

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelActive(context: ChannelHandlerContext) { pump() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        isReading = false
        held.append(unwrapInboundIn(data))
        pump()
    }

    func channelInactive(context: ChannelHandlerContext) {
        hasEnded = true
        pump()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func close() { context?.close(promise: nil) }

    /// Goes on wherever something can go on.
    func pump() {
        guard let link, link.fault != .drop, let partner, !isDelivering else { return }
        if let piece = held.popFirst() {
            isDelivering = true
            let delay = link.fault?.delay(of: piece.readableBytes) ?? .zero
            guard delay > .zero else { return deliver(piece) }
            link.eventLoop.assumeIsolated().scheduleTask(in: delay) { self.deliver(piece) }
        } else if hasEnded {
            partner.close()
            // Nothing more comes, and the two no longer hold each other.
            (self.link, self.partner) = (nil, nil)
        } else if !isReading, let context, context.channel.isActive {
            // A read that is asked for before the channel is active is forgotten.
            isReading = true
            context.read()
        }
    }

    private func deliver(_ piece: ByteBuffer) {
        guard link?.fault != .drop else {
            held.prepend(piece)
            isDelivering = false
            return
        }
        guard let context = partner?.context else { return close() }
        context.writeAndFlush(NIOAny(piece)).assumeIsolated().whenComplete { [self] result in
            isDelivering = false
            if case .failure = result { close() } else { pump() }
        }
    }
}
