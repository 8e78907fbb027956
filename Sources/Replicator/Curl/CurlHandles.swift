import CCurl
import NIOCore

/// Owns a multi handle.
///
/// Unchecked, because libcurl's rule cannot be told to the compiler: `wakeup` may be called from any thread,
/// everything else only on the loop's thread. The handle lives as long as anyone who could wake it.
final class MultiHandle: @unchecked Sendable {
    let pointer: UnsafeMutableRawPointer

    /// - Parameter connectionsMax: connections kept open for reuse.
    init(connectionsMax: Int) throws {
        guard let pointer = curl_multi_init() else { throw CurlError(.other, "libcurl has no memory for a handle") }
        self.pointer = pointer
        _ = ccurl_multi_set_long(pointer, CURLMOPT_MAXCONNECTS, connectionsMax)
    }

    deinit { curl_multi_cleanup(pointer) }

    func wakeup() { _ = curl_multi_wakeup(pointer) }
}

/// Owns an easy handle and the list of header fields it points to; reused from request to request, so that
/// its buffers are. Belongs to the loop's thread.
final class EasyHandle {
    /// Bodies up to this are handed to libcurl as a copy, which it sends in one piece with the head.
    static let copiedBodyBytesMax = 64 << 10
    private static let receiveBufferBytes = 64 << 10
    private static let sendBufferBytes = 64 << 10

    let pointer: UnsafeMutableRawPointer
    private var headers: UnsafeMutablePointer<curl_slist>?
    private let errorText: UnsafeMutablePointer<CChar>

    init() throws {
        guard let pointer = curl_easy_init() else { throw CurlError(.other, "libcurl has no memory for a handle") }
        self.pointer = pointer
        errorText = .allocate(capacity: Int(CURL_ERROR_SIZE))
        errorText.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    }

    deinit {
        curl_easy_cleanup(pointer)
        curl_slist_free_all(headers)
        errorText.deallocate()
    }

    var status: Int {
        var code = 0
        _ = ccurl_get_response_code(pointer, &code)
        return code
    }

    /// What libcurl says about the last failure; may be empty.
    var errorDetail: String { String(cString: errorText) }

    /// Sets everything for `transfer`, which must outlive the handle's time in the multi handle.
    func prepare(for transfer: CurlTransfer) throws {
        let request = transfer.request
        curl_easy_reset(pointer)
        errorText[0] = 0
        let context = UnsafeRawPointer(Unmanaged.passUnretained(transfer).toOpaque())
        try check(ccurl_set_string(pointer, CURLOPT_URL, request.url))
        try check(ccurl_set_string(pointer, CURLOPT_PROTOCOLS_STR, "http"))
        // An empty proxy keeps http_proxy of the environment out.
        try check(ccurl_set_string(pointer, CURLOPT_PROXY, ""))
        try check(ccurl_set_pointer(pointer, CURLOPT_ERRORBUFFER, errorText))
        for (option, value) in [
            (CURLOPT_NOSIGNAL, 1), (CURLOPT_TCP_NODELAY, 1), (CURLOPT_TCP_KEEPALIVE, 1), (CURLOPT_FOLLOWLOCATION, 0),
            (CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1)),
            (CURLOPT_BUFFERSIZE, EasyHandle.receiveBufferBytes),
            (CURLOPT_UPLOAD_BUFFERSIZE, EasyHandle.sendBufferBytes),
            (CURLOPT_TIMEOUT_MS, milliseconds(request.timeout)),
            (CURLOPT_CONNECTTIMEOUT_MS, milliseconds(request.connectTimeout)),
        ] {
            try check(ccurl_set_long(pointer, option, value))
        }
        try setCallbacks(context)
        try setHeaders(request)
        try setMethod(request, context)
    }

    private func setMethod(_ request: CurlRequest, _ context: UnsafeRawPointer) throws {
        switch request.method {
        case .get: break
        case .post: try setBody(request.body, context)
        case .put:
            // Not CURLOPT_UPLOAD, which has its own rules: a POST under another name.
            try setBody(request.body, context)
            try check(ccurl_set_string(pointer, CURLOPT_CUSTOMREQUEST, "PUT"))
        case .delete: try check(ccurl_set_string(pointer, CURLOPT_CUSTOMREQUEST, "DELETE"))
        }
    }

    private func setCallbacks(_ context: UnsafeRawPointer) throws {
        try check(ccurl_set_write_callback(pointer, CURLOPT_WRITEFUNCTION, receiveBody))
        try check(ccurl_set_pointer(pointer, CURLOPT_WRITEDATA, context))
        try check(ccurl_set_write_callback(pointer, CURLOPT_HEADERFUNCTION, receiveHeaderLine))
        try check(ccurl_set_pointer(pointer, CURLOPT_HEADERDATA, context))
    }

    private func setHeaders(_ request: CurlRequest) throws {
        curl_slist_free_all(headers)
        headers = nil
        // A name without a value takes out what libcurl would send: it waits up to a second for a 100 Continue.
        var lines = ["Expect:"]
        if request.method == .post || request.method == .put,
            !request.headers.contains(where: { $0.name.lowercased() == "content-type" })
        {
            lines.append("Content-Type:")
        }
        lines += request.headers.map { "\($0.name): \($0.value)" }
        for line in lines {
            guard let longer = curl_slist_append(headers, line) else {
                throw CurlError(.other, "libcurl has no memory for header fields")
            }
            headers = longer
        }
        try check(ccurl_set_headers(pointer, headers))
    }

    private func setBody(_ body: ByteBuffer, _ context: UnsafeRawPointer) throws {
        try check(ccurl_set_long(pointer, CURLOPT_POST, 1))
        try check(ccurl_set_offset(pointer, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(body.readableBytes)))
        if body.readableBytes == 0 {
            try check(ccurl_set_string(pointer, CURLOPT_COPYPOSTFIELDS, ""))
        } else if body.readableBytes <= EasyHandle.copiedBodyBytesMax {
            try body.withUnsafeReadableBytes {
                try check(ccurl_set_pointer(pointer, CURLOPT_COPYPOSTFIELDS, $0.baseAddress))
            }
        } else {
            try check(ccurl_set_read_callback(pointer, sendBody))
            try check(ccurl_set_pointer(pointer, CURLOPT_READDATA, context))
            try check(ccurl_set_seek_callback(pointer, seekBody))
            try check(ccurl_set_pointer(pointer, CURLOPT_SEEKDATA, context))
        }
    }

    private func check(_ result: CURLcode) throws {
        guard result == CURLE_OK else { throw CurlError(result, detail: "") }
    }

    /// At least 1: zero would mean no limit to libcurl.
    private func milliseconds(_ duration: Duration) -> Int {
        let (seconds, attoseconds) = duration.components
        return max(1, Int(seconds) * 1_000 + Int(attoseconds / 1_000_000_000_000_000))
    }
}

// The callbacks run inside curl_multi_perform, on the loop's thread, while the loop holds the transfer.

private func transfer(_ context: UnsafeMutableRawPointer) -> CurlTransfer {
    Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
}

/// Differs from every count of bytes, which makes libcurl stop.
private let refused = Int(CURL_WRITEFUNC_ERROR)

private let receiveBody: curl_write_callback = { bytes, size, count, context in
    guard let context else { return refused }
    let received = UnsafeRawBufferPointer(start: bytes, count: size * count)
    return transfer(context).receive(received) ? size * count : refused
}

private let receiveHeaderLine: curl_write_callback = { bytes, size, count, context in
    guard let context else { return refused }
    let received = UnsafeRawBufferPointer(start: bytes, count: size * count)
    return transfer(context).receiveHeaderLine(received) ? size * count : refused
}

private let sendBody: curl_read_callback = { room, size, count, context in
    guard let context else { return Int(CURL_READFUNC_ABORT) }
    return transfer(context).send(into: UnsafeMutableRawBufferPointer(start: room, count: size * count))
}

private let seekBody: curl_seek_callback = { context, offset, origin in
    guard let context, origin == SEEK_SET, transfer(context).rewind(to: Int(offset)) else {
        return CURL_SEEKFUNC_CANTSEEK
    }
    return CURL_SEEKFUNC_OK
}
