public import Core
public import NIOCore

/// One line of a file of keys and values: `{"key":"…","value":"…","version":"…","ttl":"29993ms"}`.
///
/// `key_base64` and `value_base64` stand for bytes that are no text; `"deleted":true` in place of a value marks a
/// removal.
public struct RecordLine: Sendable, Hashable {
    public var key: ByteBuffer
    /// nil for a removal.
    public var value: ByteBuffer?
    /// What is left of the value's life; nil where it has no end.
    public var ttlMilliseconds: UInt64?

    public init(key: ByteBuffer, value: ByteBuffer?, ttlMilliseconds: UInt64? = nil) {
        self.key = key
        self.value = value
        self.ttlMilliseconds = ttlMilliseconds
    }

    private static let members = "key, key_base64, value, value_base64, deleted, version, ttl"

    /// Reads a line, without its LF. Key and value are slices of `line` where they hold no escape.
    ///
    /// Throws `KVError(.invalidData)` that says what is wrong with it.
    public init(_ line: ByteBuffer) throws(KVError) {
        // `withUnsafeReadableBytes` rethrows untyped: the result carries the error out.
        let result = line.withUnsafeReadableBytes { bytes -> Result<RecordLine, KVError> in
            var reader = JSONObjectReader(bytes, 0..<bytes.count, of: line)
            do throws(KVError) { return .success(try RecordLine(&reader)) } catch { return .failure(error) }
        }
        self = try result.get()
    }

    private init(_ reader: inout JSONObjectReader) throws(KVError) {
        var content = LineContent()
        var isRemoval = false
        try reader.begin()
        while let name = try reader.nextMember() {
            if try content.take(name, &reader) { continue }
            switch name {
            case "deleted":
                try reader.literalTrue(name)
                isRemoval = true
            // What the write was once: read over.
            case "version": _ = try reader.string(name)
            default: throw LineContent.unknown(name, "an import", RecordLine.members)
            }
        }
        try reader.end()
        key = try content.requiredKey()
        value = content.value
        ttlMilliseconds = content.ttlMilliseconds
        guard isRemoval else {
            guard value != nil else {
                throw KVError(.invalidData, "there is no member \"value\", \"value_base64\" or \"deleted\"")
            }
            return
        }
        guard value == nil else { throw KVError(.invalidData, "\"deleted\" and a value exclude each other") }
        guard ttlMilliseconds == nil else { throw KVError(.invalidData, "\"deleted\" and \"ttl\" exclude each other") }
    }
}

/// The members that records and batch operations have in common.
struct LineContent {
    private(set) var key: ByteBuffer?
    private(set) var value: ByteBuffer?
    private(set) var ttlMilliseconds: UInt64?

    /// Reads the value of a member that is one of these.
    /// - Returns: false where it is another; nothing is read then.
    mutating func take(
        _ name: JSONObjectReader.Name, _ reader: inout JSONObjectReader
    ) throws(KVError) -> Bool {
        switch name {
        case "key": try LineContent.set(&key, try reader.string(name), name)
        case "key_base64": try LineContent.set(&key, try reader.base64(name), name)
        case "value": try LineContent.set(&value, try reader.string(name), name)
        case "value_base64": try LineContent.set(&value, try reader.base64(name), name)
        case "ttl":
            let text = String(buffer: try reader.string(name))
            guard let milliseconds = DurationText.milliseconds(text), milliseconds > 0 else {
                throw KVError(
                    .invalidData,
                    "\"ttl\" is no time to live: a whole number above 0 and a unit (ms, s, m, h, d), as in 30s")
            }
            try LineContent.set(&ttlMilliseconds, milliseconds, name)
        default: return false
        }
        return true
    }

    func requiredKey() throws(KVError) -> ByteBuffer {
        guard let key else { throw KVError(.invalidData, "there is no member \"key\" or \"key_base64\"") }
        return key
    }

    static func set<Value>(_ slot: inout Value?, _ value: Value, _ name: JSONObjectReader.Name) throws(KVError) {
        guard slot == nil else {
            throw KVError(.invalidData, "\"\(name.text)\" gives something that is already given")
        }
        slot = value
    }

    static func unknown(_ name: JSONObjectReader.Name, _ what: String, _ known: String) -> KVError {
        KVError(
            .invalidData,
            "there is no member \"\(ShownText.of(name.text, charactersMax: 64))\" in \(what): use \(known)")
    }
}
