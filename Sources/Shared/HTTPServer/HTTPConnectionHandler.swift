import NIOCore
final class HTTPConnectionHandler {
    func respond(sequence: UInt64, status: Int, contentLength: Int?, fields: (inout ByteBuffer) -> Void, body: (inout ByteBuffer) -> Void) {}
}
