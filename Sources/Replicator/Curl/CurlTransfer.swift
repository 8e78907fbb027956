import CCurl
import NIOCore

/// One request on its way, and the answer as far as it has come. Belongs to the loop's thread.
final class CurlTransfer {
    let id: UInt64
    let request: CurlRequest
    private let continuation: CheckedContinuation<CurlResponse, any Error>

    private var headers: [(name: String, value: String)] = []
    private var body = ByteBuffer()
    private var bodySentBytes = 0
    /// Why a callback made libcurl stop; says more than the code that libcurl gives then.
    private var refusal: CurlError?

    init(id: UInt64, request: CurlRequest, continuation: CheckedContinuation<CurlResponse, any Error>) {
        self.id = id
        self.request = request
        self.continuation = continuation
    }

    func fail(_ error: CurlError) { continuation.resume(throwing: refusal ?? error) }

    func succeed(status: Int) {
        continuation.resume(returning: CurlResponse(status: status, headers: headers, body: body))
    }

    /// Takes bytes of the answer; false where they are too many.
    func receive(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard body.readableBytes + bytes.count <= request.responseBytesMax else { return refuseBody() }
        body.writeBytes(bytes)
        return true
    }

    /// Takes one line of the answer's head; false where it announces too much.
    func receiveHeaderLine(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")) else {
            // A status line (a new answer begins, after a 100 Continue also) or the empty line at the end.
            if bytes.starts(with: "HTTP/".utf8) { headers.removeAll(keepingCapacity: true) }
            return true
        }
        let name = String(decoding: bytes[..<colon], as: UTF8.self).lowercased()
        var value = bytes[(colon + 1)...]
        while let last = value.last, CurlTransfer.isSpace(last) { value = value.dropLast() }
        value = value.drop { CurlTransfer.isSpace($0) }
        headers.append((name, String(decoding: value, as: UTF8.self)))
        if name == "content-length", let length = Int(headers[headers.count - 1].value) {
            guard length <= request.responseBytesMax else { return refuseBody() }
            body.reserveCapacity(max(length, 0))
        }
        return true
    }

    /// Fills `room` with the next bytes of the request's body.
    func send(into room: UnsafeMutableRawBufferPointer) -> Int {
        request.body.withUnsafeReadableBytes { bytes in
            let part = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(bodySentBytes).prefix(room.count))
            room.copyMemory(from: part)
            bodySentBytes += part.count
            return part.count
        }
    }

    /// Starts the body again at `offset`: libcurl does so when a reused connection turns out to be dead.
    func rewind(to offset: Int) -> Bool {
        guard (0...request.body.readableBytes).contains(offset) else { return false }
        bodySentBytes = offset
        return true
    }

    private func refuseBody() -> Bool {
        refusal = CurlError(.bodyTooLarge, "the answer has more than \(request.responseBytesMax) bytes")
        return false
    }

    private static func isSpace(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") || byte == UInt8(ascii: "\r")
            || byte == UInt8(ascii: "\n")
    }
}
