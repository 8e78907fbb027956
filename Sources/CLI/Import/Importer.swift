public import Core
public import DistribKVClient
import NIOCore

/// Where an import writes to.
public protocol ImportSink: Sendable {
    /// Does writes of distinct keys, in any order; one result each, in the order of `writes`.
    func writeAll(_ writes: [KVWrite]) async -> [Result<Version, KVError>]
}

extension KVClient: ImportSink {}

/// What an import begins with and how much it may hold.
public struct ImportOptions: Sendable {
    public var format: ImportFormat
    /// The first line to import, counted from 1.
    public var resumeFrom: UInt64 = 1
    /// Counts malformed and refused lines instead of stopping at the first.
    public var skipBad = false
    public var batchRecordsMax = 2_048
    public var batchBytesMax = 1 << 20
    public var batchesInFlightMax = 4
    /// One record larger than this still goes, alone.
    public var bytesInFlightMax = 64 << 20
    public var lineBytesMax = 128 << 20

    public init(format: ImportFormat) { self.format = format }
}

/// Why an import ended before the end of its file.
public struct ImportStop: Error, Sendable {
    public enum Reason: Sendable, Hashable {
        /// The line cannot be read.
        case malformed
        /// The cluster will not take this record, however often it is sent.
        case refused
        /// The cluster did not acknowledge it.
        case unavailable
        /// The file cannot be read any further.
        case unreadable
        /// The task was cancelled.
        case interrupted
    }

    public var reason: Reason
    /// The line it is about. Every record before it has been acknowledged (or counted as skipped or failed), so this
    /// is the line to resume from.
    public var line: UInt64
    public var error: KVError

    public init(reason: Reason, line: UInt64, error: KVError) {
        self.reason = reason
        self.line = line
        self.error = error
    }
}

/// A line that was passed over, with `skipBad`.
public struct BadLine: Sendable {
    public var line: UInt64
    public var error: KVError
}

/// Reads records from a source and writes them to a sink, many at once.
///
/// Records go out in batches, several in flight. A record whose key is in flight waits until that one has ended, so
/// that of two records with one key the later one wins. When something fails nothing new is sent, what is in flight is
/// waited for, and the lowest line that was not acknowledged is reported.
public struct Importer: Sendable {
    private let options: ImportOptions
    private let source: any ImportSource
    private let sink: any ImportSink
    private let progress: ImportProgress
    private let reportBadLine: @Sendable (BadLine) -> Void

    /// - Parameter reportBadLine: called for each line that `skipBad` passes over.
    public init(
        options: ImportOptions, source: any ImportSource, sink: any ImportSink, progress: ImportProgress,
        reportBadLine: @escaping @Sendable (BadLine) -> Void = { _ in }
    ) {
        self.options = options
        self.source = source
        self.sink = sink
        self.progress = progress
        self.reportBadLine = reportBadLine
    }

    /// Imports to the end of the source.
    ///
    /// `progress` has the exact counts afterwards, also where this throws ``ImportStop``.
    public func run() async throws(ImportStop) {
        let stop = await withTaskGroup(of: Sent.self) { group in
            var run = Run(options: options, sink: sink, progress: progress, reportBadLine: reportBadLine)
            await read(into: &run, &group)
            await run.drain(&group)
            return run.stop
        }
        if let stop { throw stop }
    }

    private func read(into run: inout Run, _ group: inout TaskGroup<Sent>) async {
        var splitter = LineSplitter(lineBytesMax: options.lineBytesMax)
        var nextLine: UInt64 = 1
        while run.stop == nil {
            let chunk: ByteBuffer?
            do throws(KVError) {
                if Task.isCancelled { throw KVError(.cancelled, "interrupted") }
                chunk = try await source.next()
            } catch {
                await run.flush(&group)
                let reason = error.code == .cancelled ? ImportStop.Reason.interrupted : .unreadable
                return run.end(ImportStop(reason: reason, line: max(nextLine, options.resumeFrom), error: error))
            }
            if let chunk {
                progress.update { $0.position += UInt64(chunk.readableBytes) }
                splitter.append(chunk)
            }
            while run.stop == nil, let line = chunk == nil ? splitter.finish() : splitter.next() {
                nextLine = line.number + 1
                if line.number >= options.resumeFrom { await run.take(line, &group) }
            }
            if chunk == nil { break }
        }
        // After a failure in flight the rest stays unsent; a malformed line has sent what was before it.
        if run.stop == nil { await run.flush(&group) }
    }
}

/// Records of one `writeAll` and what became of them.
private struct Sent: Sendable {
    let records: [Record]
    let results: [Result<Version, KVError>]
}

private struct Record: Sendable {
    let line: UInt64
    let write: KVWrite
    var bytes: Int { write.key.count + (write.value?.readableBytes ?? 0) }
}

/// The state of one import.
///
/// Invariants: `keys` are those of the batch being filled and of the batches in flight; lines in `filling` are higher
/// than every line in flight.
private struct Run {
    let options: ImportOptions
    let sink: any ImportSink
    let progress: ImportProgress
    let reportBadLine: @Sendable (BadLine) -> Void

    private(set) var stop: ImportStop?
    private var filling: [Record] = []
    private var fillingBytes = 0
    private var keys: Set<[UInt8]> = []
    private var batchesInFlight = 0
    private var bytesInFlight = 0

    init(
        options: ImportOptions, sink: any ImportSink, progress: ImportProgress,
        reportBadLine: @escaping @Sendable (BadLine) -> Void
    ) {
        self.options = options
        self.sink = sink
        self.progress = progress
        self.reportBadLine = reportBadLine
    }

    mutating func take(_ line: LineSplitter.Line, _ group: inout TaskGroup<Sent>) async {
        let record: Record
        do throws(KVError) {
            guard let bytes = line.bytes else {
                throw KVError(.invalidData, "the line is longer than \(options.lineBytesMax) bytes")
            }
            guard bytes.readableBytes > 0 else { return }
            progress.update { $0.read += 1 }
            record = Record(line: line.number, write: try options.format.parse(bytes))
        } catch {
            if line.bytes == nil { progress.update { $0.read += 1 } }
            return await malformed(line.number, error, &group)
        }
        if keys.contains(record.write.key) {
            await flush(&group)
            await drain(&group)
            if stop != nil { return }
        }
        if !filling.isEmpty, fillingBytes + record.bytes > options.batchBytesMax { await flush(&group) }
        keys.insert(record.write.key)
        filling.append(record)
        fillingBytes += record.bytes
        if filling.count >= options.batchRecordsMax { await flush(&group) }
    }

    /// Sends the batch that is being filled, once there is room for it.
    mutating func flush(_ group: inout TaskGroup<Sent>) async {
        guard !filling.isEmpty else { return }
        while batchesInFlight >= options.batchesInFlightMax
            || batchesInFlight > 0 && bytesInFlight + fillingBytes > options.bytesInFlightMax
        {
            await receive(&group)
        }
        guard stop == nil else { return }
        let (records, sink) = (filling, sink)
        batchesInFlight += 1
        bytesInFlight += fillingBytes
        filling = []
        fillingBytes = 0
        group.addTask { Sent(records: records, results: await sink.writeAll(records.map(\.write))) }
    }

    mutating func drain(_ group: inout TaskGroup<Sent>) async {
        while batchesInFlight > 0 { await receive(&group) }
    }

    /// The lowest line wins: everything before it has been acknowledged.
    mutating func end(_ stop: ImportStop) {
        if let earlier = self.stop, earlier.line <= stop.line { return }
        self.stop = stop
    }

    private mutating func malformed(_ line: UInt64, _ error: KVError, _ group: inout TaskGroup<Sent>) async {
        guard !options.skipBad else {
            progress.update { $0.skipped += 1 }
            return reportBadLine(BadLine(line: line, error: error))
        }
        await flush(&group)
        progress.update { $0.read -= 1 }
        end(ImportStop(reason: .malformed, line: line, error: error))
    }

    private mutating func receive(_ group: inout TaskGroup<Sent>) async {
        guard let sent = await group.next() else { return }
        batchesInFlight -= 1
        var counts = ImportCounts()
        for (record, result) in zip(sent.records, sent.results) {
            keys.remove(record.write.key)
            bytesInFlight -= record.bytes
            switch result {
            case .success:
                counts.written += 1
                counts.bytesWritten += UInt64(record.bytes)
            case .failure(let error):
                counts.failed += 1
                let isRefused = error.code == .invalidArgument
                if isRefused && options.skipBad {
                    reportBadLine(BadLine(line: record.line, error: error))
                } else {
                    end(ImportStop(reason: isRefused ? .refused : .unavailable, line: record.line, error: error))
                }
            }
        }
        progress.update {
            $0.written += counts.written
            $0.failed += counts.failed
            $0.bytesWritten += counts.bytesWritten
        }
    }
}
