public import Core
public import NIOCore

/// One operation of a batch, as a line of `POST /batch` has it:
/// `{"op":"put","key":"…","value":"…","ttl":"30s","if_match":"*","if_none_match":["v1","v2"]}`.
public struct BatchOperation: Sendable, Hashable {
    public enum Action: Sendable, Hashable {
        case get
        /// - Parameter ttlMilliseconds: how long the value lives; nil for ever.
        case put(ByteBuffer, ttlMilliseconds: UInt64? = nil)
        case delete
        case increment(by: Int64)
    }

    /// 1 to `Limits.keyBytesMax` bytes where the operation can be done.
    public var key: ByteBuffer
    public var action: Action
    /// What has to hold for a write; nil for nothing. A get has none.
    public var condition: WriteCondition?

    public init(key: ByteBuffer, action: Action, condition: WriteCondition? = nil) {
        self.key = key
        self.action = action
        self.condition = condition
    }

    public var isRead: Bool { action == .get }

    /// Of key and value.
    public var contentBytes: Int {
        guard case .put(let value, _) = action else { return key.readableBytes }
        return key.readableBytes + value.readableBytes
    }

    /// Versions that one condition may name.
    public static let conditionVersionsMax = 64

    private static let members =
        "op, key, key_base64, value, value_base64, ttl, by, if_match, if_none_match"
}

// MARK: - Reading

extension BatchOperation {
    /// The operations of a body, in their order, and where their lines stand in its readable bytes. Empty lines are
    /// passed over. Keys and values are slices of `body` where they hold no escape.
    /// - Parameter countMax: more are refused.
    ///
    /// Throws `bad-request` that says which line is wrong and how, `batch-too-large` for too many.
    public static func read(
        _ body: ByteBuffer, countMax: Int
    ) throws(Problem) -> [(operation: BatchOperation, line: Range<Int>)] {
        // `withUnsafeReadableBytes` rethrows untyped: the result carries the error out.
        let result = body.withUnsafeReadableBytes { bytes -> Result<[(BatchOperation, Range<Int>)], Problem> in
            var operations: [(BatchOperation, Range<Int>)] = []
            var lines = NDJSONLines(bytes)
            while let line = lines.next() {
                if isBlank(bytes, line) { continue }
                guard operations.count < countMax else {
                    return .failure(
                        Problem(
                            .batchTooLarge, "A batch has at most \(countMax) operations: send the rest in another."))
                }
                do throws(KVError) {
                    var reader = JSONObjectReader(bytes, line, of: body)
                    operations.append((try BatchOperation(&reader), line))
                } catch {
                    return .failure(Problem(.badRequest, "Line \(lines.number): \(error.message). Nothing was done."))
                }
            }
            return .success(operations)
        }
        return try result.get()
    }

    private static func isBlank(_ bytes: UnsafeRawBufferPointer, _ line: Range<Int>) -> Bool {
        line.isEmpty || (line.count == 1 && bytes[line.lowerBound] == UInt8(ascii: "\r"))
    }

    /// Throws `KVError(.invalidData)` that says what is wrong with the line.
    init(_ reader: inout JSONObjectReader) throws(KVError) {
        var content = LineContent()
        var kind: Kind?
        var amount: Int64?
        var condition = WriteCondition()
        try reader.begin()
        while let name = try reader.nextMember() {
            if try content.take(name, &reader) { continue }
            switch name {
            case "op": try LineContent.set(&kind, try Kind(name, &reader), name)
            case "by": try LineContent.set(&amount, try reader.integer(name), name)
            case "if_match":
                try LineContent.set(&condition.match, try BatchOperation.versions(name, &reader), name)
            case "if_none_match":
                try LineContent.set(&condition.noneMatch, try BatchOperation.versions(name, &reader), name)
            default: throw LineContent.unknown(name, "a batch", BatchOperation.members)
            }
        }
        try reader.end()
        guard let kind else { throw KVError(.invalidData, "there is no member \"op\": \(Kind.known)") }
        key = try content.requiredKey()
        action = try kind.action(content, amount)
        self.condition = condition == WriteCondition() ? nil : condition
        if kind == .get, self.condition != nil { throw KVError(.invalidData, "a get takes no condition") }
    }

    private enum Kind {
        case get, put, delete, increment

        static let known = "it is get, put, delete or incr"

        init(_ name: JSONObjectReader.Name, _ reader: inout JSONObjectReader) throws(KVError) {
            let text = try reader.string(name)
            switch text.readableBytes {
            case 3 where text.readableBytesView.elementsEqual("get".utf8): self = .get
            case 3 where text.readableBytesView.elementsEqual("put".utf8): self = .put
            case 6 where text.readableBytesView.elementsEqual("delete".utf8): self = .delete
            case 4 where text.readableBytesView.elementsEqual("incr".utf8): self = .increment
            default:
                throw KVError(.invalidData, "\"\(String(buffer: text).prefix(64))\" is no \"op\": \(Kind.known)")
            }
        }

        func action(_ content: LineContent, _ amount: Int64?) throws(KVError) -> Action {
            if self != .increment, amount != nil { throw KVError(.invalidData, "\"by\" is for incr") }
            if self != .put {
                guard content.value == nil else { throw KVError(.invalidData, "a value is for put") }
                guard content.ttlMilliseconds == nil else { throw KVError(.invalidData, "\"ttl\" is for put") }
            }
            switch self {
            case .get: return .get
            case .delete: return .delete
            case .increment: return .increment(by: amount ?? 1)
            case .put:
                guard let value = content.value else {
                    throw KVError(.invalidData, "there is no member \"value\" or \"value_base64\"")
                }
                return .put(value, ttlMilliseconds: content.ttlMilliseconds)
            }
        }
    }

    /// `"*"`, a version, or an array of versions.
    private static func versions(
        _ name: JSONObjectReader.Name, _ reader: inout JSONObjectReader
    ) throws(KVError) -> WriteCondition.Versions {
        let texts = try reader.strings(name, countMax: conditionVersionsMax)
        if texts.count == 1, texts[0].readableBytesView.elementsEqual("*".utf8) { return .any }
        var versions: [Version] = []
        for text in texts {
            guard let version = Version(hexDigits: String(buffer: text)) else {
                throw KVError(
                    .invalidData,
                    "\"\(name.text)\" takes \"*\", a version of 16 hex digits or an array of them, not "
                        + "\"\(String(buffer: text).prefix(64))\"")
            }
            versions.append(version)
        }
        return .listed(versions)
    }
}

// MARK: - Writing

extension BatchOperation {
    /// Appends the operation as a line.
    public func write(into buffer: inout ByteBuffer) {
        switch action {
        case .get: buffer.writeStaticString("{\"op\":\"get\"")
        case .put: buffer.writeStaticString("{\"op\":\"put\"")
        case .delete: buffer.writeStaticString("{\"op\":\"delete\"")
        case .increment: buffer.writeStaticString("{\"op\":\"incr\"")
        }
        var line = JSONLine.afterFirstMember
        line.bytes("key", key, into: &buffer)
        switch action {
        case .get, .delete: break
        case .put(let value, let ttlMilliseconds):
            line.bytes("value", value, into: &buffer)
            if let ttlMilliseconds { line.ttl(milliseconds: ttlMilliseconds, into: &buffer) }
        case .increment(let amount):
            if amount != 1 { line.integer("by", amount, into: &buffer) }
        }
        if let match = condition?.match { BatchOperation.write("if_match", match, to: &line, into: &buffer) }
        if let noneMatch = condition?.noneMatch {
            BatchOperation.write("if_none_match", noneMatch, to: &line, into: &buffer)
        }
        line.end(into: &buffer)
    }

    private static func write(
        _ name: StaticString, _ versions: WriteCondition.Versions, to line: inout JSONLine,
        into buffer: inout ByteBuffer
    ) {
        switch versions {
        case .any: line.text(name, "*", into: &buffer)
        case .listed(let versions): line.texts(name, versions.map(\.hexDigits), into: &buffer)
        }
    }

    /// How long its line is at the most, roughly, where nothing needs an escape.
    public var lineBytesEstimate: Int { contentBytes + 64 }
}
