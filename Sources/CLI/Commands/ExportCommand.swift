import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import ImportPipeline
import NIOCore

struct ExportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Writes records to a file that kv import takes back.",
        discussion: """
            ndjson keeps everything: keys and values of any bytes, and what is left of their lives.
            tsv has lines of key<TAB>value: it refuses what has a tab or a line break in the wrong place, and keeps no ttl.

            The format follows from the file's name (.tsv, .ndjson, .jsonl) where --format does not say it; standard output
            gets ndjson. The file is written aside and takes its name when it is complete. It is no picture of one moment:
            a record that is written meanwhile is in it as it was before or after, or not at all.

            EXAMPLES
              kv export backup.ndjson
              kv export users.tsv --prefix user/
              kv export - | gzip > backup.ndjson.gz
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var range: RangeFlags
    @Argument(help: "The file; - is standard output.", completion: .file())
    var file = "-"
    @Option(help: "tsv or ndjson.")
    var format: ImportFormat?
    @Option(help: "What the keys begin with.")
    var prefix: String?

    func validate() throws {
        guard format != nil || file == "-" || ImportFormat(path: file) != nil else {
            throw ValidationError("The name \(file) says no format: add --format tsv or --format ndjson.")
        }
    }

    func run() async throws {
        let (range, prefix) = (range, prefix)
        let format = format ?? ImportFormat(path: file) ?? .ndjson
        try await cluster.withClient(configure) { client in
            let start = ContinuousClock.now
            // Refuses a wrong router before the file is touched.
            _ = try await client.topology()
            let target = try ExportFile(path: file)
            let progress = ImportProgress()
            let display = ImportDisplay(total: nil, start: start)
            let exporter = Exporter(format: format, sink: target, progress: progress)
            let result = await display.show(progress) {
                await Interruptible.run { () async -> Result<UInt64, KVError> in
                    do throws(KVError) {
                        let mortal = try await exporter.run(range.scan(client, prefix: prefix))
                        try await target.finish()
                        return .success(mortal)
                    } catch {
                        target.discard()
                        return .failure(error)
                    }
                }
            }
            try await report(result, progress.counts, seconds: (ContinuousClock.now - start).seconds)
        }
    }

    private func configure(_ configuration: inout KVClientConfiguration) {
        // A node that restarts must not end the export.
        configuration.requestTimeout = cluster.requestTimeout(default: 30)
        configuration.attemptsMax = 40
    }

    private func report(_ result: Result<UInt64, KVError>, _ counts: ImportCounts, seconds: Double) async throws {
        switch result {
        case .success(let mortal):
            if mortal > 0 {
                Console.error("kv: \(Format.count(mortal)) records have a ttl, which tsv does not keep: use ndjson")
            }
            try await write(counts, seconds: seconds)
        case .failure(let error):
            let left = file == "-" ? "what was written is incomplete" : "nothing was written to \(file)"
            guard error.code != .cancelled else {
                throw CommandFailure(status: .interrupted, message: "interrupted; \(left)")
            }
            let status: CommandStatus = error.code == .invalidData ? .usage : CommandStatus(error)
            throw CommandFailure(status: status, message: "\(error); \(left)")
        }
    }

    /// To standard error where the records went to standard output.
    private func write(_ counts: ImportCounts, seconds: Double) async throws {
        let rate = seconds > 0 ? UInt64(Double(counts.written) / seconds) : 0
        let summary =
            "exported \(counts.written); \(Format.bytes(counts.bytesWritten)) in \(Format.decimal(seconds)) s, "
            + "\(Format.count(rate)) keys/s"
        guard file != "-" else { return Console.error(summary) }
        try await output.write(
            json: ExportReport(exported: counts.written, bytes: counts.bytesWritten, seconds: seconds),
            table: summary + "\n", raw: TextTable.raw([[String(counts.written)]]))
    }
}

/// The counts at the end of an export as JSON.
struct ExportReport: Encodable {
    var exported: UInt64
    /// Of keys and values.
    var bytes: UInt64
    var seconds: Double
}
