public import NIOCore
import NIOHTTP1

extension ByteBuffer {
    /// `HTTP/1.1 <status> <reason>` and CRLF.
    mutating func writeStatusLine(_ status: Int) {
        switch status {
        case 200: writeStaticString("HTTP/1.1 200 OK\r\n")
        case 204: writeStaticString("HTTP/1.1 204 No Content\r\n")
        case 304: writeStaticString("HTTP/1.1 304 Not Modified\r\n")
        case 307: writeStaticString("HTTP/1.1 307 Temporary Redirect\r\n")
        case 308: writeStaticString("HTTP/1.1 308 Permanent Redirect\r\n")
        case 404: writeStaticString("HTTP/1.1 404 Not Found\r\n")
        default:
            let reason = HTTPResponseStatus(statusCode: status).reasonPhrase
            writeString("HTTP/1.1 \(status) \(reason)\r\n")
        }
    }

    /// A number in decimal, without a string in between.
    public mutating func writeDecimal(_ number: UInt64) {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var rest = number
            var start = 20
            repeat {
                start -= 1
                digits[start] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
                rest /= 10
            } while rest > 0
            _ = writeBytes(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(digits)[start...]))
        }
    }

    mutating func writeContentLength(_ length: Int) {
        writeStaticString("content-length: ")
        writeDecimal(UInt64(length))
        writeStaticString("\r\n")
    }

    /// The `connection` field where one is due, and the blank line.
    mutating func writeEndOfHead(closes: Bool, saysKeepAlive: Bool) {
        if closes {
            writeStaticString("connection: close\r\n\r\n")
        } else if saysKeepAlive {
            writeStaticString("connection: keep-alive\r\n\r\n")
        } else {
            writeStaticString("\r\n")
        }
    }

    /// What `body` appends, which must be as long as was announced.
    mutating func writeContent(_ contentLength: Int, _ body: (inout ByteBuffer) -> Void) {
        let start = writerIndex
        body(&self)
        assert(writerIndex - start == contentLength, "the content is not as long as content-length says")
    }

    mutating func writeFields(_ headers: [(name: String, value: String)]) {
        for (name, value) in headers {
            writeString(name)
            writeStaticString(": ")
            writeString(value)
            writeStaticString("\r\n")
        }
    }
}
