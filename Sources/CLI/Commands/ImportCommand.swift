public import ArgumentParser
import TerminalText
import Core
import DistribKVClient
public import ImportPipeline
import NIOCore

extension ImportFormat: ExpressibleByArgument {}

struct ImportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Writes every record of a TSV or NDJSON file, many at once.",
        discussion: """
            tsv:    key<TAB>value on each line, bytes as they are
            ndjson: {"key":"…","value":"…"} on each line; key_base64 and value_base64 for bytes that are no text

            The format follows from the file's name (.tsv, .ndjson, .jsonl) where --format does not say it.
            When an import stops, it prints the line to resume from: everything before it is in the cluster.

            EXAMPLES
              kv import packages.tsv
              dpkg-query -W -f '${Package}\\t${Version}\\n' | kv import - --format tsv
              kv import big.ndjson --resume-from 120001
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The file; - is standard input.", completion: .file())
    var file: String
    @Option(help: "tsv or ndjson.")
    var format: ImportFormat?
    @Option(help: ArgumentHelp("The first line to import, counted from 1.", valueName: "line"))
    var resumeFrom: UInt64 = 1
    @Flag(help: "Reports malformed and refused lines and goes on.")
    var skipBad = false

    func validate() throws {
        guard resumeFrom >= 1 else { throw ValidationError("--resume-from counts from 1.") }
        guard format != nil || ImportFormat(path: file) != nil else {
            throw ValidationError("The name \(file) says no format: add --format tsv or --format ndjson.")
        }
    }

    func run() async throws {
        guard let format = format ?? ImportFormat(path: file) else { return }
        var options = ImportOptions(format: format)
        options.resumeFrom = resumeFrom
        options.skipBad = skipBad
        let (importOptions, source) = (options, try FileSource(path: file))
        try await cluster.withClient(configure) { client in
            let start = ContinuousClock.now
            let display = ImportDisplay(total: source.size, start: start)
            let progress = ImportProgress()
            let importer = Importer(
                options: importOptions, source: source, sink: client, progress: progress,
                reportBadLine: { display.say("line \($0.line): \($0.error)") })
            // Refuses a wrong router before the file is read.
            _ = try await client.topology()
            let stop = await display.show(progress) {
                await Interruptible.run { () async -> ImportStop? in
                    do throws(ImportStop) { try await importer.run() } catch { return error }
                    return nil
                }
            }
            try await report(progress.counts, seconds: (ContinuousClock.now - start).seconds, stop)
        }
    }

    private func configure(_ configuration: inout KVClientConfiguration) {
        // A node that restarts must not end the import.
        configuration.requestTimeout = cluster.requestTimeout(default: 30)
        configuration.attemptsMax = 40
        configuration.connections.connectionsPerNodeMax = 2
        // What a server takes without making a connection wait.
        configuration.connections.pipeliningDepthMax = 128
        configuration.connections.waitersPerNodeMax = 4_096
    }

    private func report(_ counts: ImportCounts, seconds: Double, _ stop: ImportStop?) async throws {
        try await output.write(
            json: ImportReport(counts, seconds: seconds), table: Self.summary(counts, seconds: seconds) + "\n",
            raw: TextTable.raw([[counts.read, counts.written, counts.skipped, counts.failed].map { String($0) }]))
        if let stop {
            let (message, status) = explain(stop)
            throw CommandFailure(status: status, message: message)
        }
        if counts.failed > 0 { throw CommandFailure(status: .usage, message: nil) }
    }

    static func summary(_ counts: ImportCounts, seconds: Double) -> String {
        let rate = seconds > 0 ? UInt64(Double(counts.written) / seconds) : 0
        var text = "read \(counts.read), written \(counts.written), skipped \(counts.skipped), failed \(counts.failed)"
        if counts.unsent > 0 { text += ", not sent \(counts.unsent)" }
        text += "; \(Format.bytes(counts.bytesWritten)) in \(Format.decimal(seconds)) s, \(Format.count(rate)) keys/s"
        return text
    }

    /// What to say, and the exit status.
    func explain(_ stop: ImportStop) -> (String, CommandStatus) {
        var command = "kv import \(Self.quoted(file))"
        if let format { command += " --format \(format.rawValue)" }
        if let router = cluster.router { command += " --router \(Self.quoted(router))" }
        if skipBad { command += " --skip-bad" }
        command += " --resume-from \(stop.line)"
        let resume = "continue with\(file == "-" ? " the same input" : ""): \(command)"
        switch stop.reason {
        case .malformed:
            return (
                "line \(stop.line): \(stop.error); correct it or add --skip-bad, then \(resume)", .usage
            )
        case .refused:
            return (
                "line \(stop.line) was refused: \(stop.error); correct it or add --skip-bad, then \(resume)",
                .usage
            )
        case .unreadable: return ("\(stop.error); \(resume)", .usage)
        case .unavailable:
            return ("line \(stop.line) was not acknowledged: \(stop.error); \(resume)", .unavailable)
        case .interrupted: return ("interrupted; \(resume)", .interrupted)
        }
    }

    /// As a POSIX shell reads it back.
    private static func quoted(_ path: String) -> String {
        let plain = path.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"),
                UInt8(ascii: "/"), UInt8(ascii: ":"), UInt8(ascii: ","):
                true
            default: false
            }
        }
        guard !plain else { return path }
        return "'" + path.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
    }
}

/// The counts at the end of an import as JSON.
struct ImportReport: Encodable {
    var read: UInt64
    var written: UInt64
    var skipped: UInt64
    var failed: UInt64
    var unsent: UInt64
    var bytesWritten: UInt64
    var seconds: Double

    init(_ counts: ImportCounts, seconds: Double) {
        read = counts.read
        written = counts.written
        skipped = counts.skipped
        failed = counts.failed
        unsent = counts.unsent
        bytesWritten = counts.bytesWritten
        self.seconds = seconds
    }
}

extension Duration {
    var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
