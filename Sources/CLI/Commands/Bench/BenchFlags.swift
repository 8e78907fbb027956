public import ArgumentParser
import Core
public import LoadGenerator
import NIOCore

extension KeyDistribution: ExpressibleByArgument {}
extension LoadSettings.Via: ExpressibleByArgument {}
extension LoadSettings.ReadFrom: ExpressibleByArgument {}

/// What the load consists of.
struct WorkloadFlags: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "a to f of YCSB, get, put or mixed.",
            discussion: Workload.all.map { "\($0.name): \($0.summary), \($0.keys.rawValue)." }.joined(separator: "\n")),
        transform: Self.workload)
    var workload = Workload.named("c") ?? Workload.all[0]

    @Option(help: ArgumentHelp("Keys that exist.", valueName: "count"), transform: Self.records)
    var records: UInt64 = 100_000

    @Option(
        help: ArgumentHelp(
            "How keys are chosen: uniform, zipfian or latest.", discussion: "(default: the workload's)",
            valueName: "distribution"))
    var keys: KeyDistribution?

    @Option(
        help: ArgumentHelp(
            "Bytes of a value: 100, 10-1000 (uniform), zipfian:10-1000 or normal:10-1000.", valueName: "bytes"),
        transform: Self.valueSize)
    var valueSize = ValueSize.fixed(100)

    @Option(help: ArgumentHelp("What the keys begin with.", valueName: "text"), transform: Self.keyPrefix)
    var keyPrefix = "user"

    @Flag(help: "Keys are in the order in which they are inserted; else they are spread.")
    var orderedKeys = false

    @Option(help: ArgumentHelp("Of everything random. (default: a new one, which is printed)", valueName: "number"))
    var seed: UInt64?

    private static func workload(_ text: String) throws -> Workload {
        guard let workload = Workload.named(text) else {
            let names = Workload.all.map(\.name).joined(separator: ", ")
            throw ValidationError("There is no workload \"\(text)\": use one of \(names).")
        }
        return workload
    }

    private static func records(_ text: String) throws -> UInt64 {
        guard let count = UInt64(text), (1...LoadSettings.recordsMax).contains(count) else {
            throw ValidationError("\"\(text)\" is no number of records from 1 to \(LoadSettings.recordsMax).")
        }
        return count
    }

    private static func valueSize(_ text: String) throws -> ValueSize {
        guard let size = ValueSize(text) else {
            throw ValidationError(
                "\"\(text)\" is no size of values: write 100, 10-1000, zipfian:10-1000 or normal:10-1000, up to "
                    + "\(ValueSize.bytesMax) bytes.")
        }
        return size
    }

    private static func keyPrefix(_ text: String) throws -> String {
        guard KeyNames.isValid(prefix: text) else {
            throw ValidationError(
                "\"\(text)\" is no prefix of keys: up to \(KeyNames.prefixBytesMax) letters, digits and -._~/: are.")
        }
        return text
    }
}

/// How the load is offered.
struct PaceFlags: ParsableArguments {
    @Option(help: ArgumentHelp("Clients, each with one operation under way.", valueName: "count"))
    var connections = 32

    @Option(help: ArgumentHelp("Operations that each client has under way at once.", valueName: "depth"))
    var pipeline = 1

    @Option(help: ArgumentHelp("Event loops, each on a thread of its own.", valueName: "count"))
    var threads = 1

    @Option(
        help: ArgumentHelp(
            "Operations begun per second, whatever became of those before; latencies count from when they were due.",
            discussion: "(default: the next one begins when one has ended)", valueName: "per-second"))
    var rate: Double?

    @Option(
        help: ArgumentHelp("How long is measured: 500ms, 10s, 5m. (default: 10s)", valueName: "duration"),
        transform: Self.duration)
    var duration: UInt64?

    @Option(help: ArgumentHelp("Ends after so many operations instead.", valueName: "count"))
    var operations: UInt64?

    @Option(
        help: ArgumentHelp("Load before that, which is not measured. (default: 2s)", valueName: "duration"),
        transform: Self.duration)
    var warmUp: UInt64?

    func validate() throws {
        func check(_ name: String, _ value: Int, _ range: ClosedRange<Int>) throws {
            guard !range.contains(value) else { return }
            throw ValidationError("--\(name) goes from \(range.lowerBound) to \(range.upperBound).")
        }
        try check("connections", connections, 1...LoadSettings.connectionsMax)
        try check("pipeline", pipeline, 1...LoadSettings.pipelineDepthMax)
        try check("threads", threads, 1...min(LoadSettings.threadsMax, connections))
        if let rate {
            guard rate >= 0.1, rate <= 1e7 else {
                throw ValidationError("--rate goes from 0.1 to 10000000 per second.")
            }
        }
        guard duration == nil || operations == nil else {
            throw ValidationError("--duration and --operations exclude each other: which one ends the run?")
        }
        guard operations != 0, duration != 0 else { throw ValidationError("A run of nothing measures nothing.") }
    }

    /// Nanoseconds, up to a day.
    private static func duration(_ text: String) throws -> UInt64 {
        guard let milliseconds = DurationText.milliseconds(text),
            milliseconds <= LoadSettings.durationMax / 1_000_000
        else { throw ValidationError("\"\(text)\" is no duration up to 24h, such as 500ms, 10s or 5m.") }
        return milliseconds * 1_000_000
    }
}
