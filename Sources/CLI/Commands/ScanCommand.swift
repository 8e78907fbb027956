import TerminalText
import ArgumentParser
import Core
import DistribKVClient
import ImportPipeline
import NIOCore

/// Which keys `kv scan` and `kv export` go over.
struct RangeFlags: ParsableArguments {
    @Option(
        help: ArgumentHelp("The first key that may be in it; with --reverse, the first that is not.", valueName: "key"))
    var start: String?
    @Option(
        help: ArgumentHelp("The first key that is not in it; with --reverse, the last that may be.", valueName: "key"))
    var end: String?
    @Option(
        help: ArgumentHelp("eventual: any replica answers; leader: only the leader.", valueName: "level"),
        transform: FlagText.consistency)
    var consistency: ReadOptions.Consistency = .eventual

    func scan(
        _ client: KVClient, prefix: String?, limit: Int? = nil, reverse: Bool = false, keysOnly: Bool = false
    ) -> KVScan {
        client.scan(
            prefix: (prefix ?? "").utf8, start: (start ?? "").utf8, end: (end ?? "").utf8, limit: limit,
            reverse: reverse, keysOnly: keysOnly, options: ReadOptions(consistency: consistency))
    }
}

struct ScanCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scan",
        abstract: "Lists records in the order of their keys, over all shards.",
        discussion: """
            Without a prefix or a range: all of them. --output json writes an object on each line, --output raw key and
            value with a tab between them, as they are.

            EXAMPLES
              kv scan user/ --limit 20
              kv scan --start user/1 --end user/3 --keys-only
              kv scan log/ --reverse --limit 1
              kv scan '{cart:7}/' --output json
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var range: RangeFlags
    @Argument(help: "What the keys begin with.")
    var prefix: String?
    @Option(help: "Records at the most.")
    var limit: Int?
    @Flag(help: "From the greatest key down.")
    var reverse = false
    @Flag(help: "Leaves the values out.")
    var keysOnly = false

    func validate() throws {
        guard limit.map({ $0 > 0 }) ?? true else { throw ValidationError("--limit is at least 1.") }
    }

    func run() async throws {
        var writer = ScanWriter(format: output.format(), keysOnly: keysOnly)
        try await cluster.withClient { client in
            let scan = range.scan(client, prefix: prefix, limit: limit, reverse: reverse, keysOnly: keysOnly)
            for try await record in scan { try await writer.write(record) }
            try await writer.finish()
        }
    }
}

/// Writes records to standard output, many at once.
struct ScanWriter {
    /// Rows that the widths of columns are taken from.
    private static let tableRowsMax = 500
    private static let chunkBytes = 64 << 10

    let format: OutputFormat
    let keysOnly: Bool
    private var buffer = ByteBuffer()
    private var rows: [[String]]

    init(format: OutputFormat, keysOnly: Bool) {
        self.format = format
        self.keysOnly = keysOnly
        rows = [["KEY", "VERSION", "TTL"] + (keysOnly ? [] : ["VALUE"])]
    }

    mutating func write(_ record: KVRecord) async throws {
        append(record)
        if buffer.readableBytes >= ScanWriter.chunkBytes { try await flush() }
    }

    mutating func finish() async throws {
        renderRows()
        try await flush()
    }

    private mutating func append(_ record: KVRecord) {
        switch format {
        case .json: ImportFormat.writeJSON(record, into: &buffer)
        case .raw:
            buffer.writeBytes(record.key)
            if let value = record.value {
                buffer.writeStaticString("\t")
                buffer.writeImmutableBuffer(value)
            }
            buffer.writeStaticString("\n")
        case .table:
            let ttl = record.ttl.map { "\($0.nanoseconds / 1_000_000)ms" } ?? "-"
            rows.append(
                [TextTable.cell(record.key), record.version.hexDigits, ttl]
                    + (record.value.map { [TextTable.cell($0.readableBytesView)] } ?? []))
            if rows.count > ScanWriter.tableRowsMax { renderRows() }
        }
    }

    private mutating func renderRows() {
        if format == .table { buffer.writeString(TextTable.render(rows)) }
        rows = []
    }

    private mutating func flush() async throws {
        try await Console.write(buffer)
        buffer.clear(minimumCapacity: ScanWriter.chunkBytes)
    }
}
