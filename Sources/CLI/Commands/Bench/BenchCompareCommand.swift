import ArgumentParser
import BenchReport
import NIOCore
import TerminalText

struct BenchCompareCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Compares what kv bench --json wrote: ratios, and how far they spread.",
        discussion: """
            Two files, or several a side, whose medians are compared. Refuses runs with different settings: only router,
            seed, duration and warm-up may differ.

            EXAMPLES
              kv bench compare before.json after.json
              kv bench compare --baseline a1.json a2.json a3.json --candidate b1.json b2.json b3.json
            """)

    @Argument(help: ArgumentHelp("The baseline's report and the candidate's.", valueName: "file"))
    var files: [String] = []
    @Option(parsing: .upToNextOption, help: ArgumentHelp("Reports of the baseline.", valueName: "file"))
    var baseline: [String] = []
    @Option(parsing: .upToNextOption, help: ArgumentHelp("Reports of the candidate.", valueName: "file"))
    var candidate: [String] = []
    @Flag(help: "Also runs whose settings differ.")
    var allowDifferent = false
    @OptionGroup var output: OutputOptions

    func validate() throws {
        let isPair = files.count == 2 && baseline.isEmpty && candidate.isEmpty
        guard isPair || files.isEmpty && !baseline.isEmpty && !candidate.isEmpty else {
            throw ValidationError("Give two files, or --baseline FILE… and --candidate FILE….")
        }
    }

    func run() async throws {
        let sides = files.isEmpty ? [baseline, candidate] : files.map { [$0] }
        let comparison = try RunComparison(
            baseline: try await read(sides[0]), candidate: try await read(sides[1]), allowDifferent: allowDifferent)
        let document = ByteBuffer(bytes: try comparison.json())
        try await output.write(
            line: document, table: ComparisonTable.render(comparison),
            raw: TextTable.raw(ComparisonTable.rows(comparison)))
    }

    private func read(_ files: [String]) async throws -> [RunComparison.Source] {
        var sources: [RunComparison.Source] = []
        for file in files {
            let bytes = try await Console.read(path: file)
            sources.append(
                .init(file: file, report: try RunReport(json: Array(bytes.readableBytesView), name: file)))
        }
        return sources
    }
}
