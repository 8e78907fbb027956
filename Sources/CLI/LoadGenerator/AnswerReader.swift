import Glibc

/// Reads HTTP/1.1 answers of the shapes that this project's servers send, from pieces of any length.
///
/// A head of at most ``headBytesMax`` bytes with lines that end in CRLF, then as many bytes as `content-length` says, none
/// with status 204 and 304. Anything else, chunked answers also, is ``Defect``: this is no client for any server.
/// RFC 9112.
struct AnswerReader {
    static let headBytesMax = 16 << 10

    struct Head {
        var status = 0
        var contentLength = 0
        /// Of `kv-epoch`; 0 where there is none.
        var epoch: UInt64 = 0
        /// Of a redirect.
        var location: [UInt8]?
        /// No answer follows on this connection.
        var isLast = false
    }

    enum Defect: Error {
        case notHTTP, headTooLong, unsupportedFraming
    }

    /// What one call found.
    struct Progress {
        /// Bytes that are read for good; the caller gives those behind them again, with more.
        var consumed = 0
        /// Where in the bytes given a piece of the answer's content stands.
        var content = 0..<0
        /// ``head`` is of an answer that is complete.
        var isComplete = false
    }

    private(set) var head = Head()
    private var remaining: Int?

    /// The head of the answer that is being read is complete.
    var hasHead: Bool { remaining != nil }

    /// Reads on, to the end of one answer at most.
    mutating func read(_ bytes: UnsafeRawBufferPointer) throws(Defect) -> Progress {
        var progress = Progress()
        if remaining == nil {
            guard let length = try readHead(bytes) else { return progress }
            progress.consumed = length
            remaining = head.contentLength
        }
        guard let left = remaining else { return progress }
        let count = min(left, bytes.count - progress.consumed)
        progress.content = progress.consumed..<progress.consumed + count
        progress.consumed += count
        progress.isComplete = count == left
        remaining = progress.isComplete ? nil : left - count
        return progress
    }

    /// The length of the head; nil where it is not complete.
    private mutating func readHead(_ bytes: UnsafeRawBufferPointer) throws(Defect) -> Int? {
        guard let start = bytes.baseAddress else { return nil }
        var (position, found) = (0, Head())
        var contentLength: Int?
        while let lineFeed = memchr(start + position, 0x0A, bytes.count - position) {
            let end = UnsafeRawPointer(lineFeed) - start
            guard end > position, bytes[end - 1] == 0x0D else { throw .notHTTP }
            guard end < Self.headBytesMax else { throw .headTooLong }
            let line = UnsafeRawBufferPointer(start: start + position, count: end - 1 - position)
            if position == 0 {
                found.status = try Self.status(line)
            } else if line.isEmpty {
                position = end + 1
                let isEmpty = found.status == 204 || found.status == 304
                guard let length = isEmpty ? 0 : contentLength, found.status >= 200 else { throw .unsupportedFraming }
                found.contentLength = length
                head = found
                return position
            } else {
                try Self.readField(line, &found, &contentLength)
            }
            position = end + 1
        }
        guard bytes.count < Self.headBytesMax else { throw .headTooLong }
        return nil
    }

    /// `HTTP/1.1 200 OK`
    private static func status(_ line: UnsafeRawBufferPointer) throws(Defect) -> Int {
        guard line.count >= 12, memcmp(line.baseAddress!, "HTTP/1.1 ", 9) == 0,
            let status = decimal(line[9..<12]), line.count == 12 || line[12] == UInt8(ascii: " ")
        else { throw .notHTTP }
        return Int(status)
    }

    private static func readField(
        _ line: UnsafeRawBufferPointer, _ head: inout Head, _ contentLength: inout Int?
    ) throws(Defect) {
        // Most fields are none of these: their first letter tells.
        switch line[0] | 0x20 {
        case UInt8(ascii: "c"):
            if let value = value(of: "content-length", in: line) {
                guard contentLength == nil, let number = decimal(value), number <= UInt64(Int32.max) else {
                    throw .unsupportedFraming
                }
                contentLength = Int(number)
            } else if let value = value(of: "connection", in: line) {
                head.isLast = value.lazy.map { $0 | 0x20 }.elementsEqual("close".utf8)
            }
        case UInt8(ascii: "k"):
            if let value = value(of: "kv-epoch", in: line) { head.epoch = decimal(value) ?? 0 }
        case UInt8(ascii: "l"):
            if let value = value(of: "location", in: line) { head.location = Array(value) }
        case UInt8(ascii: "t"):
            if value(of: "transfer-encoding", in: line) != nil { throw .unsupportedFraming }
        default: break
        }
    }

    /// Without the blanks around it; nil where the field has another name.
    private static func value(
        of name: StaticString, in line: UnsafeRawBufferPointer
    ) -> Slice<UnsafeRawBufferPointer>? {
        let length = name.utf8CodeUnitCount
        guard let start = line.baseAddress, line.count > length, line[length] == UInt8(ascii: ":"),
            strncasecmp(
                start.assumingMemoryBound(to: CChar.self),
                UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self), length) == 0
        else { return nil }
        var value = line[(length + 1)...]
        while let first = value.first, first == 0x20 || first == 0x09 { value = value.dropFirst() }
        while let last = value.last, last == 0x20 || last == 0x09 { value = value.dropLast() }
        return value
    }

    /// nil where it is none, or has more than 18 digits.
    private static func decimal(_ digits: Slice<UnsafeRawBufferPointer>) -> UInt64? {
        guard !digits.isEmpty, digits.count <= 18 else { return nil }
        var number: UInt64 = 0
        for digit in digits {
            guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9") else { return nil }
            number = number * 10 + UInt64(digit - UInt8(ascii: "0"))
        }
        return number
    }
}
