import BenchReport
import Core
import DistribKVClient
import Glibc
import LoadGenerator
import NIOCore
import Sharding
import TerminalText

/// The phases of a benchmark against one cluster, with a line on the terminal while they run.
struct BenchSession {
    /// Requests that each connection of a load has under way.
    private static let loadPipelineDepth = 16
    /// Keys that are looked at to see whether all are there.
    private static let probes: UInt64 = 64
    private static let displayInterval = Duration.milliseconds(500)

    var settings: LoadSettings
    var topology: Topology?
    var client: KVClient

    /// Whether keys from all over the range are there, with values that suit.
    func isLoaded() async throws(KVError) -> Bool {
        let count = min(settings.records, Self.probes)
        for probe in 0..<count {
            // From the first to the last.
            let number = count == 1 ? 0 : probe * (settings.records - 1) / (count - 1)
            guard let entry = try await client.get(settings.names.name(of: number).utf8),
                settings.valueSize.range.contains(entry.value.readableBytes)
            else { return false }
            guard !settings.isVerified || LoadSettings.isVerifiable(entry.value.readableBytesView, key: number) else {
                return false
            }
        }
        return true
    }

    func load() async throws {
        var settings = settings
        settings.pipelineDepth = max(settings.pipelineDepth, Self.loadPipelineDepth)
        let run = LoadRun(settings, .load, topology: topology, refresh: refresh)
        let records = settings.records
        let result = try await show(
            run,
            line: { (_: [IntervalResult]) in
                "loading: \(Format.count(run.keysBegun)) of \(Format.count(records)) records"
            })
        guard !result.wasInterrupted else {
            throw CommandFailure(
                status: .interrupted, message: "the load phase was interrupted: not all records are there")
        }
        Console.error(
            "loaded \(Format.count(records)) records in \(Format.decimal(result.seconds)) s, "
                + "\(Format.count(UInt64(result.throughput)))/s: single PUTs, \(settings.connections) connections, "
                + "\(settings.pipelineDepth) under way on each"
                + (result.errors > 0 ? "; \(Format.count(UInt64(result.errors))) failed and were sent again" : ""))
    }

    func run() async throws -> LoadResult {
        try await show(LoadRun(settings, .run, topology: topology, refresh: refresh), line: Self.line)
    }

    private var refresh: @Sendable () async -> Topology? {
        { [client] in try? await client.refreshTopology() }
    }

    /// `12 s  51,234/s  p50 0.6 ms  p99 1.2 ms  3 errors`, of the last second.
    static func line(_ intervals: [IntervalResult]) -> String {
        guard let last = intervals.last, last.span > 0 else { return "warming up" }
        let operations = last.operations.values
        let errors = operations.reduce(0) { $0 + $1.errors }
        let answered = operations.reduce(0) { $0 + $1.count } - errors
        func milliseconds(_ nanoseconds: UInt64?) -> String { "\(Format.decimal(Double(nanoseconds ?? 0) / 1e6)) ms" }
        var text = "\(Int(last.end)) s  \(Format.count(UInt64(Double(answered) / last.span)))/s"
        text += "  p50 \(milliseconds(operations.map(\.p50).max()))  p99 \(milliseconds(operations.map(\.p99).max()))"
        if errors > 0 { text += "  \(Format.count(UInt64(errors))) errors" }
        return text
    }

    /// Runs a phase with a line of its progress where standard error is a terminal. Ctrl-C ends it.
    private func show(
        _ run: LoadRun, line: @escaping @Sendable ([IntervalResult]) -> String
    ) async throws -> LoadResult {
        let result = await Interruptible.run { () async -> Result<LoadResult, KVError> in
            await withTaskGroup(of: Void.self) { group in
                if let width = Console.terminalWidth {
                    group.addTask {
                        while (try? await Task.sleep(for: Self.displayInterval)) != nil {
                            Console.errorText("\r\u{1B}[K" + line(run.intervals).prefix(max(1, width - 1)))
                        }
                        Console.errorText("\r\u{1B}[K")
                    }
                }
                let result: Result<LoadResult, KVError>
                do throws(KVError) { result = .success(try await run.run()) } catch { result = .failure(error) }
                group.cancelAll()
                await group.waitForAll()
                return result
            }
        }
        return try result.get()
    }
}
