public import NIOCore
import NIOHTTP1

extension ByteBuffer {
    /// The status line, and `content-length` where there is one.
    mutating func writeStartOfHead(status: Int, contentLength: Int?) {
        guard let line = ByteBuffer.statusLine(status) else {
            let reason = HTTPResponseStatus(statusCode: status).reasonPhrase
            writeString("HTTP/1.1 \(status) \(reason)\r\n")
            if let contentLength { writeString("content-length: \(contentLength)\r\n") }
            return
        }
        // In one go: growing the buffer is checked once.
        let bytesMax =
            line.count + ByteBuffer.lengthField.count + ByteBuffer.decimalDigitsMax + ByteBuffer.endOfLine.count
        writeWithUnsafeMutableBytes(minimumWritableBytes: bytesMax) { target in
            var written = 0
            func append(_ bytes: UnsafeRawBufferPointer) {
                UnsafeMutableRawBufferPointer(rebasing: target[written...]).copyMemory(from: bytes)
                written += bytes.count
            }
            append(line)
            if let contentLength {
                append(ByteBuffer.lengthField)
                ByteBuffer.withDecimal(UInt64(contentLength)) { append($0) }
                append(ByteBuffer.endOfLine)
            }
            return written
        }
    }

    /// `HTTP/1.1 <status> <reason>` and CRLF of the statuses that are sent often.
    private static func statusLine(_ status: Int) -> UnsafeRawBufferPointer? {
        switch status {
        case 200: bytes("HTTP/1.1 200 OK\r\n")
        case 204: bytes("HTTP/1.1 204 No Content\r\n")
        case 304: bytes("HTTP/1.1 304 Not Modified\r\n")
        case 307: bytes("HTTP/1.1 307 Temporary Redirect\r\n")
        case 308: bytes("HTTP/1.1 308 Permanent Redirect\r\n")
        case 404: bytes("HTTP/1.1 404 Not Found\r\n")
        default: nil
        }
    }

    private static var lengthField: UnsafeRawBufferPointer { bytes("content-length: ") }
    private static var endOfLine: UnsafeRawBufferPointer { bytes("\r\n") }

    /// Its bytes, which are there for as long as the program runs.
    private static func bytes(_ text: StaticString) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
    }

    /// Of a `UInt64`.
    private static let decimalDigitsMax = 20

    private static func withDecimal(_ number: UInt64, _ body: (UnsafeRawBufferPointer) -> Void) {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: decimalDigitsMax) { digits in
            var rest = number
            var start = decimalDigitsMax
            repeat {
                start -= 1
                digits[start] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
                rest /= 10
            } while rest > 0
            body(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(digits)[start...]))
        }
    }

    /// A number in decimal, without a string in between.
    public mutating func writeDecimal(_ number: UInt64) {
        ByteBuffer.withDecimal(number) { _ = writeBytes($0) }
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
