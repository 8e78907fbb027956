public import Core
public import DistribKVClient
public import NIOCore
import Wire

/// Where an export writes to.
public protocol ExportSink: Sendable {
    /// Writes bytes behind those before. Called by one task at a time.
    func write(_ bytes: ByteBuffer) async throws(KVError)
}

extension ImportFormat {
    /// Appends the line of a record, with its LF.
    ///
    /// Throws `KVError(.invalidData)` where the format cannot hold it.
    public func write(_ record: KVRecord, into buffer: inout ByteBuffer) throws(KVError) {
        switch self {
        case .ndjson: ImportFormat.writeJSON(record, into: &buffer)
        case .tsv:
            let (tab, newline) = (UInt8(ascii: "\t"), UInt8(ascii: "\n"))
            guard !record.key.contains(where: { $0 == tab || $0 == newline }),
                !(record.value?.readableBytesView.contains(newline) ?? false)
            else {
                throw KVError(
                    .invalidData,
                    "the record of \(PercentCoding.encode(record.key.prefix(100))) holds a tab or a line break where tsv "
                        + "cannot have one: export as ndjson")
            }
            buffer.writeBytes(record.key)
            if let value = record.value {
                buffer.writeInteger(tab)
                buffer.writeImmutableBuffer(value)
            }
            buffer.writeInteger(newline)
        }
    }

    /// Appends the record as a line of NDJSON.
    public static func writeJSON(_ record: KVRecord, into buffer: inout ByteBuffer) {
        let ttl = record.ttl.map { UInt64(max(1, $0.nanoseconds / 1_000_000)) }
        record.key.withUnsafeBytes { key in
            guard let value = record.value else {
                return JSONLine.writeRecord(
                    key: key, value: nil, version: record.version, ttlMilliseconds: ttl, into: &buffer)
            }
            value.withUnsafeReadableBytes { value in
                JSONLine.writeRecord(
                    key: key, value: value, version: record.version, ttlMilliseconds: ttl, into: &buffer)
            }
        }
    }
}

/// Writes records to a sink, many at once.
public struct Exporter: Sendable {
    /// Written once that many bytes have gathered.
    private static let chunkBytes = 256 << 10
    /// Records between two updates of the counts.
    private static let progressRecords: UInt64 = 1_000

    private let format: ImportFormat
    private let sink: any ExportSink
    private let progress: ImportProgress

    /// - Parameter progress: has the exact counts afterwards: `written`, and `bytesWritten` of keys and values.
    public init(format: ImportFormat, sink: any ExportSink, progress: ImportProgress) {
        self.format = format
        self.sink = sink
        self.progress = progress
    }

    /// Writes all records of a scan.
    /// - Returns: how many of them have a life that the format does not keep.
    ///
    /// Throws what the scan and the sink throw, `KVError(.invalidData)` for a record that the format cannot hold, and
    /// `.cancelled` where the task is.
    public func run(_ records: KVScan) async throws(KVError) -> UInt64 {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(Exporter.chunkBytes * 5 / 4)
        var (count, bytes, mortal): (UInt64, UInt64, UInt64) = (0, 0, 0)
        func note() {
            let (written, bytesWritten) = (count, bytes)
            progress.update {
                $0.written = written
                $0.bytesWritten = bytesWritten
            }
        }
        for try await record in records {
            try format.write(record, into: &buffer)
            count += 1
            bytes += UInt64(record.key.count + (record.value?.readableBytes ?? 0))
            if format == .tsv, record.ttl != nil { mortal += 1 }
            if count % Exporter.progressRecords == 0 { note() }
            guard buffer.readableBytes >= Exporter.chunkBytes else { continue }
            if Task.isCancelled { throw KVError(.cancelled, "interrupted") }
            try await sink.write(buffer)
            buffer.clear(minimumCapacity: Exporter.chunkBytes)
        }
        if buffer.readableBytes > 0 { try await sink.write(buffer) }
        note()
        return mortal
    }
}
