import Core
import HTTPServer
import NIOCore
import ServiceSupport
import Wire

/// How a read is answered once the replica has looked.
struct ReadAnswer: Sendable {
    let exchange: HTTPExchange
    /// Its `if-none-match`; nil where it has none.
    let condition: String?
    /// Of a follower: milliseconds by which the answer may be behind the leader, where it knows. Taken before the
    /// look, so that the answer is no older.
    let lag: UInt64?

    /// - Parameter left: milliseconds that the value has to live; nil for one that does not expire.
    func found(_ version: Version, _ value: UnsafeRawBufferPointer, left: UInt64?) {
        if let condition, condition == "*" || condition.contains("\"\(version.hexDigits)\"") {
            return exchange.respond(status: 304, contentLength: nil) { buffer in
                buffer.writeVersionFields(version)
                ReadAnswer.writeExpiry(left, into: &buffer)
                writeLag(into: &buffer)
            }
        }
        exchange.respond(status: 200, contentLength: value.count) { buffer in
            buffer.writeStaticString("content-type: application/octet-stream\r\n")
            buffer.writeVersionFields(version)
            ReadAnswer.writeExpiry(left, into: &buffer)
            writeLag(into: &buffer)
        } body: { buffer in
            buffer.writeBytes(value)
        }
    }

    func missing() {
        exchange.respond(status: 404, contentLength: ReadAnswer.missingDocument.count) { buffer in
            buffer.writeStaticString("content-type: application/problem+json\r\n")
            writeLag(into: &buffer)
        } body: { buffer in
            buffer.writeBytes(ReadAnswer.missingDocument)
        }
    }

    private static let missingDocument = Array(
        (Problem(.notFound, "No value is stored under this key on this replica.").json + "\n").utf8)

    private static func writeExpiry(_ left: UInt64?, into buffer: inout ByteBuffer) {
        guard let left else { return }
        buffer.writeStaticString("kv-expires-in: ")
        buffer.writeDecimal(left)
        buffer.writeStaticString("ms\r\n")
    }

    private func writeLag(into buffer: inout ByteBuffer) {
        guard let lag else { return }
        buffer.writeStaticString("kv-lag: ")
        buffer.writeDecimal(lag)
        buffer.writeStaticString("\r\n")
    }
}
