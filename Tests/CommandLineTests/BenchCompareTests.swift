import BenchReport
import Foundation
import TestSupport
import Testing

@testable import kv

/// `kv bench compare` as scripts see it.
@Suite struct BenchCompareTests {
    private func report(_ count: UInt64, workload: String) throws -> Data {
        let buckets: [(upper: UInt64, count: UInt64)] = [(10, count)]
        let latency = LatencySummary(buckets: buckets)
        let report = RunReport(
            started: Date(timeIntervalSince1970: 0), settings: ["workload": workload],
            machine: .init(cpu: "x", cores: 1, kernel: "y"), durationSeconds: 1, clientSeconds: 0,
            operations: ["read": .init(count: count, latency: latency)], timeline: [])
        return Data(try report.json())
    }

    @Test func filesOfBothSidesAreCompared() async throws {
        let directory = try TemporaryDirectory()
        func file(_ name: String, _ content: Data) throws -> String {
            try content.write(to: URL(fileURLWithPath: "\(directory.path)/\(name)"))
            return "\(directory.path)/\(name)"
        }
        let a = try file("a", report(100, workload: "c"))
        let b = try file("b", report(150, workload: "c"))
        let other = try file("other", report(150, workload: "a"))
        let none = try file("none", Data("{}".utf8))

        let pair = try await ProgramRun.kv(["bench", "compare", a, b, "--output", "raw"])
        #expect(pair.status == 0 && pair.errors.isEmpty)
        #expect(pair.text.hasPrefix("read\tanswers/s\t100.0\t150.0\t1.5\t-\t-\t-\n"), "\(pair.text)")
        let several = try await ProgramRun.kv(
            ["bench", "compare", "--baseline", a, b, "--candidate", b, b, "--output", "raw"])
        #expect(several.text.hasPrefix("read\tanswers/s\t125.0\t150.0\t1.2\t1.0\t1.5\tunclear\n"), "\(several.text)")
        let json = try await ProgramRun.kv(["bench", "compare", a, other, "--allow-different", "--json"])
        #expect(json.text.contains(#""differences":{"workload":["c","a"]}"#), "\(json.text) \(json.errors)")

        let refused: [([String], String)] = [
            ([a, other], "the runs differ in workload (c, a)"), ([a, none], "\(none) is no report of kv bench"),
            ([a, "\(directory.path)/gone"], "cannot open"), ([a], "Give two files"),
            (["--baseline", a], "Give two files"), ([a, b, "--baseline", a, "--candidate", b], "Give two files"),
        ]
        for (arguments, message) in refused {
            let run = try await ProgramRun.kv(["bench", "compare"] + arguments)
            #expect(run.status == CommandStatus.usage.rawValue && run.output.isEmpty)
            #expect(run.errorLines.count == 1 && run.errors.contains(message), "\(run.errors)")
        }
    }
}
