import Core
import DistribKVClient
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import ImportPipeline

private func importAll(
    _ source: TextSource, into sink: MemorySink, _ configure: (inout ImportOptions) -> Void = { _ in },
    bad: @escaping @Sendable (BadLine) -> Void = { _ in }
) async -> (ImportCounts, ImportStop?) {
    var options = ImportOptions(format: .tsv)
    configure(&options)
    let progress = ImportProgress()
    let importer = Importer(options: options, source: source, sink: sink, progress: progress, reportBadLine: bad)
    do throws(ImportStop) {
        try await importer.run()
    } catch {
        return (progress.counts, error)
    }
    return (progress.counts, nil)
}

private func lines(_ count: Int) -> [String] { (1...count).map { "key-\($0)\tvalue-\($0)" } }

@Suite struct ImporterTests {
    @Test func everyRecordIsWrittenAndCounted() async {
        let sink = MemorySink()
        let text = lines(5_000).joined(separator: "\n") + "\n"
        let (counts, stop) = await importAll(TextSource(text), into: sink)
        #expect(stop == nil)
        #expect(sink.data.count == 5_000)
        #expect(sink.data[Array("key-4999".utf8)] == Array("value-4999".utf8))
        #expect(counts.read == 5_000)
        #expect(counts.written == 5_000)
        #expect(counts.skipped + counts.failed + counts.unsent == 0)
        #expect(counts.position == UInt64(text.utf8.count))
        #expect(counts.bytesWritten == UInt64(text.utf8.count - 2 * 5_000))
        #expect(sink.batchesInFlightPeak <= 4)
        #expect(sink.batchRecordsPeak <= 2_048)
    }

    @Test func aFileThatANodeSavedIsApplied() async {
        let sink = MemorySink()
        let text = """
            {"key":"a","value":"1","version":"0000000000000001"}
            {"key":"b","value":"2","version":"0000000000000002"}
            {"key":"a","deleted":true,"version":"0000000000000003"}
            {"key":"c","deleted":true,"version":"0000000000000004"}
            """
        let (counts, stop) = await importAll(TextSource(text), into: sink) { $0.format = .ndjson }
        #expect(stop == nil)
        #expect(counts.written == 4)
        #expect(sink.data == [Array("b".utf8): Array("2".utf8)])
    }

    @Test func anEmptyFileAndEmptyLinesAreNothing() async {
        for text in ["", "\n\n\n"] {
            let (counts, stop) = await importAll(TextSource(text), into: MemorySink())
            #expect(stop == nil)
            #expect(counts.read == 0)
        }
    }

    @Test func bytesInFlightAreBounded() async {
        let sink = MemorySink()
        let text = (1...200).map { "k\($0)\t" + String(repeating: "x", count: 1_000) }.joined(separator: "\n")
        let (counts, _) = await importAll(TextSource(text), into: sink) {
            $0.batchBytesMax = 5_000
            $0.bytesInFlightMax = 12_000
            $0.batchesInFlightMax = 100
        }
        #expect(counts.written == 200)
        #expect(sink.bytesInFlightPeak <= 12_000)
    }

    @Test func aRecordOverEveryBoundStillGoesAlone() async {
        let sink = MemorySink()
        let (counts, stop) = await importAll(
            TextSource("a\t1\nb\t" + String(repeating: "x", count: 5_000) + "\nc\t3"), into: sink
        ) {
            $0.batchBytesMax = 100
            $0.bytesInFlightMax = 200
        }
        #expect(stop == nil)
        #expect(counts.written == 3)
    }

    @Test func aMalformedLineStopsAfterWhatWasBeforeIt() async {
        let sink = MemorySink()
        let (counts, stop) = await importAll(TextSource("a\t1\n\nb\t2\nnonsense\nc\t3\n"), into: sink)
        #expect(stop?.reason == .malformed)
        #expect(stop?.line == 4)
        #expect(stop?.error.message == "there is no tab between key and value")
        #expect(counts.read == 2)
        #expect(counts.written == 2)
        #expect(sink.data.count == 2)
    }

    @Test func skippedLinesAreReportedAndCounted() async {
        let sink = MemorySink {
            String(decoding: $0.key, as: UTF8.self) == "big" ? KVError(.invalidArgument, "too large") : nil
        }
        let bad = Mutex<[UInt64]>([])
        let (counts, stop) = await importAll(
            TextSource("a\t1\nnonsense\nbig\t2\n\tx\nb\t3"), into: sink, { $0.skipBad = true },
            bad: { line in bad.withLock { $0.append(line.line) } })
        #expect(stop == nil)
        #expect((counts.read, counts.written, counts.skipped, counts.failed) == (5, 2, 2, 1))
        #expect(bad.withLock { $0 }.sorted() == [2, 3, 4])
    }

    @Test func aRefusedRecordStops() async {
        let sink = MemorySink {
            String(decoding: $0.key, as: UTF8.self) == "key-7" ? KVError(.invalidArgument, "too large") : nil
        }
        let (counts, stop) = await importAll(TextSource(lines(20).joined(separator: "\n")), into: sink)
        #expect(stop?.reason == .refused)
        #expect(stop?.line == 7)
        #expect(counts.failed == 1)
    }

    @Test func aLineThatIsTooLongIsMalformed() async {
        let (counts, stop) = await importAll(
            TextSource("a\t1\nb\t" + String(repeating: "x", count: 200) + "\nc\t3"), into: MemorySink()
        ) {
            $0.lineBytesMax = 100
        }
        #expect(stop?.reason == .malformed)
        #expect(stop?.line == 2)
        #expect(counts.written == 1)
    }

    @Test func aFileThatCannotBeReadOnTellsWhereItWas() async {
        let sink = MemorySink()
        let text = Array((lines(10).joined(separator: "\n") + "\nkey-11\tval").utf8)
        let (counts, stop) = await importAll(TextSource(text, failsAtEnd: true), into: sink)
        #expect(stop?.reason == .unreadable)
        #expect(stop?.line == 11)
        #expect(counts.written == 10)
    }

    @Test(arguments: UInt64(0)..<30) func theLastOfRecordsWithOneKeyWins(seed: UInt64) async {
        var random = SeededGenerator(seed: seed)
        let records = (0..<400).map { (key: "k\(Int.random(in: 0..<20, using: &random))", value: "v\($0)") }
        let sink = MemorySink(seed: seed)
        let (counts, _) = await importAll(
            TextSource(records.map { "\($0.key)\t\($0.value)" }.joined(separator: "\n")), into: sink
        ) {
            $0.batchRecordsMax = 16
        }
        #expect(counts.written == 400)
        for (key, value) in Dictionary(records.map { ($0.key, $0.value) }, uniquingKeysWith: { $1 }) {
            #expect(sink.data[Array(key.utf8)] == Array(value.utf8), "seed \(seed)")
        }
    }

    /// The cluster fails now and then; the import is resumed where it said until it is through. At every stop
    /// everything before the line it named must be in the cluster.
    @Test(arguments: UInt64(0)..<40) func resumingWhereItSaidLosesNothing(seed: UInt64) async {
        var random = SeededGenerator(seed: seed)
        let records = (1...600).map { (key: "k\($0)", value: "v\($0)") }
        let text = records.map { "\($0.key)\t\($0.value)" }.joined(separator: "\n")
        let failures = Mutex(SeededGenerator(seed: seed ^ 0xFEED))
        let sink = MemorySink(seed: seed) { _ in
            failures.withLock { Int.random(in: 0..<200, using: &$0) == 0 } ? KVError(.unavailable, "down") : nil
        }
        var resumeFrom: UInt64 = 1
        var runs = 0
        while true {
            runs += 1
            let (line, chunkBytes) = (resumeFrom, Int.random(in: 1..<500, using: &random))
            let batch = Int.random(in: 1..<50, using: &random)
            let (counts, stop) = await importAll(TextSource(text, chunkBytes: chunkBytes), into: sink) {
                $0.resumeFrom = line
                $0.batchRecordsMax = batch
            }
            guard let stop else {
                #expect(counts.written == 600 - resumeFrom + 1, "seed \(seed)")
                break
            }
            #expect(stop.reason == .unavailable)
            #expect(stop.line >= resumeFrom, "seed \(seed)")
            #expect(counts.failed > 0)
            #expect(counts.read == counts.written + counts.failed + counts.unsent)
            let data = sink.data
            #expect(
                records.prefix(Int(stop.line) - 1).allSatisfy { data[Array($0.key.utf8)] == Array($0.value.utf8) },
                "seed \(seed), run \(runs)")
            resumeFrom = stop.line
            guard runs < 1_000 else { return #expect(Bool(false), "seed \(seed) does not end") }
        }
        #expect(sink.data.count == 600)
    }

    @Test func anInterruptedImportSaysWhereToGoOn() async throws {
        let text = lines(50_000).joined(separator: "\n")
        let running = Mutex<Task<ImportStop?, Never>?>(nil)
        let sink = MemorySink { pair in
            if String(decoding: pair.key, as: UTF8.self) == "key-900" { running.withLock { $0?.cancel() } }
            return nil
        }
        let gate = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        let task = Task { () async -> ImportStop? in
            for await _ in gate.stream { break }
            return await importAll(TextSource(text), into: sink).1
        }
        running.withLock { $0 = task }
        gate.continuation.yield()
        let stop = try #require(await task.value)
        #expect(stop.reason == .interrupted)
        #expect(stop.line > 900 && stop.line < 50_000)
        let data = sink.data
        #expect((1..<stop.line).allSatisfy { data[Array("key-\($0)".utf8)] != nil })
        let (_, again) = await importAll(TextSource(text), into: MemorySink()) { $0.resumeFrom = stop.line }
        #expect(again == nil)
    }
}
