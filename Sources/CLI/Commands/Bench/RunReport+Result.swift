import BenchReport
import FoundationEssentials
import Glibc
import LoadGenerator

extension RunReport {
    /// What a run of the load generator measured, as a document.
    init(_ result: LoadResult, started: Date, settings: [String: String], machine: Machine) {
        // Where nothing was measured by the thread, as in a run of milliseconds, there is no cost to tell.
        self.init(
            started: started, settings: settings, machine: machine, durationSeconds: result.seconds,
            clientSeconds: result.cpuSeconds,
            operations: Dictionary(
                uniqueKeysWithValues: result.operations.map { ($0.key.name, Operation($0.value)) }),
            timeline: result.timeline.map(Interval.init),
            verification: result.verification.map {
                Verification(
                    checked: UInt64($0.checked), stale: UInt64($0.stale), wrong: UInt64($0.wrong),
                    missing: UInt64($0.missing))
            })
    }
}

extension RunReport.Operation {
    fileprivate init(_ result: OperationResult) {
        self.init(
            count: UInt64(result.count),
            errorsByType: Dictionary(
                uniqueKeysWithValues: result.failures.map { ($0.key.description, UInt64($0.value)) }),
            latency: LatencySummary(
                buckets: result.buckets, microseconds: 0.001, mean: result.mean, max: result.longest))
    }
}

extension RunReport.Interval {
    fileprivate init(_ interval: IntervalResult) {
        self.init(
            endSeconds: interval.end, spanSeconds: interval.span,
            operations: Dictionary(
                uniqueKeysWithValues: interval.operations.map { kind, summary in
                    func microseconds(_ nanoseconds: UInt64) -> Double { Double(nanoseconds) / 1_000 }
                    return (
                        kind.name,
                        RunReport.IntervalOperation(
                            count: UInt64(summary.count), errors: UInt64(summary.errors),
                            latency: summary.count > summary.errors
                                ? (microseconds(summary.p50), microseconds(summary.p99), microseconds(summary.max))
                                : nil)
                    )
                }))
    }
}

extension RunReport.Machine {
    /// This one.
    static var current: Self {
        var name = utsname()
        uname(&name)
        let kernel = withUnsafeBytes(of: name.release) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        let model = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?
            .split(separator: "\n").first { $0.hasPrefix("model name") }?
            .split(separator: ":").last.map { $0.drop { $0 == " " } }
        return Self(
            cpu: model.map(String.init) ?? "unknown", cores: Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))), kernel: kernel)
    }
}
