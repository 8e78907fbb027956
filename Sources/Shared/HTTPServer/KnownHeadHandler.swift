import NIOCore
import NIOHTTP1

/// Stands before the decoder and hands requests whose head it knows straight to the connection; the decoder reads the rest.
///
/// Invariant: the decoder is given whole requests, one after another, and what it is not given it never needs: at
/// `boundary` it has read all of the request before, and nothing of the next.
final class KnownHeadHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private enum Place {
        /// The next byte begins a request.
        case boundary
        /// The decoder has part of a head. `tail`: the last three bytes of it, in which its end may have begun.
        case head(tail: ByteBuffer)
        /// That many bytes of a body are still to come.
        case body(Int)
        /// Only the decoder knows where the next request begins, if there is one: it reads everything from here on.
        case unknown
    }

    private static let endOfHead = Array("\r\n\r\n".utf8)

    private let connection: HTTPConnectionHandler
    private var place = Place.boundary
    /// The last ones read: without a body, and with one.
    private var known: (bodiless: KnownHead?, bodied: KnownHead?)

    init(connection: HTTPConnectionHandler) { self.connection = connection }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        while bytes.readableBytes > 0 {
            switch place {
            case .boundary:
                if !receiveKnown(&bytes) { readHead(context, &bytes, tail: ByteBuffer()) }
            case .head(let tail):
                readHead(context, &bytes, tail: tail)
            case .body(let missing):
                let count = min(missing, bytes.readableBytes)
                place = count == missing ? .boundary : .body(missing - count)
                pass(context, &bytes, count)
            case .unknown:
                pass(context, &bytes, bytes.readableBytes)
            }
        }
    }

    private func pass(_ context: ChannelHandlerContext, _ bytes: inout ByteBuffer, _ count: Int) {
        guard count < bytes.readableBytes else {
            context.fireChannelRead(wrapInboundOut(bytes))
            bytes.moveReaderIndex(to: bytes.writerIndex)
            return
        }
        if let part = bytes.readSlice(length: count) { context.fireChannelRead(wrapInboundOut(part)) }
    }

    /// - Returns: false where the decoder must read what is next.
    private func receiveKnown(_ bytes: inout ByteBuffer) -> Bool {
        guard let (head, match) = match(bytes) else { return false }
        let start = bytes.readerIndex
        guard let target = bytes.getSlice(at: start + match.target.lowerBound, length: match.target.count) else {
            return false
        }
        if match.bodyBytes == 0 {
            guard connection.receive(head, target: target) else { return false }
        } else {
            guard let body = bytes.getSlice(at: start + match.bodyStart, length: match.bodyBytes),
                connection.receive(head, target: String(buffer: target), body: body)
            else { return false }
        }
        bytes.moveReaderIndex(forwardBy: match.end)
        return true
    }

    private func match(_ bytes: ByteBuffer) -> (KnownHead, KnownHead.Match)? {
        bytes.withUnsafeReadableBytes { bytes in
            if let head = known.bodiless, let match = head.match(bytes) { return (head, match) }
            if let head = known.bodied, let match = head.match(bytes) { return (head, match) }
            return nil
        }
    }

    /// Gives the decoder what there is of a head, and nothing that follows it.
    private func readHead(_ context: ChannelHandlerContext, _ bytes: inout ByteBuffer, tail: ByteBuffer) {
        guard let end = KnownHeadHandler.endOfHead(in: bytes, after: tail) else {
            var seen = tail
            seen.writeImmutableBuffer(bytes)
            place = .head(tail: ByteBuffer(bytes: seen.readableBytesView.suffix(KnownHeadHandler.endOfHead.count - 1)))
            return pass(context, &bytes, bytes.readableBytes)
        }
        let head = tail.readableBytes == 0 ? bytes.getSlice(at: bytes.readerIndex, length: end) : nil
        // What the connection says of the head decides where it ends; until then nobody knows.
        place = .unknown
        let headsBefore = connection.headsRead
        pass(context, &bytes, end)
        guard connection.headsRead == headsBefore + 1, let (target, meaning) = connection.plainHead() else { return }
        place = meaning.declaredBytes == 0 ? .boundary : .body(meaning.declaredBytes)
        guard let head else { return }
        let known = head.withUnsafeReadableBytes { KnownHead($0, target: target, meaning: meaning) }
        if meaning.declaredBytes == 0 { self.known.bodiless = known } else { self.known.bodied = known }
    }

    /// How many of `bytes` belong to the head that began before them with `tail` at its end; nil where it goes on.
    private static func endOfHead(in bytes: ByteBuffer, after tail: ByteBuffer) -> Int? {
        var seen = bytes
        if tail.readableBytes > 0 {
            seen = tail
            seen.writeImmutableBuffer(bytes)
        }
        let end = seen.withUnsafeReadableBytes { seen -> Int? in
            var end = endOfHead.count
            while end <= seen.count, !seen[(end - endOfHead.count)..<end].elementsEqual(endOfHead) { end += 1 }
            return end <= seen.count ? end : nil
        }
        return end.map { $0 - tail.readableBytes }
    }
}
