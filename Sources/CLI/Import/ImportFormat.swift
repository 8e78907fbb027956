public import Core
public import DistribKVClient
public import NIOCore
import Wire

/// How a file of keys and values is written. Lines end with LF; empty lines are passed over.
public enum ImportFormat: String, Sendable, CaseIterable {
    /// `key<TAB>value`: bytes as they are, without escapes. The first tab ends the key, further ones belong to the
    /// value, and so does a CR before the LF.
    case tsv
    /// An object of `key` or `key_base64` and `value` or `value_base64` on each line, RFC 8259.
    case ndjson

    /// The format that a file's name says; nil where it says none.
    public init?(path: String) {
        guard let dot = path.lastIndex(of: "."), !path[dot...].contains("/") else { return nil }
        switch path[path.index(after: dot)...].lowercased() {
        case "tsv", "tab", "txt": self = .tsv
        case "ndjson", "jsonl", "json": self = .ndjson
        default: return nil
        }
    }

    /// Reads one line, without its LF.
    ///
    /// Throws `KVError(.invalidData)` that says what is wrong with it.
    public func parse(_ line: ByteBuffer) throws(KVError) -> KVWrite {
        let write: KVWrite
        switch self {
        case .tsv: write = try Self.parseTSV(line)
        case .ndjson:
            let record = try RecordLine(line)
            write = KVWrite(
                key: Array(record.key.readableBytesView), value: record.value,
                ttl: record.ttlMilliseconds.map { .milliseconds(Int64(clamping: min($0, Limits.ttlMillisecondsMax))) })
        }
        guard write.key.count >= Limits.keyBytesMin else { throw KVError(.invalidData, "the key is empty") }
        guard write.key.count <= Limits.keyBytesMax else {
            throw KVError(
                .invalidData, "the key has \(write.key.count) bytes, at most \(Limits.keyBytesMax) are allowed")
        }
        return write
    }

    private static func parseTSV(_ line: ByteBuffer) throws(KVError) -> KVWrite {
        var value = line
        guard let tab = line.readableBytesView.firstIndex(of: UInt8(ascii: "\t")) else {
            throw KVError(.invalidData, "there is no tab between key and value")
        }
        let key = value.readBytes(length: tab - line.readerIndex) ?? []
        value.moveReaderIndex(forwardBy: 1)
        return KVWrite(key: key, value: value)
    }
}
