public import Core
import FoundationEssentials
import LSM
public import Wire

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The files of diverged writes in a node's data directory: one of writes, `SHARD-FIRSTLSN-LASTLSN-UTC.ndjson`, and
/// beside it one that describes it, `….json`. Nothing here removes them. Every call blocks.
public struct DivergedFiles: Sendable {
    private static let descriptionBytesMax = 64 << 10
    /// Newest first, that many are listed.
    public static let listedMax = 100

    public let directory: String

    public init(directory: String) { self.directory = directory }

    /// The files of one shard, newest last.
    ///
    /// Throws `KVError(.storageFailed)` where the folder cannot be read. One whose description cannot be read is
    /// left out.
    public func list(shard: String) throws(KVError) -> [DivergedWrites] {
        var found: [DivergedWrites] = []
        for name in try Files.names(in: directory) ?? [] where name.hasPrefix("\(shard)-") && name.hasSuffix(".json") {
            guard let bytes = try Files.read("\(directory)/\(name)", bytesMax: DivergedFiles.descriptionBytesMax) else {
                continue
            }
            do {
                var writes = try DocumentCoding.decode(DivergedWrites.self, from: bytes)
                // The data directory may have been moved.
                writes.file = "\(directory)/\(name.dropLast(".json".count)).ndjson"
                if writes.shard == shard, Files.exists(writes.file) { found.append(writes) }
            } catch {
                continue
            }
        }
        return found.sorted { ($0.firstLsn, $0.file) < ($1.firstLsn, $1.file) }.suffix(DivergedFiles.listedMax)
    }

    /// Begins a file for the given batches.
    func begin(shard: String, lsns: ClosedRange<UInt64>, wallMilliseconds: UInt64) throws(KVError) -> DivergedFile {
        try Files.makeDirectory(directory)
        let stamp = DivergedFiles.stamp(wallMilliseconds)
        let name = "\(shard)-\(lsns.lowerBound)-\(lsns.upperBound)-\(stamp)"
        return try DivergedFile(folder: directory, name: name, shard: shard, lsns: lsns)
    }

    /// `20260131T235959.123Z`
    private static func stamp(_ milliseconds: UInt64) -> String {
        var seconds = time_t(milliseconds / 1_000)
        var fields = tm()
        gmtime_r(&seconds, &fields)
        func pad(_ number: some BinaryInteger, _ digits: Int) -> String {
            let text = "\(number)"
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        let day = pad(fields.tm_year + 1_900, 4) + pad(fields.tm_mon + 1, 2) + pad(fields.tm_mday, 2)
        let time = pad(fields.tm_hour, 2) + pad(fields.tm_min, 2) + pad(fields.tm_sec, 2)
        return "\(day)T\(time).\(pad(milliseconds % 1_000, 3))Z"
    }
}

/// One file of diverged writes while it is written: under a temporary name until it is whole and on disk.
///
/// A line for each write, in the order in which they were made: `{"key":…,"value":…,"version":…}` or
/// `{"key":…,"deleted":true,"version":…}`; `key_base64` and `value_base64` where the bytes are not UTF-8. A value that
/// expires has its `"ttl":"29993ms"`, what is left of it; one that has expired is a removal, as which it counts, so that
/// nothing that it replaced comes back.
struct DivergedFile {
    private static let bufferBytes = 1 << 20

    private let folder: String
    private let path: String
    private let descriptionPath: String
    private let shard: String
    private let lsns: ClosedRange<UInt64>
    private var buffer: [UInt8] = []
    private var writtenBytes: UInt64 = 0
    private var writes = 0

    private var temporary: String { path + ".tmp" }

    fileprivate init(folder: String, name: String, shard: String, lsns: ClosedRange<UInt64>) throws(KVError) {
        self.folder = folder
        path = "\(folder)/\(name).ndjson"
        descriptionPath = "\(folder)/\(name).json"
        self.shard = shard
        self.lsns = lsns
        try Files.removeTree(temporary)
    }

    /// - Parameter now: milliseconds since the Unix epoch.
    mutating func put(key: UnsafeRawBufferPointer, _ value: StoredValue, now: UInt64) throws(KVError) {
        guard !value.isExpired(at: now) else { return try delete(key: key, version: value.version) }
        let ttl = value.expiresMilliseconds.map { ",\"ttl\":\"\($0 - now)ms\"" } ?? ""
        try line(
            "{\(DivergedFile.member("key", key)),\(DivergedFile.member("value", value.bytes))", value.version, ttl)
    }

    mutating func delete(key: UnsafeRawBufferPointer, version: Version) throws(KVError) {
        try line("{\(DivergedFile.member("key", key)),\"deleted\":true", version)
    }

    private mutating func line(_ start: String, _ version: Version, _ rest: String = "") throws(KVError) {
        buffer += "\(start),\"version\":\"\(version.hexDigits)\"\(rest)}\n".utf8
        writes += 1
        if buffer.count >= DivergedFile.bufferBytes { try flush() }
    }

    private static func member(_ name: String, _ bytes: UnsafeRawBufferPointer) -> String {
        if let text = String(validating: bytes, as: UTF8.self) { return "\"\(name)\":\(JSONText.quote(text))" }
        return "\"\(name)_base64\":\"\(Data(bytes).base64EncodedString())\""
    }

    private mutating func flush() throws(KVError) {
        try Files.append(buffer, to: temporary, at: writtenBytes)
        writtenBytes += UInt64(buffer.count)
        buffer.removeAll(keepingCapacity: true)
    }

    /// Durable on return.
    mutating func finish(isComplete: Bool) throws(KVError) -> DivergedWrites {
        try flush()
        let document = DivergedWrites(
            file: path, shard: shard, firstLsn: lsns.lowerBound, lastLsn: lsns.upperBound, writes: writes,
            isComplete: isComplete)
        try Files.sync(temporary)
        try Files.move(temporary, to: path)
        do {
            try Files.replace(descriptionPath, with: DocumentCoding.encode(document))
        } catch {
            throw KVError(.storageFailed, "cannot describe \(path)", cause: error)
        }
        try Files.sync(Files.parent(of: folder))
        return document
    }
}
