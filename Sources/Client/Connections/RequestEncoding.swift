import Core
import NIOCore
import NIOHTTP1

/// Writes requests as bytes: request line, `host`, `content-length`, the caller's header fields.
struct RequestEncoding {
    /// `host: …` with its CRLF, the same for every request to a node.
    private let hostField: String

    init(address: NodeAddress) {
        hostField = " HTTP/1.1\r\nhost: \(address)\r\n"
    }

    /// Appends the head, with the empty line that ends it.
    func writeHead(of request: NodeRequest, into buffer: inout ByteBuffer) {
        buffer.writeString(request.method.rawValue)
        buffer.writeStaticString(" ")
        buffer.writeString(request.target)
        buffer.writeString(hostField)
        for (name, value) in request.headers {
            buffer.writeString(name)
            buffer.writeStaticString(": ")
            buffer.writeString(value)
            buffer.writeStaticString("\r\n")
        }
        if let body = request.body {
            buffer.writeStaticString("content-length: ")
            buffer.writeString(String(body.readableBytes))
            buffer.writeStaticString("\r\n\r\n")
        } else if request.method == .POST || request.method == .PUT {
            buffer.writeStaticString("content-length: 0\r\n\r\n")
        } else {
            buffer.writeStaticString("\r\n")
        }
    }

    /// nil where the request can be written as it is.
    static func defect(of request: NodeRequest) -> KVError? {
        guard request.target.utf8.first == UInt8(ascii: "/"), request.target.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else {
            return KVError(
                .invalidArgument, "the request target must start with / and be percent-encoded: \(request.target)")
        }
        for (name, value) in request.headers {
            guard !name.isEmpty, name.utf8.allSatisfy(isTokenByte) else {
                return KVError(.invalidArgument, "\"\(name)\" is not a header field name")
            }
            guard value.utf8.allSatisfy({ ($0 >= 0x20 && $0 != 0x7F) || $0 == 0x09 }) else {
                return KVError(.invalidArgument, "the value of header field \(name) holds a control character")
            }
            if isReserved(name) {
                return KVError(.invalidArgument, "header field \(name) is the connection's to write: leave it out")
            }
        }
        return nil
    }

    private static func isReserved(_ name: String) -> Bool {
        switch name.utf8.count {
        case 4, 10, 14, 17:
            ["host", "connection", "content-length", "transfer-encoding"].contains(name.lowercased())
        default: false
        }
    }

    /// `tchar` of RFC 9110 section 5.6.2.
    private static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }
}

/// The channel handler next to the socket: lets bytes through and drops request heads.
///
/// The response decoder learns from the heads written past it which method each response belongs to (a response to
/// HEAD has no content), but the bytes of a request are already encoded by ``RequestEncoding``.
final class RequestByteSink: ChannelOutboundHandler {
    typealias OutboundIn = HTTPClientRequestPart
    typealias OutboundOut = ByteBuffer

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .body(.byteBuffer(let bytes)) = Self.unwrapOutboundIn(data) {
            context.write(Self.wrapOutboundOut(bytes), promise: promise)
        } else {
            promise?.succeed()
        }
    }
}
