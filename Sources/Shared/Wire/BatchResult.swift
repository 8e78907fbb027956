public import Core
public import NIOCore

/// What became of one operation of a batch, as a line of its answer has it.
public enum BatchResult: Sendable, Hashable {
    /// `{"status":204,"version":"…"}`
    case written(Version)
    /// `{"status":200,"number":5,"version":"…"}`: what a counter stands at now.
    case counted(Int64, Version)
    /// `{"status":200,"value":"…","version":"…","ttl":"…"}`
    case found(ByteBuffer, Version, ttlMilliseconds: UInt64? = nil)
    /// `{"status":404,"type":"not-found","detail":"…"}`
    case failed(Failure)

    public struct Failure: Sendable, Hashable {
        public var status: Int
        /// The name of a ``Problem/Kind``.
        public var type: String
        public var detail: String
        /// Of a write that is made all the same: `ack-timeout`.
        public var version: Version?

        public init(status: Int, type: String, detail: String, version: Version? = nil) {
            self.status = status
            self.type = type
            self.detail = detail
            self.version = version
        }

        public init(_ problem: Problem, version: Version? = nil) {
            self.init(
                status: problem.kind.status, type: problem.kind.name, detail: problem.detail, version: version)
        }

        public func `is`(_ kind: Problem.Kind) -> Bool { type == kind.name }
    }

    public static func failed(_ problem: Problem, version: Version? = nil) -> BatchResult {
        .failed(Failure(problem, version: version))
    }

    /// Of a get.
    public static let missing = BatchResult.failed(Problem(.notFound, "No value is stored under this key."))

    // MARK: Writing

    /// Appends the result as a line.
    public func write(into buffer: inout ByteBuffer) {
        switch self {
        case .written(let version):
            buffer.writeStaticString("{\"status\":204")
            var line = JSONLine.afterFirstMember
            line.version(version, into: &buffer)
            line.end(into: &buffer)
        case .counted(let number, let version):
            buffer.writeStaticString("{\"status\":200")
            var line = JSONLine.afterFirstMember
            line.integer("number", number, into: &buffer)
            line.version(version, into: &buffer)
            line.end(into: &buffer)
        case .found(let value, let version, let ttlMilliseconds):
            value.withUnsafeReadableBytes {
                BatchResult.writeFound($0, version, ttlMilliseconds: ttlMilliseconds, into: &buffer)
            }
        case .failed(let failure):
            var line = JSONLine(into: &buffer)
            line.integer("status", Int64(failure.status), into: &buffer)
            line.text("type", failure.type, into: &buffer)
            if let version = failure.version { line.version(version, into: &buffer) }
            line.text("detail", failure.detail, into: &buffer)
            line.end(into: &buffer)
        }
    }

    /// As ``write(into:)`` of ``found(_:_:ttlMilliseconds:)``, for bytes that are lent.
    public static func writeFound(
        _ value: UnsafeRawBufferPointer, _ version: Version, ttlMilliseconds: UInt64?, into buffer: inout ByteBuffer
    ) {
        buffer.writeStaticString("{\"status\":200")
        var line = JSONLine.afterFirstMember
        line.bytes("value", value, into: &buffer)
        line.version(version, into: &buffer)
        if let ttlMilliseconds { line.ttl(milliseconds: ttlMilliseconds, into: &buffer) }
        line.end(into: &buffer)
    }

    // MARK: Reading

    /// Reads a line, without its LF. A value is a slice of `line` where it holds no escape.
    ///
    /// Throws `KVError(.invalidData)` where it is no result.
    public init(_ line: ByteBuffer) throws(KVError) {
        // `withUnsafeReadableBytes` rethrows untyped: the result carries the error out.
        let result = line.withUnsafeReadableBytes { bytes -> Result<BatchResult, KVError> in
            if let version = BatchResult.versionOfWritten(bytes) { return .success(.written(version)) }
            var reader = JSONObjectReader(bytes, 0..<bytes.count, of: line)
            do throws(KVError) { return .success(try BatchResult(&reader)) } catch { return .failure(error) }
        }
        self = try result.get()
    }

    private static let writtenStart = Array("{\"status\":204,\"version\":\"".utf8)

    /// The version where the line is that of a write, just as ``write(into:)`` puts it: most lines are.
    private static func versionOfWritten(_ bytes: UnsafeRawBufferPointer) -> Version? {
        guard bytes.count == writtenStart.count + 18, bytes.starts(with: writtenStart),
            bytes[bytes.count - 2] == UInt8(ascii: "\""), bytes[bytes.count - 1] == UInt8(ascii: "}")
        else { return nil }
        var value: UInt64 = 0
        for byte in bytes[writtenStart.count..<writtenStart.count + 16] {
            switch byte {
            case 0x30...0x39: value = value << 4 | UInt64(byte - 0x30)
            case 0x61...0x66: value = value << 4 | UInt64(byte - 0x61 + 10)
            default: return nil
            }
        }
        return Version(rawValue: value)
    }

    private init(_ reader: inout JSONObjectReader) throws(KVError) {
        var status: Int64?
        var number: Int64?
        var version: Version?
        var (type, detail): (String?, String?)
        var content = LineContent()
        try reader.begin()
        while let name = try reader.nextMember() {
            if try content.take(name, &reader) { continue }
            switch name {
            case "status": status = try reader.integer(name)
            case "number": number = try reader.integer(name)
            case "version":
                version = Version(hexDigits: String(buffer: try reader.string(name)))
                guard version != nil else { throw KVError(.invalidData, "a result's version is none") }
            case "type": type = String(buffer: try reader.string(name))
            case "detail": detail = String(buffer: try reader.string(name))
            default: throw LineContent.unknown(name, "a result", "status, type, detail, value, version, ttl, number")
            }
        }
        try reader.end()
        switch (status, version) {
        case (204, .some(let version)): self = .written(version)
        case (200, .some(let version)):
            if let number {
                self = .counted(number, version)
            } else if let value = content.value {
                self = .found(value, version, ttlMilliseconds: content.ttlMilliseconds)
            } else {
                throw KVError(.invalidData, "a result has neither a number nor a value")
            }
        case (.some(let status), _) where (300...599).contains(status):
            guard let type else { throw KVError(.invalidData, "a result says nothing of why it failed") }
            self = .failed(
                Failure(status: Int(status), type: type, detail: detail ?? type, version: version))
        default: throw KVError(.invalidData, "a result has no status that is known")
        }
    }
}
