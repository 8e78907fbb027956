import Core
import DistribKVClient
import NIOCore
import Wire

/// What a command says of one key with `--output json`: a line as scans and exports have it; members that do not apply
/// are left out.
struct DataRecord {
    private let key: [UInt8]
    private var value: ByteBuffer?
    /// What a counter stands at now.
    private var number: Int64?
    private let version: Version
    private var ttlMilliseconds: UInt64?

    init(key: [UInt8], number: Int64? = nil, version: Version) {
        self.key = key
        self.number = number
        self.version = version
    }

    init(key: [UInt8], _ entry: KVEntry) {
        self.key = key
        value = entry.value
        version = entry.version
        ttlMilliseconds = entry.expiresIn.map { UInt64(max(0, $0.nanoseconds / 1_000_000)) }
    }

    /// As `--ttl` takes it.
    var ttl: String? { ttlMilliseconds.map { "\($0)ms" } }

    /// With its newline.
    var json: ByteBuffer {
        var buffer = ByteBuffer()
        var line = JSONLine(into: &buffer)
        key.withUnsafeBytes { line.bytes("key", $0, into: &buffer) }
        if let value { line.bytes("value", value, into: &buffer) }
        if let number { line.integer("number", number, into: &buffer) }
        line.version(version, into: &buffer)
        if let ttlMilliseconds { line.ttl(milliseconds: ttlMilliseconds, into: &buffer) }
        line.end(into: &buffer)
        return buffer
    }
}
