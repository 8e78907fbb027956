import NIOCore
import Synchronization

/// Collects what a channel receives.
final class RawCollector: Sendable {
    private let bytes = Mutex(ByteBuffer())

    var text: String { bytes.withLock { String(buffer: $0) } }

    func handler() -> some ChannelInboundHandler { Handler(collector: self) }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let collector: RawCollector
        init(collector: RawCollector) { self.collector = collector }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let received = unwrapInboundIn(data)
            collector.bytes.withLock { _ = $0.writeImmutableBuffer(received) }
        }
    }
}
