public import Core
public import NIOCore

/// Writes one line of NDJSON, an object, member by member to the end of a buffer.
///
///     var line = JSONLine(into: &buffer)
///     line.bytes("key", key, into: &buffer)
///     line.version(version, into: &buffer)
///     line.end(into: &buffer)
///
/// appends `{"key":"a","version":"01a20d6f120e0000"}` and LF. Names of members are ASCII that needs no escape, and the
/// caller's to keep different.
public struct JSONLine {
    private var isFirst = true

    /// Opens the object.
    public init(into buffer: inout ByteBuffer) {
        buffer.writeInteger(UInt8(ascii: "{"))
    }

    private init(isFirst: Bool) { self.isFirst = isFirst }

    /// Goes on with an object whose first members the caller has written.
    static var afterFirstMember: JSONLine { JSONLine(isFirst: false) }

    /// Closes the object and ends the line.
    public mutating func end(into buffer: inout ByteBuffer) {
        buffer.writeStaticString("}\n")
    }

    /// Bytes as the string `name`; as `name_base64` (RFC 4648 section 4, with padding) where they are not UTF-8, or
    /// where they are more than ``JSONString/escapedFreelyBytesMax`` and escapes would more than double them.
    public mutating func bytes(_ name: StaticString, _ bytes: UnsafeRawBufferPointer, into buffer: inout ByteBuffer) {
        let form = JSONString.Form(of: bytes)
        let suffix: StaticString = form == .base64 ? "_base64\":\"" : "\":\""
        buffer.reserveCapacity(minimumWritableBytes: name.utf8CodeUnitCount + bytes.count + 16)
        separate(into: &buffer)
        buffer.writeStaticString(name)
        buffer.writeStaticString(suffix)
        switch form {
        case .plain: buffer.writeBytes(bytes)
        case .escaped(let length): JSONString.writeEscaped(bytes, length: length, into: &buffer)
        case .base64: JSONString.writeBase64(bytes, into: &buffer)
        }
        buffer.writeInteger(UInt8(ascii: "\""))
    }

    /// As ``bytes(_:_:into:)`` with the readable bytes of a buffer.
    public mutating func bytes(_ name: StaticString, _ bytes: ByteBuffer, into buffer: inout ByteBuffer) {
        bytes.withUnsafeReadableBytes { self.bytes(name, $0, into: &buffer) }
    }

    public mutating func text(_ name: StaticString, _ text: String, into buffer: inout ByteBuffer) {
        var text = text
        text.withUTF8 { bytes(name, UnsafeRawBufferPointer($0), into: &buffer) }
    }

    /// An array of strings.
    public mutating func texts(_ name: StaticString, _ texts: [String], into buffer: inout ByteBuffer) {
        begin(name, "\":[", into: &buffer)
        for (index, text) in texts.enumerated() {
            if index > 0 { buffer.writeStaticString(",") }
            buffer.writeString(JSONText.quote(text))
        }
        buffer.writeStaticString("]")
    }

    /// A JSON number.
    public mutating func integer(_ name: StaticString, _ value: Int64, into buffer: inout ByteBuffer) {
        begin(name, "\":", into: &buffer)
        if value < 0 { buffer.writeInteger(UInt8(ascii: "-")) }
        JSONString.writeDecimal(value.magnitude, into: &buffer)
    }

    /// `true` or `false`.
    public mutating func flag(_ name: StaticString, _ value: Bool, into buffer: inout ByteBuffer) {
        begin(name, value ? "\":true" : "\":false", into: &buffer)
    }

    /// `"version":"…"`, 16 hex digits.
    public mutating func version(_ version: Version, into buffer: inout ByteBuffer) {
        begin("version", "\":\"", into: &buffer)
        JSONString.writeHex(version.rawValue, into: &buffer)
        buffer.writeInteger(UInt8(ascii: "\""))
    }

    /// `"ttl":"…ms"`: what is left of a life, so that it can be given back as `?ttl=`.
    public mutating func ttl(milliseconds: UInt64, into buffer: inout ByteBuffer) {
        begin("ttl", "\":\"", into: &buffer)
        JSONString.writeDecimal(milliseconds, into: &buffer)
        buffer.writeStaticString("ms\"")
    }

    /// A record as scans and exports have it.
    /// - Parameters:
    ///   - value: nil where only keys are asked for.
    ///   - ttlMilliseconds: what is left of its life; nil where it has no end.
    public static func writeRecord(
        key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?, version: Version, ttlMilliseconds: UInt64?,
        into buffer: inout ByteBuffer
    ) {
        var line = JSONLine(into: &buffer)
        line.bytes("key", key, into: &buffer)
        if let value { line.bytes("value", value, into: &buffer) }
        line.version(version, into: &buffer)
        if let ttlMilliseconds { line.ttl(milliseconds: ttlMilliseconds, into: &buffer) }
        line.end(into: &buffer)
    }

    private mutating func separate(into buffer: inout ByteBuffer) {
        buffer.writeStaticString(isFirst ? "\"" : ",\"")
        isFirst = false
    }

    private mutating func begin(_ name: StaticString, _ middle: StaticString, into buffer: inout ByteBuffer) {
        separate(into: &buffer)
        buffer.writeStaticString(name)
        buffer.writeStaticString(middle)
    }
}
