import NIOCore
import NIOHTTP1

/// NIO's request decoder with this server's limits, which can also say whether it was the target that broke them.
struct LimitedRequestDecoder: ByteToMessageDecoder {
    typealias InboundOut = HTTPServerRequestPart

    /// The request target goes on past every limit; its end was not waited for.
    struct TargetTooLong: Error {}

    /// More than one read of a socket brings, so that a field which breaks the limit was seen unfinished before.
    private static let fieldBytesMin = 81_920

    private let decoder: HTTPRequestDecoder
    private let targetBytesMax: Int
    private var targetUnfinished = false

    /// What may be held back for a field or target that has not arrived whole, and of an upgrade's bytes.
    static func bufferedBytesMax(_ configuration: HTTPServerConfiguration) -> Int {
        2 * fieldBytesMax(configuration) + 262_144
    }

    private static func fieldBytesMax(_ configuration: HTTPServerConfiguration) -> Int {
        max(configuration.targetBytesMax, configuration.headerBytesMax, fieldBytesMin)
    }

    init(configuration: HTTPServerConfiguration) {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = LimitedRequestDecoder.fieldBytesMax(configuration)
        limits.maxHeaderListSize = limits.maxHeaderFieldSize + configuration.headerBytesMax
        limits.maxHeaderFieldCount = configuration.headerFieldsMax
        decoder = HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes, limitConfiguration: limits)
        targetBytesMax = configuration.targetBytesMax
    }

    mutating func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws -> DecodingState {
        let start = buffer.readerIndex
        do {
            let state = try decoder.decode(context: context, buffer: &buffer)
            if buffer.readableBytes > 0 { noteUnfinished(in: buffer, from: start) }
            return state
        } catch HTTPParserError.headerOverflow where targetUnfinished && buffer.readableBytes > targetBytesMax {
            throw TargetTooLong()
        }
    }

    mutating func decodeLast(
        context: ChannelHandlerContext, buffer: inout ByteBuffer, seenEOF: Bool
    ) throws -> DecodingState {
        try decoder.decodeLast(context: context, buffer: &buffer, seenEOF: seenEOF)
    }

    func decoderAdded(context: ChannelHandlerContext) { decoder.decoderAdded(context: context) }

    func decoderRemoved(context: ChannelHandlerContext) { decoder.decoderRemoved(context: context) }

    /// The decoder leaves an unfinished target, field name or value unread. Only a target stands behind a method
    /// and one space; what was left before and is left again keeps its kind.
    private mutating func noteUnfinished(in buffer: ByteBuffer, from start: Int) {
        guard buffer.readerIndex > start else { return }
        targetUnfinished = false
        guard buffer.readerIndex >= start + 2 else { return }
        var before = buffer
        before.moveReaderIndex(to: buffer.readerIndex - 2)
        guard let letter = before.readInteger(as: UInt8.self), let space = before.readInteger(as: UInt8.self) else {
            return
        }
        targetUnfinished = space == UInt8(ascii: " ") && letter >= UInt8(ascii: "A") && letter <= UInt8(ascii: "Z")
    }
}

extension HTTPRejection {
    /// The answer to a request that the decoder gave up on; nil where the error is not about the request.
    init?(decodingError error: any Error, configuration: HTTPServerConfiguration) {
        switch error {
        case is LimitedRequestDecoder.TargetTooLong: self = .targetTooLong(limit: configuration.targetBytesMax)
        case HTTPParserError.headerOverflow: self = .headersTooLarge(limit: configuration.headerBytesMax)
        case let error as HTTPParserError: self = .malformed(error.debugDescription)
        default: return nil
        }
    }
}
